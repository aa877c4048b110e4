"""Does the reward see failures that it was not trained on? Reward models trained without some classes, and asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homestretch.audit_findings import UNSEEN
from homestretch.config import RunConfig
from homestretch.rewards.audit import LEAVE_OUT_IS_OFF, class_aucs, paired
from homestretch.rewards.judged import ON_POLICY, ON_POLICY_POSITIVE, POSITIVE_MODES
from homestretch.rewards.reward_model import RewardModel
from homestretch.rewards.training import RewardData, train_reward
from homestretch.types import Judged, Scorer


def partition(modes: Sequence[str], num_folds: int) -> list[tuple[str, ...]]:
    """The classes dealt into folds, none of them empty; with as many folds as classes or more, one each.

    Classes beside each other in `UNSEEN` are alike, and go to different folds: what is left out keeps its like in
    training, as where one class is left out at a time. A user's own come last.
    """
    place = {mode: i for i, mode in enumerate(UNSEEN)}
    ordered = sorted(modes, key=lambda mode: (place.get(mode, len(place)), mode))
    return [tuple(ordered[i::num_folds]) for i in range(min(num_folds, len(ordered)))]


def train_without(
    config: RunConfig, data: RewardData, modes: Sequence[str], *, sft_dir: Path, best: Path
) -> RewardModel:
    """A reward model that has seen nothing of these classes, not calibrated: a member of a leave-out ensemble.

    Without the bad among the model's own samples it does not see the good among them either: else to sound generated
    would be evidence of good.
    """
    left_out = {*modes, *({ON_POLICY_POSITIVE} if ON_POLICY in modes else ())}
    model, _ = train_reward(
        config, data.without(frozenset(left_out)), sft_dir=sft_dir, best=best,
        max_steps=config.reward.audit.leave_out.max_steps, description=f"reward without {', '.join(modes)}",
    )  # fmt: skip
    return model


def leave_out_matrix(
    config: RunConfig, data: RewardData, logits: Scorer, *, sft_dir: Path, best: Path
) -> list[dict[str, Any]]:
    """`[{"left_out": [...], "auc": {MODE: x}}]`: the classes' AUC under the reward itself, whose `logits` these are,
    then under each that was trained without a fold of the classes; [] where that would leave nothing to train on.

    All of them before calibration, so that they compare. Validation documents, as in the audit.
    """
    modes = sorted({row.mode for row in data.train} - POSITIVE_MODES)
    if len(modes) < 2:
        return []
    rows = [_row((), logits, data)]
    for fold in partition(modes, config.reward.audit.leave_out.folds):
        rows.append(_row(fold, train_without(config, data, fold, sft_dir=sft_dir, best=best).raw, data))
    return rows


def with_left_out(audit: dict[str, Any], matrix: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The audit with the matrix, and each class's AUC under the reward that was trained without it."""
    unseen = {mode: row["auc"].get(mode) for row in matrix for mode in row["left_out"]}
    classes = {mode: {**entry, "leave_one_out_auc": unseen.get(mode)} for mode, entry in audit["classes"].items()}
    missing = [mode for mode, entry in classes.items() if entry["leave_one_out_auc"] is None]
    if not matrix:
        reasons = ["leave-one-out: only one class was trained on"]
    else:
        reasons = [
            f"leave-one-out, {mode}: not trained on, or none of it on the held-out documents" for mode in missing
        ]
    notes = [note for note in audit["notes"] if note != LEAVE_OUT_IS_OFF]
    return {**audit, "classes": classes, "leave_one_out": list(matrix), "notes": [*notes, *reasons]}


def _row(left_out: Sequence[str], logits: Scorer, data: RewardData) -> dict[str, Any]:
    judged: Sequence[Judged] = data.validation
    scores = logits(paired(judged, data.validation_examples), [row.completion for row in judged])
    return {"left_out": list(left_out), "auc": class_aucs(judged, scores)}
