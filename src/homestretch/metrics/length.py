"""Length, and whether the model said that it had finished."""

from __future__ import annotations

import math

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.ops.words import words
from homestretch.types import Completion, Example, Metric


def length_ratio(context: MetricContext) -> Metric:
    """Words of the completion over words of the reference for which this is nearest to 1 (descriptive)."""

    def score(example: Example, completion: Completion) -> float:
        num_words = len(words(completion.text))
        ratios = [num_words / n for n in (len(words(reference)) for reference in example.references) if n]
        return min(ratios, key=lambda ratio: abs(ratio - 1), default=math.nan)

    return per_example("length_ratio", score, None)


def num_words(context: MetricContext) -> Metric:
    """Words of the completion (descriptive)."""
    return per_example("num_words", lambda _, completion: float(len(words(completion.text))), None)


def terminated(context: MetricContext) -> Metric:
    """1 if the model produced the terminator, 0 if the text merely reached the cap."""
    return per_example("terminated", lambda _, completion: float(completion.terminated))
