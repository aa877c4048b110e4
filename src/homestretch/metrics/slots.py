"""Slot error rate: what a text gets wrong of a meaning representation."""

from __future__ import annotations

import math

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.ops.slots import slot_lexicon
from homestretch.types import Completion, Example, Metric


def slot_error_rate(context: MetricContext) -> Metric:
    """Values missing, hallucinated and wrong over the values of the document, at most 1 (after Wen et al. 2015).

    NaN where the document is no meaning representation, or has no value that can be checked (`ops/slots.py`).
    """
    lexicon = slot_lexicon(context.train, context.config.seed)

    def score(example: Example, completion: Completion) -> float:
        errors = lexicon.errors(example.source, completion.text)
        return math.nan if errors is None else errors.rate

    return per_example("slot_error_rate", score, higher_is_better=False)
