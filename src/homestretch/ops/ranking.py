"""How well scores rank rows, counted with weights: what a bootstrap over clusters needs.

A resample is a row of weights, the number of times each row was drawn, so one resampling serves any number of scores.
B resamples, N rows, K distinct scores.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_CHUNK_ELEMENTS = 1_000_000
"""Weights that exist at once."""


def cluster_resamples(clusters_N: ArrayLike, *, num_resamples: int, seed: int) -> Iterator[Floats]:
    """Weights (b, N) of bootstrap resamples of whole clusters, a chunk at a time, `num_resamples` in all.

    Rows of one cluster are drawn together (Field & Welsh 2007). The same arguments give the same resamples.
    """
    _, index_N = np.unique(np.asarray(clusters_N), return_inverse=True)
    num_clusters = int(index_N.max()) + 1
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ELEMENTS // len(index_N))
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        yield rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size).astype(float)[:, index_N]


def weighted_auc(scores_N: Floats, is_positive_N: NDArray[np.bool_], weights_BN: Floats) -> Floats:
    """Probability that a positive scores above a negative, ties counting half, shape (B,); NaN without one of either.

    With counts as weights it is `roc_auc_score` of the rows repeated as often.
    """
    order_N, starts_K, _ = _tie_groups(scores_N)
    weights_BN, is_positive_N = weights_BN[:, order_N], is_positive_N[order_N]
    positive_BK = np.add.reduceat(weights_BN * is_positive_N, starts_K, axis=1)
    negative_BK = np.add.reduceat(weights_BN * ~is_positive_N, starts_K, axis=1)
    below_BK = np.cumsum(negative_BK, axis=1) - negative_BK / 2
    return _quotient((positive_BK * below_BK).sum(1), positive_BK.sum(1) * negative_BK.sum(1))


def weighted_spearman(a_N: Floats, b_N: Floats, weights_BN: Floats) -> Floats:
    """Spearman's rho, shape (B,); NaN where one of the two is constant. Counts as weights: as if rows were repeated."""
    total_B1 = weights_BN.sum(1, keepdims=True)

    def centred(values_N: Floats) -> Floats:
        ranks_BN = _weighted_ranks(values_N, weights_BN)
        centred_BN: Floats = ranks_BN - (weights_BN * ranks_BN).sum(1, keepdims=True) / total_B1
        return centred_BN

    a_BN, b_BN = centred(a_N), centred(b_N)
    covariance_B, *variances = ((weights_BN * x * y).sum(1) for x, y in ((a_BN, b_BN), (a_BN, a_BN), (b_BN, b_BN)))
    scale_B = np.sqrt(variances[0] * variances[1])
    is_rounding_B = np.minimum(*variances) <= 1e-12 * total_B1[:, 0] ** 3
    return _quotient(covariance_B, np.where(is_rounding_B, 0.0, scale_B))


def _weighted_ranks(values_N: Floats, weights_BN: Floats) -> Floats:
    """Middle ranks, up to a constant: half of a tie group's weight and all the weight below it."""
    order_N, starts_K, group_N = _tie_groups(values_N)
    weight_BK = np.add.reduceat(weights_BN[:, order_N], starts_K, axis=1)
    ranks_BN: Floats = (np.cumsum(weight_BK, axis=1) - weight_BK / 2)[:, group_N]
    return ranks_BN


def _tie_groups(values_N: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The order of the values, where in it each group of equal ones starts, and which group a row is in."""
    _, group_N, count_K = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.argsort(values_N, kind="stable"), np.cumsum(count_K) - count_K, group_N


def _quotient(above_B: Floats, below_B: Floats) -> Floats:
    return np.divide(above_B, below_B, out=np.full_like(above_B, np.nan), where=below_B > 0)
