"""The length penalty, relative to what the task's references are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homestretch.ops.words import words
from homestretch.types import Completion, Example


def length_penalty(
    lengths_N: NDArray[np.float64], expected_N: NDArray[np.float64], *, coefficient: float, tolerance: float
) -> NDArray[np.float64]:
    """-c * min(1, max(0, |log((y + 1) / (L + 1))| - log tolerance)), shape (N,); lengths in words.

    Source: design of homestretch (arXiv 2408.16753 names a length penalty and gives no formula).
    """
    excess_N = np.abs(np.log((lengths_N + 1) / (expected_N + 1))) - np.log(tolerance)
    penalty_N: NDArray[np.float64] = -coefficient * np.clip(excess_N, 0.0, 1.0)
    return penalty_N


@dataclass(frozen=True, slots=True)
class LengthModel:
    """How long a good completion is: its reference's length, or one predicted from the source's where there is none."""

    intercept: float
    slope: float

    def expected(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Expected number of words of each example's completion, shape (n,)."""
        return np.array([self._expected(example) for example in examples])

    def _expected(self, example: Example) -> float:
        if example.references:
            return float(np.mean([len(words(r)) for r in example.references]))
        return self._predicted(example)

    def relative(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        """(words + 1) / (words predicted from the source + 1), shape (n,): references vary in it too."""
        predicted = np.array([self._predicted(example) for example in examples])
        return np.asarray((word_counts(completions) + 1) / (predicted + 1))

    def _predicted(self, example: Example) -> float:
        return float(np.expm1(self.intercept + self.slope * np.log1p(len(words(example.source)))))


def fit_length_model(train: Sequence[Example]) -> LengthModel:
    """Least squares of log(reference words + 1) on log(source words + 1); the mean where sources do not differ."""
    source_N = np.log1p([len(words(e.source)) for e in train])
    reference_N = np.log1p([np.mean([len(words(r)) for r in e.references]) for e in train])
    if np.ptp(source_N) < 1e-9:
        return LengthModel(float(reference_N.mean()), 0.0)
    slope, intercept = np.polyfit(source_N, reference_N, 1)
    return LengthModel(float(intercept), float(slope))


def word_counts(completions: Sequence[Completion]) -> NDArray[np.float64]:
    """Number of words of each completion, shape (n,)."""
    return np.array([float(len(words(c.text))) for c in completions])
