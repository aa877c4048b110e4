"""Reward models trained without some classes: asked whether they see those all the same, or as an ensemble."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from homestretch.audit_findings import UNSEEN
from homestretch.config import RunConfig
from homestretch.rewards.audit import LEAVE_OUT_IS_OFF, class_aucs, paired
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.ensemble import RewardEnsemble, member_dir
from homestretch.rewards.judged import ON_POLICY, ON_POLICY_POSITIVE, POSITIVE_MODES
from homestretch.rewards.reward_model import RewardModel, open_members, save_reward_model
from homestretch.rewards.training import Log, RewardData, train_reward
from homestretch.types import Judged, Scorer, UserError


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
    """A reward model that has seen nothing of these classes, not calibrated."""
    model, _ = train_reward(
        config, without(data, modes), sft_dir=sft_dir, best=best,
        max_steps=config.reward.audit.leave_out.max_steps, description=f"reward without {', '.join(modes)}",
    )  # fmt: skip
    return model


def without(data: RewardData, modes: Sequence[str]) -> RewardData:
    """The data without these classes.

    Without the bad among the model's own samples it does not have the good among them either: else to sound generated
    would be evidence of good.
    """
    return data.without(frozenset({*modes, *({ON_POLICY_POSITIVE} if ON_POLICY in modes else ())}))


def ensemble_folds(modes: Sequence[str], num_members: int) -> list[tuple[str, ...]]:
    """The classes that each member is trained without. UserError if there are fewer classes than members."""
    if len(modes) < num_members:
        names = f"{len(modes)} ({', '.join(modes)})" if modes else "none"
        most = len(modes) if len(modes) > 1 else "1 (no ensemble)"
        raise UserError(
            f"reward.ensemble.num_members: {num_members} members need as many failure classes to train on, for each "
            f"is trained without another, and there {'is' if len(modes) == 1 else 'are'} {names}; set "
            f"reward.ensemble.num_members={most}, or add classes (negatives.include)"
        )
    return partition(modes, num_members)


def train_ensemble(
    config: RunConfig,
    data: RewardData,
    calibrated: Callable[[Scorer], Calibration],
    *,
    sft_dir: Path,
    best: Path,
    folder: Path,
    log: Log,
) -> tuple[RewardEnsemble, int]:
    """Reward models, each trained without a fold of the classes and calibrated, as one, and the steps of them all.

    The ensemble itself is not calibrated yet. Members are written below `folder` as they are done and read again from
    there: one at a time is in memory while it trains, and adapters then share a trunk. UserError if there are fewer
    classes than members.
    """
    ensemble = config.reward.ensemble
    folds, steps = ensemble_folds(trained_modes(data), ensemble.num_members), 0
    shutil.rmtree(folder, ignore_errors=True)

    def make(number: int, fold: Sequence[str]) -> int:  # a member is given back before the next is trained
        model, num_steps = train_reward(
            config, without(data, fold), sft_dir=sft_dir, best=best, log=_member_log(log, number),
            max_steps=ensemble.max_steps, description=f"reward, member {number} of {len(folds)}",
        )  # fmt: skip
        model.calibration = calibrated(model.raw)
        save_reward_model(model, member_dir(folder, number), on_sft=config.reward.backbone == "sft")
        return num_steps

    for number, fold in enumerate(folds, start=1):
        steps += make(number, fold)
    members = open_members([member_dir(folder, i + 1) for i in range(len(folds))], config, sft_dir)
    return RewardEnsemble(tuple(members), tuple(folds), ensemble.disagreement_penalty), steps


def _member_log(log: Log, number: int) -> Log:
    """The first member's metrics keep their names, so that every run has these; the others' area is "member_N"."""
    if number == 1:
        return log
    return lambda step, row: log(step, {f"member_{number}/{key.partition('/')[2]}": x for key, x in row.items()})


def trained_modes(data: RewardData) -> list[str]:
    """The failure classes among the train rows, sorted."""
    return sorted({row.mode for row in data.train} - POSITIVE_MODES)


def leave_out_matrix(
    config: RunConfig, data: RewardData, logits: Scorer, *, sft_dir: Path, best: Path
) -> list[dict[str, Any]]:
    """`[{"left_out": [...], "auc": {MODE: x}}]`: the classes' AUC under the reward itself, whose `logits` these are,
    then under each that was trained without a fold of the classes; [] where that would leave nothing to train on.

    All of them before calibration, so that they compare. Validation documents, as in the audit.
    """
    modes = trained_modes(data)
    if len(modes) < 2:
        return []
    rows = [_row((), logits, data)]
    for fold in partition(modes, config.reward.audit.leave_out.folds):
        rows.append(_row(fold, train_without(config, data, fold, sft_dir=sft_dir, best=best).raw, data))
    return rows


def members_matrix(ensemble: RewardEnsemble, data: RewardData) -> list[dict[str, Any]]:
    """The same of an ensemble, whose members are such rewards already; its own row is before its own calibration."""
    rows = [_row(left_out, m.raw, data) for left_out, m in zip(ensemble.left_out, ensemble.members, strict=True)]
    return [_row((), ensemble.raw, data), *rows]


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
