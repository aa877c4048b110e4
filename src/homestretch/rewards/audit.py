"""Can the reward be trusted? Measured on held-out documents before any RL; the numbers of reward/audit.json.

The functions on arrays are pure and answer one question each; `audit` assembles them. What cannot be computed is None
(null in the file) with its reason in `notes`; NaN never appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.audit_findings import SELECTION
from homestretch.ops.significance import bootstrap_interval
from homestretch.rewards.extremes import extremes
from homestretch.rewards.headroom import best_of_n
from homestretch.rewards.judged import EDITED_REFERENCE, POSITIVE_MODES, REFERENCE
from homestretch.rewards.length import word_counts
from homestretch.rewards.probes import bag_of_words, length_only, source_blind
from homestretch.rewards.reliability import calibration_error, reliability_bins
from homestretch.types import Completion, Example, Judged, Metric, Scorer, UserError

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
LEAVE_OUT_IS_OFF = "leave-one-out: off (reward.audit.leave_out.folds is 0)"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AuditSamples:
    """What the SFT model writes for held-out prompts."""

    examples: Sequence[Example]
    samples: Sequence[Sequence[Completion]]
    """Of each example, at temperature 1."""
    greedy: Sequence[Completion]
    """One of each example."""


def audit(
    reward: Scorer,
    *,
    examples: Sequence[Example],
    judged: Sequence[Judged],
    train_judged: Sequence[Judged],
    samples: AuditSamples,
    metrics: Sequence[Metric],
    temperature: float,
    seed: int,
    logits: Scorer | None = None,
    selection: Scorer | None = None,
) -> dict[str, Any]:
    """Audit a reward on held-out documents, with no class left out of its training (leave_out.py does that).

    `judged` are the validation rows with their references, `examples` the documents they belong to; `train_judged` are
    the rows the reward was trained on (for the probes). `logits` gives the reward model's output before calibration,
    which `temperature` divides; None: the reward is it. `selection` is the held-out score that chooses checkpoints;
    None: nothing is compared to it. Raises UserError when a row names an example that is not given.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    asked, answers = paired(judged, examples), [row.completion for row in judged]
    rewards = _finite(reward(asked, answers), judged, notes)
    modes = sorted({row.mode for row in (*judged, *train_judged)} - POSITIVE_MODES)
    raw = rewards if logits is None else np.asarray(logits(asked, answers), dtype=np.float64)
    result = {
        "classes": {mode: _class(mode, judged, rewards, rng) for mode in modes},
        "probes": {
            "length_only": length_only(judged),
            "source_blind": source_blind(train_judged, judged, seed=seed),
            "bag_of_words": bag_of_words(judged, asked, seed=seed),
            "edited_reference": _edited_auc(judged, rewards, rng),
        },
        **_on_samples(reward, samples, metrics, selection, rng),
        "calibration": {**_calibration(raw, judged, train_judged, temperature), "temperature": temperature},
        "terminator": terminator_drop(reward, judged, asked),
        "n_documents": len({row.example_id for row in judged}),
        "leave_one_out": None,
        "notes": notes,
    }
    notes += [*_reasons(result), LEAVE_OUT_IS_OFF]
    return result


def _on_samples(
    reward: Scorer, own: AuditSamples, metrics: Sequence[Metric], selection: Scorer | None, rng: np.random.Generator
) -> dict[str, Any]:
    """What the reward does among the SFT model's samples of one prompt, which is where RL starts."""
    samples = own.samples
    sampled = [completion for group in samples for completion in group]
    repeated = [example for example, group in zip(own.examples, samples, strict=True) for _ in group]
    rewards = _by_prompt(reward(repeated, sampled), samples)
    lengths = _by_prompt(word_counts(sampled), samples)
    correlations = {
        metric.name: rank_correlation(rewards, _by_prompt(_oriented(metric, repeated, sampled), samples), rng=rng)
        for metric in metrics
        if metric.higher_is_better is not None
    }
    result: dict[str, Any] = {
        "within_prompt_rank_correlation": correlations,
        "best_of_n": None,
        "reward_spread": reward_spread(rewards),
        "length": {**rank_correlation(rewards, lengths, rng=rng), "spearman": pooled_spearman(rewards, lengths)},
        "n_prompts": len(samples),
        "samples_per_prompt": max(map(len, samples), default=0),
        "overrated": [],
        "underrated": [],
    }
    if selection is not None:
        scores = _by_prompt(selection(repeated, sampled), samples)
        greedy = np.asarray(selection(own.examples, own.greedy), dtype=np.float64)
        correlations[SELECTION] = rank_correlation(rewards, scores, rng=rng)
        result["best_of_n"] = best_of_n(
            rewards, scores, greedy, confidence=CONFIDENCE, num_resamples=NUM_RESAMPLES, rng=rng
        )
        result |= extremes(own.examples, samples, rewards, scores)
    return result


