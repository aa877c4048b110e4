"""Weighted ranking statistics against scikit-learn and scipy on the rows repeated; the coverage of their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from homestretch.ops.ranking import cluster_resamples, weighted_auc, weighted_spearman


@pytest.mark.parametrize("num_values", [3, 1000])
def test_counts_as_weights_are_rows_repeated(num_values: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = (rng.integers(0, n, 40).astype(float) for n in (num_values, 5))
    weights = rng.integers(0, 4, (20, 40)).astype(float)
    auc = weighted_auc(scores, labels >= 3, weights)
    rho = weighted_spearman(scores, labels, weights)
    for b, counts in enumerate(weights.astype(int)):
        s, y = np.repeat(scores, counts), np.repeat(labels, counts)
        assert auc[b] == pytest.approx(roc_auc_score(y >= 3, s), abs=1e-12)
        assert rho[b] == pytest.approx(spearmanr(s, y).statistic, abs=1e-12)


def test_what_cannot_be_ranked_is_nan() -> None:
    scores, ones = np.arange(4.0), np.ones((1, 4))
    assert np.isnan(weighted_auc(scores, np.ones(4, dtype=bool), ones)).all()
    assert np.isnan(weighted_spearman(scores, np.full(4, 0.1), ones)).all()
    assert np.isnan(weighted_spearman(scores, scores, np.array([[5.0, 0, 0, 0]]))).all()


def test_clusters_are_drawn_whole_and_the_same_for_every_caller() -> None:
    clusters = np.array(["a", "b", "a", "c", "b", "a"])
    parts = list(cluster_resamples(clusters, num_resamples=500, seed=3))
    weights = np.concatenate(parts)
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.15)
    again = np.concatenate(list(cluster_resamples(clusters, num_resamples=500, seed=3)))
    assert (weights == again).all()


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = np.arange(7)
    whole = np.concatenate(list(cluster_resamples(clusters, num_resamples=30, seed=1)))
    monkeypatch.setattr("homestretch.ops.ranking._CHUNK_ELEMENTS", 20)
    parts = list(cluster_resamples(clusters, num_resamples=30, seed=1))
    assert len(parts) == 15
    assert (np.concatenate(parts) == whole).all()
