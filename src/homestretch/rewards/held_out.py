"""A second reward that RL is never paid by: a judge that does not share the accidents of the one that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from homestretch.config import RunConfig
from homestretch.rewards.audit import class_aucs, paired
from homestretch.rewards.judged import stable_seed
from homestretch.rewards.reward_model import RewardModel
from homestretch.rewards.training import RewardData, train_reward
from homestretch.types import Scorer


def train_held_out(config: RunConfig, data: RewardData, *, sft_dir: Path, best: Path) -> tuple[RewardModel, int]:
    """The held-out reward, not calibrated yet, and the steps it took. `data` is its own part of the training prompts.

    It is trained as the other is, from another seed: other prompts, another order, other adapters or head to start
    from.
    """
    seed = stable_seed(config.seed, "held-out reward") % 2**31
    return train_reward(
        config.model_copy(update={"seed": seed}), data, sft_dir=sft_dir, best=best,
        max_steps=config.reward.held_out.max_steps, description="held-out reward",
    )  # fmt: skip


def mean_class_auc(logits: Scorer, data: RewardData) -> float | None:
    """How well a reward tells references from failures on the validation documents: the mean AUC of the classes.

    None where no class has a reference beside it.
    """
    scores = logits(paired(data.validation, data.validation_examples), [row.completion for row in data.validation])
    aucs = [auc for auc in class_aucs(data.validation, scores).values() if auc is not None]
    return float(np.mean(aucs)) if aucs else None
