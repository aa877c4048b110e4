"""Names, numbers, dates and times: does the source support the completion's, and has it the references'?

Precision against the source and recall against the reference follow Nan et al. 2021 (arXiv 2102.09130), with rules in
place of a tagger. Distinct mentions count, each once. They cannot see a true name in a wrong role.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.ops.entities import Mention, is_supported
from homestretch.types import Completion, Example, Metric

_NUMBER_KINDS = frozenset(("number", "money", "date", "time"))


def entity_precision(context: MetricContext) -> Metric:
    """Share of the completion's mentions that the source supports; NaN where it mentions nothing."""
    find = _finder(context)
    return per_example(
        "entity_precision", lambda example, completion: _supported(find(completion.text), example.source)
    )


def number_precision(context: MetricContext) -> Metric:
    """`entity_precision` of numbers, money, dates and times alone; NaN where the completion has none."""
    find = _finder(context)

    def score(example: Example, completion: Completion) -> float:
        return _supported([m for m in find(completion.text) if m.kind in _NUMBER_KINDS], example.source)

    return per_example("number_precision", score)


def entity_recall(context: MetricContext) -> Metric:
    """Share of a reference's mentions that the completion has, the best over the references; NaN if they have none."""
    find = _finder(context)
    return per_example("entity_recall", lambda example, completion: _recall(find, example, completion))


def entity_f1(context: MetricContext) -> Metric:
    """Harmonic mean of `entity_precision` and `entity_recall`.

    0 where the references mention something and the completion nothing, so that naming nobody does not pay; NaN where
    the references mention nothing. Whether it is defined depends on the example alone.
    """
    find = _finder(context)

    def score(example: Example, completion: Completion) -> float:
        recall = _recall(find, example, completion)
        if math.isnan(recall):
            return math.nan
        precision = _supported(find(completion.text), example.source)
        if math.isnan(precision) or precision + recall == 0:
            return 0.0
        return 2 * precision * recall / (precision + recall)

    return per_example("entity_f1", score)


def num_entities(context: MetricContext) -> Metric:
    """Distinct mentions in the completion (descriptive: read it beside the precisions)."""
    find = _finder(context)
    return per_example("num_entities", lambda _, completion: float(len(find(completion.text))), None)


_Finder = Callable[[str], Collection[Mention]]


def _finder(context: MetricContext) -> _Finder:
    """A function from a text to its distinct mentions, which knows the names of the training texts."""
    finder = context.finder

    def find(text: str) -> Collection[Mention]:
        return {(mention.kind, mention.value): mention for mention in finder.mentions(text)}.values()

    return find


def _supported(found: Collection[Mention], text: str) -> float:
    return sum(is_supported(mention, text) for mention in found) / len(found) if found else math.nan


def _recall(find: _Finder, example: Example, completion: Completion) -> float:
    recalls = [_supported(find(reference), completion.text) for reference in example.references]
    return max((recall for recall in recalls if not math.isnan(recall)), default=math.nan)
