"""Does an ensemble know where it is wrong? Its part of the audit: how far the members disagree, and about what."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.rewards.audit import AuditSamples, class_aucs, paired, rank_correlation, reward_spread
from homestretch.rewards.ensemble import RewardEnsemble
from homestretch.rewards.judged import REFERENCE
from homestretch.rewards.training import RewardData
from homestretch.types import Completion, Scorer

Floats = NDArray[np.float64]


def with_disagreement(
    audit: dict[str, Any],
    ensemble: RewardEnsemble,
    data: RewardData,
    own: AuditSamples,
    *,
    selection: Scorer,
    seed: int,
) -> dict[str, Any]:
    """The audit with `ensemble`: the members' SD on samples and references, and whether it goes with what is bad.

    `data` holds the validation rows, `own` what the SFT model writes. What cannot be computed is None, with
    its reason in `notes`.
    """
    samples = own.samples
    repeated = [example for example, group in zip(own.examples, samples, strict=True) for _ in group]
    flat = [completion for group in samples for completion in group]
    rewards_MN = ensemble.rewards(repeated, flat)
    mean, sd = _by_prompt(rewards_MN.mean(axis=0), samples), _by_prompt(rewards_MN.std(axis=0), samples)
    scores = _by_prompt(selection(repeated, flat), samples)
    judged, asked = data.validation, paired(data.validation, data.validation_examples)
    judged_sd = ensemble.rewards(asked, [row.completion for row in judged]).std(axis=0)
    found = {
        "num_members": len(ensemble.members),
        "disagreement_penalty": ensemble.disagreement_penalty,
        "mean_sd": {
            "samples": _mean(np.concatenate(sd)),
            "references": _mean(judged_sd[[row.mode == REFERENCE for row in judged]]),
        },
        "within_prompt_sd": reward_spread(mean)["within_prompt_sd"],
        "member_tau": _member_tau([_by_prompt(rewards_N, samples) for rewards_N in rewards_MN], seed),
        "sd_selection_tau": rank_correlation(sd, scores, rng=np.random.default_rng(seed)),
        "disagreement_auc": class_aucs(judged, -judged_sd),
    }
    return {**audit, "ensemble": found, "notes": [*audit["notes"], *_reasons(found)]}


def _member_tau(by_member: Sequence[Sequence[Floats]], seed: int) -> dict[str, float | None]:
    """Kendall's tau-b between two members within a prompt: the mean over pairs of members, and the lowest."""
    pairs = combinations(by_member, 2)
    taus = [rank_correlation(a, b, rng=np.random.default_rng(seed))["tau"] for a, b in pairs]
    known = [tau for tau in taus if tau is not None]
    return {"mean": float(np.mean(known)) if known else None, "lowest": min(known, default=None)}


def _reasons(found: dict[str, Any]) -> list[str]:
    selection_tau = found["sd_selection_tau"]["tau"]
    absent = {
        "SD on samples: no sample has a finite reward from every member": found["mean_sd"]["samples"],
        "SD on references: none among the validation rows": found["mean_sd"]["references"],
        "spread within a prompt: fewer than two samples per prompt": found["within_prompt_sd"],
        "members' agreement: on every prompt one is constant over the samples": found["member_tau"]["mean"],
        "SD and selection score: on every prompt one is constant over the samples": selection_tau,
    }
    unmeasured = [mode for mode, auc in found["disagreement_auc"].items() if auc is None]
    reasons = [reason for reason, value in absent.items() if value is None]
    reasons += [f"disagreement on {mode}: nothing to compare" for mode in unmeasured]
    return [f"ensemble, {reason}" for reason in reasons]


def _by_prompt(values_N: Floats, samples: Sequence[Sequence[Completion]]) -> list[Floats]:
    return np.split(np.asarray(values_N, dtype=np.float64), np.cumsum([len(group) for group in samples])[:-1])


def _mean(values: Floats) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
