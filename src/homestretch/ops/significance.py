"""Paired tests and intervals for scores measured on the same examples.

All functions take plain arrays and return plain numbers; randomness is an argument. Undefined scores (NaN) must have
been dropped before: a NaN or an infinity is a ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK_ELEMENTS = 250_000
"""Numbers drawn at once: bounds the memory, and keeps a chunk inside the processor's cache where it can."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def paired_randomization(differences: ArrayLike, *, num_resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p-value of paired approximate randomization: is the mean difference further from 0 than chance?

    Under the null the two systems are exchangeable on every example, so the sign of each difference is a fair coin.
    p = (b + 1) / (m + 1), b of m random sign patterns being at least as far from 0 as the observed one (Noreen 1989;
    Phipson & Smyth 2010 for the + 1). Where the non-zero differences have no more than `num_resamples` sign patterns,
    all of them are counted and p is exact. `differences` has shape (n,); without a non-zero one p is 1.
    """
    values = _finite(differences)
    values = values[values != 0]  # a zero keeps its value under either sign
    if values.size == 0:
        return 1.0
    observed = abs(values.sum())
    # Sums in another order differ by rounding; a pattern that ties with the observed one must count as such.
    threshold = observed - 1e-10 * np.abs(values).sum()
    is_exact = values.size < 63 and 2**values.size <= num_resamples
    patterns = _all_signs(values.size) if is_exact else _random_signs(values.size, num_resamples, rng)
    num_extreme = sum(int(np.count_nonzero(np.abs(signs @ values) >= threshold)) for signs in patterns)
    return num_extreme / 2**values.size if is_exact else (num_extreme + 1) / (num_resamples + 1)


def bootstrap_interval(
    values: ArrayLike, *, confidence: float, num_resamples: int, rng: np.random.Generator
) -> Interval:
    """BCa bootstrap interval of the mean of `values`, shape (n,) (Efron 1987; scipy.stats.bootstrap).

    Given paired differences, it is the interval of the mean difference. Where all values are equal, and for n = 1, it
    is the point itself: the data show no spread to resample.
    """
    sample = _finite(values)
    if sample.size == 0:
        raise ValueError("an interval needs at least one value")
    mean = float(sample.mean())
    if np.ptp(sample) <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean)
    from scipy.stats import bootstrap

    result = bootstrap(
        (sample,),
        np.mean,
        n_resamples=num_resamples,
        confidence_level=confidence,
        batch=max(1, _CHUNK_ELEMENTS // sample.size),
        vectorized=True,
        method="BCa",
        rng=rng,
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    The k-th smallest of m (k from 0) becomes min(1, (m - k) p), and no smaller than the adjusted one before it.
    Rejecting where the adjusted value is at most alpha keeps the family-wise error at alpha under any dependence.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.size and not bool(np.all((raw >= 0) & (raw <= 1))):
        raise ValueError("p-values must lie in 0..1")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(raw.size, 0, -1)))
    return [float(p) for p in adjusted]


def mcnemar(num_only_a: int, num_only_b: int) -> float:
    """Exact two-sided McNemar p-value for a yes/no flag on the same examples (McNemar 1947).

    The counts are the discordant examples: flagged under a only, and under b only. Under the null each of them is
    equally likely to be either. Without a discordant example p is 1.
    """
    if num_only_a + num_only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(num_only_a, num_only_a + num_only_b, 0.5).pvalue)


def wilson_interval(num_hits: int, num_trials: int, *, confidence: float) -> Interval:
    """Wilson score interval of a rate (Wilson 1927; scipy.stats.binomtest)."""
    from scipy.stats import binomtest

    interval = binomtest(num_hits, num_trials).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def equivalence(differences: ArrayLike, *, margin: float) -> float:
    """P-value of two one-sided t-tests that the mean difference lies inside (-margin, margin) (Schuirmann 1987).

    A small value says "the same, for practical purposes"; a large one does not say "different". `margin` > 0 is in the
    unit of the differences, shape (n,). Differences without spread decide the question: p is 0 inside the margin and
    1 outside. Fewer than two differences show nothing: p is 1.
    """
    if not margin > 0:
        raise ValueError("margin must be positive")
    values = _finite(differences)
    if values.size < 2:
        return 1.0
    mean = float(values.mean())
    if np.ptp(values) <= 1e-12 * max(1.0, abs(mean)):
        return 0.0 if abs(mean) < margin else 1.0
    from scipy.stats import ttest_1samp

    above = ttest_1samp(values, -margin, alternative="greater").pvalue
    below = ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def effect_size(differences: ArrayLike) -> float | None:
    """Cohen's d for paired data: the mean difference over the differences' standard deviation (n - 1).

    None where there is no spread to divide by, but 0 where every difference is 0.
    """
    values = _finite(differences)
    if values.size and not values.any():
        return 0.0
    if values.size < 2 or np.ptp(values) <= 1e-12 * max(1.0, abs(float(values.mean()))):
        return None
    return float(values.mean() / values.std(ddof=1))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected one dimension, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("undefined scores (NaN or infinite) must be dropped before testing")
    return array


def _random_signs(n: int, num_patterns: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    chunk = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, num_patterns, chunk):
        size = (min(chunk, num_patterns - start), n)
        yield np.where(rng.integers(0, 2, size=size, dtype=np.int8), 1.0, -1.0)


def _all_signs(n: int) -> Iterator[NDArray[np.float64]]:
    chunk = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, 2**n, chunk):
        codes = np.arange(start, min(start + chunk, 2**n))[:, None]
        yield np.where((codes >> np.arange(n)) & 1, 1.0, -1.0)
