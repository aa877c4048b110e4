"""Repetition inside one completion."""

from __future__ import annotations

import math

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.ops.words import ngrams, words
from homestretch.types import Completion, Example, Metric


def repetition_3(context: MetricContext) -> Metric:
    """Share of word trigrams that occurred before in the same text (seq-rep-3 of Welleck et al. 2019).

    0 for a text with fewer than three words: it repeats nothing.
    """

    def score(_: Example, completion: Completion) -> float:
        trigrams = ngrams(words(completion.text), 3)
        return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0

    return per_example("repetition_3", score, False)


def distinct_2(context: MetricContext) -> Metric:
    """Distinct word bigrams over all bigrams of the text (Li et al. 2016, per text); NaN under two words."""

    def score(_: Example, completion: Completion) -> float:
        bigrams = ngrams(words(completion.text), 2)
        return len(set(bigrams)) / len(bigrams) if bigrams else math.nan

    return per_example("distinct_2", score)
