"""Agreement of scores with labels on planted data: known answers, honest intervals, and a verdict that follows them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from homestretch.rewards.agreement import Judgements, agreement, comparison, verdict


def planted(num_documents: int, rows_each: int, seed: int = 0) -> Judgements:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 6, num_documents * rows_each).astype(float)
    return Judgements(labels, np.repeat(np.arange(num_documents), rows_each), 4.0)


def noise(judged: Judgements, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(judged.labels_N))


def test_a_perfect_score() -> None:
    found = agreement(planted(30, 5).labels_N, planted(30, 5), seed=0)
    assert (found["auc"], found["high"]) == (1.0, 1.0)
    assert 0.85 < found["low"] < 1  # 30 of 30, not certainty
    assert found["spearman"] == pytest.approx(1)
    assert found["within_document_tau"]["tau"] == pytest.approx(1)


def test_a_score_without_a_clue() -> None:
    judged = planted(100, 5)
    found = agreement(noise(judged), judged, seed=0)
    assert found["low"] < 0.5 < found["high"]
    assert found["spearman_low"] < 0 < found["spearman_high"]
    assert found["auc"] == pytest.approx(0.5, abs=0.08)


def test_the_threshold_says_what_is_positive_and_the_rank_correlation_does_not_care() -> None:
    judged = planted(40, 5)
    scores = judged.labels_N + noise(judged)
    other = Judgements(judged.labels_N, judged.groups_N, 2.0)
    first, second = agreement(scores, judged, seed=0), agreement(scores, other, seed=0)
    assert first["auc"] != second["auc"]
    assert first["spearman"] == second["spearman"]


def test_rows_of_one_document_do_not_count_as_independent() -> None:
    """Ten copies of each row: as many documents as before, so the interval stays as wide as it was."""
    once = planted(40, 1)
    scores = once.labels_N + 2 * noise(once)
    copied = Judgements(np.repeat(once.labels_N, 10), np.repeat(once.groups_N, 10), 4.0)
    naive = Judgements(copied.labels_N, np.arange(400), 4.0)

    def width(scores: np.ndarray, judged: Judgements) -> float:
        found = agreement(scores, judged, seed=0)
        return float(found["high"] - found["low"])

    assert width(np.repeat(scores, 10), copied) == pytest.approx(width(scores, once), rel=1e-9)
    assert width(np.repeat(scores, 10), copied) > 2 * width(np.repeat(scores, 10), naive)


def test_tau_is_taken_within_documents() -> None:
    """Between documents everything is right, within them everything is wrong."""
    labels, groups = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([3.0, 2, 1, 6, 5, 4])
    found = agreement(scores, Judgements(labels, groups, 4.0), seed=0)
    assert found["auc"] == 1.0
    assert found["within_document_tau"]["tau"] == -1.0
    assert found["within_document_tau"]["tau"] == kendalltau(scores[:3], labels[:3]).statistic
    shuffled = np.random.default_rng(0).permutation(6)
    again = agreement(scores[shuffled], Judgements(labels[shuffled], groups[shuffled], 4.0), seed=0)
    assert again["within_document_tau"]["tau"] == -1.0


def test_a_difference_is_paired() -> None:
    """Two nearly equal scores: each is uncertain, their difference is not."""
    judged = planted(60, 4)
    baseline = judged.labels_N + 3 * noise(judged)
    reward = baseline + 0.3 * judged.labels_N
    found = comparison(reward, baseline, judged, seed=0)
    own = agreement(reward, judged, seed=0)
    assert found["difference"] == pytest.approx(own["auc"] - found["auc"])
    assert 0 < found["difference_low"] < found["difference"] < found["difference_high"]
    assert found["difference_high"] - found["difference_low"] < 0.5 * (found["high"] - found["low"])
    same = comparison(reward, reward, judged, seed=0)
    assert (same["difference_low"], same["difference"], same["difference_high"]) == (0, 0, 0)


def test_rows_without_a_baseline_are_left_out_for_both() -> None:
    judged = planted(40, 3)
    reward, baseline = judged.labels_N + noise(judged), noise(judged, 2)
    baseline[::2] = np.nan
    found = comparison(reward, baseline, judged, seed=0)
    kept = np.arange(120) % 2 == 1
    part = agreement(reward[kept], judged.of(kept), seed=0)
    assert found["n"] == 60
    assert found["difference"] == pytest.approx(part["auc"] - found["auc"])


def test_what_cannot_be_computed_is_none_and_the_result_is_json() -> None:
    one = Judgements(np.array([1.0, 2, 3]), np.zeros(3, dtype=int), 3.0)
    found = agreement(np.array([1.0, 1, 1]), one, seed=0)
    assert (found["auc"], found["low"], found["spearman"], found["spearman_low"]) == (0.5, None, None, None)
    assert found["within_document_tau"]["tau"] is None
    compared = comparison(np.arange(3.0), np.array([1.0, 2, np.nan]), one, seed=0)  # its rows have no positive
    assert (compared["n"], compared["auc"], compared["difference"]) == (2, None, None)
    json.dumps([found, compared], allow_nan=False)
    assert "two documents" in verdict(found, {"a": compared}, ["a"])


def test_the_same_seed_gives_the_same_intervals() -> None:
    judged = planted(20, 3)
    scores = judged.labels_N + noise(judged)
    assert agreement(scores, judged, seed=4) == agreement(scores, judged, seed=4)
    assert agreement(scores, judged, seed=4) != agreement(scores, judged, seed=5)


def verdict_of(reward: np.ndarray, judged: Judgements, **baselines: np.ndarray) -> str:
    compared = {name: comparison(reward, scores, judged, seed=0) for name, scores in baselines.items()}
    return verdict(agreement(reward, judged, seed=0), compared, [name for name in baselines if name != "model"])


def test_the_verdict() -> None:
    judged = planted(80, 4)
    good, weak, blind = judged.labels_N + noise(judged), judged.labels_N + 4 * noise(judged, 2), noise(judged, 3)
    said = verdict_of(good, judged, weak=weak, blind=blind, model=weak)
    assert said.startswith("the reward ranks better than every lexical baseline, the nearest weak (AUC +")
    assert "; better than model (" in said
    said = verdict_of(weak, judged, good=good, blind=blind, model=good)
    assert said.startswith("the reward does not rank better than every lexical baseline: no better than good (AUC -")
    assert "blind" not in said
    assert "; no better than model (AUC -" in said
    assert "reaches 0.5" in verdict_of(blind, judged, worse=-good)  # beating what is worse than chance is nothing
    assert "is below 0.5" in verdict_of(-good, judged, blind=blind)
