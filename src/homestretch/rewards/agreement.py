"""How well a score ranks summaries as people's labels do, and whether better than another score of the same rows.

Pure functions on arrays. Rows of one document are not independent, so every interval is a percentile bootstrap over
documents, and the same resamples serve all scores: differences are paired. What cannot be computed is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.ops.ranking import cluster_resamples, weighted_auc, weighted_spearman
from homestretch.rewards.audit import CONFIDENCE, rank_correlation

NUM_RESAMPLES = 2000

Floats = NDArray[np.float64]
Ends = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Judgements:
    """What people said of N rows."""

    labels_N: Floats
    groups_N: NDArray[np.int64]
    """Which document a row is of."""
    threshold: float
    """A row is positive from this label on."""

    @property
    def is_positive_N(self) -> NDArray[np.bool_]:
        return self.labels_N >= self.threshold

    def of(self, kept_N: NDArray[np.bool_]) -> Judgements:
        """Some of the rows."""
        return Judgements(self.labels_N[kept_N], self.groups_N[kept_N], self.threshold)


def agreement(scores_N: Floats, judged: Judgements, *, seed: int) -> dict[str, Any]:
    """`auc` of positives over the others, `spearman` with the labels, both with intervals, and `within_document_tau`.

    The last is Kendall's tau-b among one document's rows, averaged over the documents that have a ranking: what RL
    needs, since it only ever compares outputs for one document.
    """

    def statistic(weights_BN: Floats) -> Sequence[Floats]:
        auc_B = weighted_auc(scores_N, judged.is_positive_N, weights_BN)
        return auc_B, weighted_spearman(scores_N, judged.labels_N, weights_BN)

    (auc, spearman), (auc_ends, spearman_ends) = _with_intervals(statistic, judged, seed)
    low, high = _auc_ends(auc, auc_ends, judged)
    return {
        "auc": auc,
        "low": low,
        "high": high,
        "spearman": spearman,
        "spearman_low": spearman_ends[0],
        "spearman_high": spearman_ends[1],
        "within_document_tau": _within_document_tau(scores_N, judged, seed),
    }


def comparison(reward_N: Floats, baseline_N: Floats, judged: Judgements, *, seed: int) -> dict[str, Any]:
    """A baseline's own agreement, and `difference`, the reward's AUC minus the baseline's, paired over documents.

    Rows for which the baseline is NaN are left out for both; `n` counts the others.
    """
    kept_N = ~np.isnan(baseline_N)
    reward_N, baseline_N, judged = reward_N[kept_N], baseline_N[kept_N], judged.of(kept_N)

    def statistic(weights_BN: Floats) -> Sequence[Floats]:
        auc_B = weighted_auc(baseline_N, judged.is_positive_N, weights_BN)
        return auc_B, weighted_auc(reward_N, judged.is_positive_N, weights_BN) - auc_B

    (auc, difference), (auc_ends, ends) = _with_intervals(statistic, judged, seed)
    low, high = _auc_ends(auc, auc_ends, judged)
    return {
        "n": int(kept_N.sum()),
        "auc": auc,
        "low": low,
        "high": high,
        "spearman": _number(weighted_spearman(baseline_N, judged.labels_N, np.ones((1, len(baseline_N))))[0]),
        "difference": difference,
        "difference_low": ends[0],
        "difference_high": ends[1],
        "within_document_tau": _within_document_tau(baseline_N, judged, seed),
    }


def verdict(reward: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], lexical: Sequence[str]) -> str:
    """One sentence: does the reward follow the labels, and does it rank better than every lexical baseline?

    Better means that the difference's whole interval is above 0. To be better than all, each single one must be beaten
    so; asking for all of them needs no correction for their number (an intersection-union test).
    """
    if reward["low"] is None:
        return "no verdict: an interval needs at least two documents"
    if reward["low"] <= 0.5:
        found = "reaches 0.5" if reward["high"] >= 0.5 else "is below 0.5"
        return f"the reward does not tell good from bad here: the interval of its AUC {found}"
    known = {name: entry for name, entry in baselines.items() if entry["difference_low"] is not None}
    nearest_first = sorted(known, key=lambda name: known[name]["difference"])
    said = {name: f"{name} ({_difference(known[name])})" for name in nearest_first}
    unbeaten = [name for name in nearest_first if known[name]["difference_low"] <= 0]
    if rivals := [said[name] for name in unbeaten if name in lexical]:
        sentence = f"the reward does not rank better than every lexical baseline: no better than {', '.join(rivals)}"
    else:
        nearest = next(said[name] for name in nearest_first if name in lexical)
        sentence = f"the reward ranks better than every lexical baseline, the nearest {nearest}"
    for name in nearest_first:
        if name not in lexical:
            sentence += f"; {'no better' if name in unbeaten else 'better'} than {said[name]}"
    return sentence


def _difference(entry: Mapping[str, Any]) -> str:
    ends = f"{entry['difference_low']:+.3f} to {entry['difference_high']:+.3f}"
    return f"AUC {entry['difference']:+.3f}, 95 % {ends}"


def _with_intervals(
    statistic: Callable[[Floats], Sequence[Floats]], judged: Judgements, seed: int
) -> tuple[list[float | None], list[Ends]]:
    """The statistics at the rows themselves, and their intervals."""
    groups_N = judged.groups_N
    points = [_number(values[0]) for values in statistic(np.ones((1, len(groups_N))))]
    if len(np.unique(groups_N)) < 2:
        return points, [(None, None) for _ in points]
    resamples = cluster_resamples(groups_N, num_resamples=NUM_RESAMPLES, seed=seed)
    drawn_SB = np.concatenate([np.stack(statistic(weights_BN)) for weights_BN in resamples], axis=1)
    return points, [_ends(values_B) for values_B in drawn_SB]


def _ends(values_B: Floats) -> Ends:
    """The percentile interval over the resamples that have the statistic: those with both kinds of rows."""
    usable = values_B[np.isfinite(values_B)]
    if not len(usable):
        return None, None
    low, high = np.quantile(usable, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _auc_ends(auc: float | None, ends: Ends, judged: Judgements) -> Ends:
    """Where the separation is perfect no resample differs; the open end is then Clopper and Pearson's for n of n."""
    if auc not in (0.0, 1.0) or ends[0] is None:
        return ends
    from scipy.stats import binomtest

    num_documents = len(np.unique(judged.groups_N))
    exact = binomtest(num_documents if auc else 0, num_documents).proportion_ci(CONFIDENCE)
    return float(exact.low), float(exact.high)


def _within_document_tau(scores_N: Floats, judged: Judgements, seed: int) -> dict[str, Any]:
    order_N = np.argsort(judged.groups_N, kind="stable")
    ends = np.cumsum(np.unique(judged.groups_N, return_counts=True)[1])[:-1]
    scores, labels = np.split(scores_N[order_N], ends), np.split(judged.labels_N[order_N], ends)
    return rank_correlation(scores, labels, rng=np.random.default_rng(seed))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
