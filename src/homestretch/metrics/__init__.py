"""Evaluation metrics: which there are, and the ones a recipe asks for. docs/metrics.md defines each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from homestretch.config import RunConfig
from homestretch.metrics.scoring import MetricContext
from homestretch.ops.slots import is_data_to_text
from homestretch.ops.words import words
from homestretch.registry import blaming, checked_scores, resolve
from homestretch.types import Completion, Example, Metric, Scorer, UserError

METRICS: dict[str, str] = {
    "rouge_1": "homestretch.metrics.overlap:rouge_1",
    "rouge_2": "homestretch.metrics.overlap:rouge_2",
    "rouge_l": "homestretch.metrics.overlap:rouge_l",
    "rouge_l_length_adjusted": "homestretch.metrics.overlap:rouge_l_length_adjusted",
    "chrf": "homestretch.metrics.overlap:chrf",
    "entity_precision": "homestretch.metrics.faithfulness:entity_precision",
    "number_precision": "homestretch.metrics.faithfulness:number_precision",
    "entity_recall": "homestretch.metrics.faithfulness:entity_recall",
    "entity_f1": "homestretch.metrics.faithfulness:entity_f1",
    "num_entities": "homestretch.metrics.faithfulness:num_entities",
    "slot_error_rate": "homestretch.metrics.slots:slot_error_rate",
    "terminated": "homestretch.metrics.length:terminated",
    "length_ratio": "homestretch.metrics.length:length_ratio",
    "num_words": "homestretch.metrics.length:num_words",
    "repetition_3": "homestretch.metrics.repetition:repetition_3",
    "distinct_2": "homestretch.metrics.repetition:distinct_2",
    "coverage": "homestretch.metrics.extractive:coverage",
    "density": "homestretch.metrics.extractive:density",
    "novel_bigrams": "homestretch.metrics.extractive:novel_bigrams",
}
"""Name -> "module:factory"; a factory is `(MetricContext) -> Metric`. A package adds its own as an entry point of the
group "homestretch.metrics"; a recipe may also say `package.module:factory`."""

_GROUP = "homestretch.metrics"
_DATA_TO_TEXT = frozenset({"slot_error_rate"})
"""Measured by themselves only where the documents are meaning representations; a recipe may name them anywhere."""


def build_metrics(config: RunConfig, train: Sequence[Example]) -> list[Metric]:
    """Every metric of a run: the task's exact ones, ours, and whatever else the recipe names as selection or primary.

    `train` are the labelled training examples, from which the entity metrics learn names. Raises UserError for a name
    that nobody knows, and for a selection metric that has no direction.
    """
    context = MetricContext(config, train)
    built = {metric.name: metric for metric in _task_metrics(config)}
    for name in METRICS if is_data_to_text(train) else [name for name in METRICS if name not in _DATA_TO_TEXT]:
        built.setdefault(name, _build(name, context, built))
    for name in (*(config.evaluate.selection_metrics or ()), *(config.evaluate.primary_metrics or ())):
        if name not in built:
            built[name] = _build(name, context, built)
    for metric in (built[name] for name in config.evaluate.selection_metrics or ()):
        require_direction(metric, "evaluate.selection_metrics")
    return list(built.values())


def build_selection(config: RunConfig, train: Sequence[Example]) -> Scorer:
    """The held-out score G that chooses checkpoints: per example, the mean of `evaluate.selection_metrics`.

    By default these are fact_f1 where the task has exact facts, else rouge_l and entity_f1. A metric for which lower
    is better counts as 1 - x. An undefined one counts as 0 if the completion is empty or the example's reference has a
    defined score (the completion dodged); else the mean is over the others; with no other left the score is 1 (there
    was nothing to get right, and nothing wrong was said). So every score is finite.
    """
    context = MetricContext(config, train)
    chosen = [build_metric(name, context) for name in selection_names(config)]
    for metric in chosen:
        require_direction(metric, "evaluate.selection_metrics")

    def selection(examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        columns = np.stack([_defined_or_zero(metric, examples, completions) for metric in chosen])
        num_defined = np.sum(~np.isnan(columns), axis=0)
        return np.where(num_defined > 0, np.nansum(columns, axis=0) / np.maximum(num_defined, 1), 1.0)

    return selection


def selection_names(config: RunConfig) -> tuple[str, ...]:
    """The metrics whose mean is the held-out score."""
    has_facts = any(metric.name == "fact_f1" for metric in _task_metrics(config))
    return config.evaluate.selection_metrics or (("fact_f1",) if has_facts else ("rouge_l", "entity_f1"))


def build_metric(name: str, context: MetricContext) -> Metric:
    """One metric by its name in recipes, the task's exact ones included. UserError for a name that nobody knows."""
    exact = {metric.name: metric for metric in _task_metrics(context.config)}
    return exact[name] if name in exact else _build(name, context, exact)


def require_direction(metric: Metric, key: str) -> None:
    """Raise UserError if nothing is better or worse about the metric, and so nothing can be chosen or tested by it."""
    if metric.higher_is_better is None:
        raise UserError(
            f"{key}: {metric.name!r} is descriptive, neither end of it is better; name a metric with a direction"
        )


def _task_metrics(config: RunConfig) -> list[Metric]:
    if config.data.task is None:
        return []
    from homestretch.tasks import build_task

    return list(build_task(config.data.task).metrics())


def _build(name: str, context: MetricContext, others: Iterable[str]) -> Metric:
    """Resolve and make one metric. It goes by the name the recipe gives it; `others` are names to suggest as well."""
    factory = resolve(name, {**dict.fromkeys(others, ""), **METRICS}, _GROUP, "metric")
    with blaming(f"metric {name!r}: making it failed"):
        metric: Metric = factory(context)
    if not isinstance(metric, Metric):
        raise UserError(f"metric {name!r}: its factory returned a {type(metric).__name__}, no homestretch.types.Metric")
    if name in METRICS:
        return replace(metric, name=name)
    return replace(metric, name=name, scorer=partial(checked_scores, f"metric {name!r}", metric.scorer))


def _defined_or_zero(
    metric: Metric, examples: Sequence[Example], completions: Sequence[Completion]
) -> NDArray[np.float64]:
    """The metric's scores, higher better, shape (n,); 0 where it is undefined though there was something to say."""
    scores = np.asarray(metric.scorer(examples, completions), dtype=np.float64)
    oriented = scores if metric.higher_is_better else 1 - scores
    for i in np.flatnonzero(np.isnan(scores)).tolist():
        if not words(completions[i].text) or _is_defined_for_reference(metric, examples[i]):
            oriented[i] = 0.0
    return oriented


def _is_defined_for_reference(metric: Metric, example: Example) -> bool:
    if not example.references:
        return False
    return not np.isnan(metric.scorer([example], [Completion(example.reference)])[0])