def class_auc(
    positive: Floats,
    positive_documents: NDArray[Any],
    negative: Floats,
    negative_documents: NDArray[Any],
    *,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How surely positives score above negatives of the *same document*, which is all that RL compares.

    Scores have shape (p,) and (q,), with their documents' ids beside them. `auc` is the share of a document's pairs
    that are in the right order, ties counting half, averaged over the documents that have both; its interval is BCa
    over these documents. Where every pair is right (or wrong) no resample can differ, and the open end is Clopper and
    Pearson's for n out of n documents instead. `pooled_auc` is over all pairs, whatever their documents: how well one
    threshold for all would do. A score that is higher for easy documents, as a likelihood is, loses there and not in
    RL. None where there is no pair; the interval is None for fewer than two documents.
    """
    from sklearn.metrics import roc_auc_score

    shares = _right_order(positive, positive_documents, negative, negative_documents)
    low, high = _share_interval(shares, rng)
    labels = np.repeat([True, False], [len(positive), len(negative)])
    has_both = len(positive) > 0 and len(negative) > 0
    pooled = float(roc_auc_score(labels, np.concatenate([positive, negative]))) if has_both else None
    auc = float(np.mean(shares)) if len(shares) else None
    return {"auc": auc, "low": low, "high": high, "n": len(negative), "pooled_auc": pooled}


def rank_correlation(reward: Sequence[Floats], other: Sequence[Floats], *, rng: np.random.Generator) -> dict[str, Any]:
    """Kendall's tau-b between two scores of one prompt's samples, averaged over prompts.

    `reward[i]` and `other[i]` have shape (k_i,). Pairs with a NaN are dropped; prompts where either score is then
    constant have no tau, and are left out and counted (`left_out`). The interval is BCa over prompts. Without any
    prompt left, tau and the interval are None.
    """
    from scipy.stats import kendalltau

    taus: list[float] = []
    for a, b in zip(reward, other, strict=True):
        kept = np.isfinite(a) & np.isfinite(b)
        if kept.any() and np.ptp(a[kept]) > 0 and np.ptp(b[kept]) > 0:
            taus.append(float(kendalltau(a[kept], b[kept], variant="b").statistic))
    counts = {"n": len(taus), "left_out": len(reward) - len(taus)}
    if not taus:
        return {"tau": None, "low": None, "high": None, **counts}
    low, high = bootstrap_interval(taus, confidence=CONFIDENCE, num_resamples=NUM_RESAMPLES, rng=rng)
    return {"tau": float(np.mean(taus)), "low": low, "high": high, **counts}


def pooled_spearman(reward: Sequence[Floats], other: Sequence[Floats]) -> float | None:
    """Spearman's rho over the samples of all prompts together; None where one of the two is constant."""
    from scipy.stats import spearmanr

    if not reward:
        return None
    a, b = np.concatenate(reward), np.concatenate(other)
    kept = np.isfinite(a) & np.isfinite(b)
    if not kept.any() or np.ptp(a[kept]) == 0 or np.ptp(b[kept]) == 0:
        return None
    return float(spearmanr(a[kept], b[kept]).statistic)


def reward_spread(reward: Sequence[Floats]) -> dict[str, float | None]:
    """Standard deviation of the reward within a prompt (root mean variance, n - 1) and of the prompts' means (n - 1).

    Group methods learn from the first only; a reward that is saturated on fluent text has next to none of it.
    """
    groups = [group[np.isfinite(group)] for group in reward]
    variances = [group.var(ddof=1) for group in groups if len(group) > 1]
    means = [group.mean() for group in groups if len(group)]
    return {
        "within_prompt_sd": float(np.sqrt(np.mean(variances))) if variances else None,
        "between_prompt_sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
    }


def class_aucs(judged: Sequence[Judged], scores: Floats) -> dict[str, float | None]:
    """Per class among the rows its `auc` as in `class_auc`, without an interval."""
    aucs: dict[str, float | None] = {}
    for mode in sorted({row.mode for row in judged} - POSITIVE_MODES):
        shares = _right_order(*_sides(mode, judged, np.asarray(scores, dtype=np.float64)))
        aucs[mode] = float(np.mean(shares)) if len(shares) else None
    return aucs


def paired(judged: Sequence[Judged], examples: Sequence[Example]) -> list[Example]:
    """Each row's document. UserError if one is not there."""
    by_id = {example.id: example for example in examples}
    missing = next((row.example_id for row in judged if row.example_id not in by_id), None)
    if missing is not None:
        raise UserError(
            f"negatives/validation.jsonl: example {missing!r} is not in the validation split: run `negatives` again"
        )
    return [by_id[row.example_id] for row in judged]


def terminator_drop(reward: Scorer, judged: Sequence[Judged], asked: Sequence[Example]) -> dict[str, float | None]:
    """The fall of a reference's reward when its terminator is taken away: the mean, and the share that falls."""
    pairs = [(e, row.completion.text) for e, row in zip(asked, judged, strict=True) if row.mode == REFERENCE]
    documents = [example for example, _ in pairs]
    ended = np.asarray(reward(documents, [Completion(text, terminated=True) for _, text in pairs]), dtype=np.float64)
    cut = np.asarray(reward(documents, [Completion(text, terminated=False) for _, text in pairs]), dtype=np.float64)
    drops = (ended - cut)[np.isfinite(ended) & np.isfinite(cut)]
    if not len(drops):
        return {"drop": None, "share": None}
    return {"drop": float(drops.mean()), "share": float((drops > 0).mean())}


def _right_order(
    positive: Floats, positive_documents: NDArray[Any], negative: Floats, negative_documents: NDArray[Any]
) -> Floats:
    """For each document that has both, the share of its pairs in which the positive scores higher, ties half."""
    shares = []
    for document in np.intersect1d(positive_documents, negative_documents):
        above = positive[positive_documents == document][:, None] - negative[negative_documents == document]
        shares.append(float(np.mean((np.sign(above) + 1) / 2)))
    return np.array(shares)


def _share_interval(shares: Floats, rng: np.random.Generator) -> tuple[float | None, float | None]:
    from scipy.stats import binomtest

    n = len(shares)
    if n < 2:
        return None, None
    if shares.min() == shares.max() and shares[0] in (0.0, 1.0):
        exact = binomtest(n if shares[0] else 0, n).proportion_ci(CONFIDENCE)
        return float(exact.low), float(exact.high)
    return bootstrap_interval(shares, confidence=CONFIDENCE, num_resamples=NUM_RESAMPLES, rng=rng)


def _sides(
    mode: str, judged: Sequence[Judged], scores: Floats, against: str = REFERENCE
) -> tuple[Floats, NDArray[Any], Floats, NDArray[Any]]:
    """Scores and documents of the `against`, and the class's, of rows with a finite score; of the class's documents
    only."""
    usable = np.isfinite(scores)
    documents = np.array([row.example_id for row in judged], dtype=str)
    is_class = usable & np.array([row.mode == mode for row in judged], dtype=bool)
    is_good = usable & np.array([row.mode == against for row in judged], dtype=bool)
    is_good &= np.isin(documents, documents[is_class])
    return scores[is_good], documents[is_good], scores[is_class], documents[is_class]


def _class(mode: str, judged: Sequence[Judged], rewards: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """`class_auc` of the references of the documents that have a completion of this class, over the class; and
    `over_edits`, that of truth-preserving edits of references: near 0.5, it is the editing that the reward sees."""
    found = class_auc(*_sides(mode, judged, rewards), rng=rng)
    shares = _right_order(*_sides(mode, judged, rewards, EDITED_REFERENCE))
    low, high = _share_interval(shares, rng)
    auc = float(np.mean(shares)) if len(shares) else None
    over_edits = {"auc": auc, "low": low, "high": high, "n": len(shares)}
    return {**found, "over_edits": over_edits, "leave_one_out_auc": None}


def _edited_auc(judged: Sequence[Judged], rewards: Floats, rng: np.random.Generator) -> float | None:
    if not any(row.mode == EDITED_REFERENCE for row in judged):
        return None
    auc: float | None = class_auc(*_sides(EDITED_REFERENCE, judged, rewards), rng=rng)["auc"]
    return auc


def _calibration(
    logit: Floats, judged: Sequence[Judged], train_judged: Sequence[Judged], temperature: float
) -> dict[str, Any]:
    """ECE and its bins, labels weighted to the train rows' mix: validation has every class of a document, train a
    draw."""
    from scipy.special import expit

    usable = np.isfinite(logit)
    label = np.array([row.label for row in judged], dtype=np.float64)[usable]
    share = float(label.mean()) if len(label) else 0.0
    if not train_judged or not 0 < share < 1:
        return {"ece": None, "reliability": None}
    train_share = float(np.mean([row.label for row in train_judged]))
    weight = label * train_share / share + (1 - label) * (1 - train_share) / (1 - share)
    bins = reliability_bins(expit(logit[usable] / temperature), label, weight)
    return {"ece": calibration_error(bins), "reliability": list(map(asdict, bins))}


def _finite(rewards: Floats, judged: Sequence[Judged], notes: list[str]) -> Floats:
    rewards = np.asarray(rewards, dtype=np.float64)
    num_lost = int((~np.isfinite(rewards)).sum())
    if num_lost:
        first = judged[int(np.argmin(np.isfinite(rewards)))]
        notes.append(
            f"{num_lost} rows have no finite reward and are left out, the first of example {first.example_id!r}"
        )
    return rewards


def _by_prompt(values: Floats, samples: Sequence[Sequence[Completion]]) -> list[Floats]:
    ends = np.cumsum([len(group) for group in samples])
    values = np.asarray(values, dtype=np.float64)
    return [values[end - len(group) : end] for end, group in zip(ends, samples, strict=True)]


def _oriented(metric: Metric, examples: Sequence[Example], completions: Sequence[Completion]) -> Floats:
    scores = np.asarray(metric.scorer(examples, completions), dtype=np.float64)
    return scores if metric.higher_is_better else -scores


def _reasons(result: Mapping[str, Any]) -> list[str]:
    """Why a number of the audit is None."""
    unmeasured = {mode: entry["n"] for mode, entry in result["classes"].items() if entry["auc"] is None}
    reasons = [
        f"class {mode}: " + ("no reference to compare with" if n else "none of it on the held-out documents")
        for mode, n in unmeasured.items()
    ]
    if result["probes"]["edited_reference"] is not None:
        reasons += [
            f"over edits, {mode}: no document has both such a failure and an edited reference"
            for mode, entry in result["classes"].items()
            if entry["over_edits"]["auc"] is None and mode not in unmeasured
        ]
    reasons += [
        f"source-blind probe, {mode}: no train rows of this class, or no positives"
        for mode, auc in result["probes"]["source_blind"].items()
        if auc is None
    ]
    reasons += [
        f"rank correlation with {name}: on every prompt the reward or the metric is constant over the samples"
        for name, entry in result["within_prompt_rank_correlation"].items()
        if entry["tau"] is None
    ]
    absent = {
        "length-only and bag-of-words probe: fewer than two documents of a label": result["probes"]["length_only"],
        "edited references: none among the validation rows": result["probes"]["edited_reference"],
        "correlation with length: constant over the samples": result["length"]["spearman"],
        "reward spread: fewer than two samples per prompt": result["reward_spread"]["within_prompt_sd"],
        "calibration: one label only, or no train rows": result["calibration"]["ece"],
        "terminator: no reference among the validation rows": result["terminator"]["drop"],
    }
    return reasons + [reason for reason, value in absent.items() if value is None]
