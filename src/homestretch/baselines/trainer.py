"""The training loop of the arms: fixed steps, dropout off as in RL, the checkpoint kept that RL would keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from homestretch.baselines.objectives import Objective
from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import OptimizerConfig, TrainedArmConfig
from homestretch.console import progress
from homestretch.models import LanguageModel
from homestretch.training import MemoryBudget, apply_step, build_optimizer, check_finite, epoch_batches, microbatches


@dataclass(frozen=True, slots=True)
class Plan:
    """How an arm is trained, and how it is looked at."""

    key: str
    """Its section of the recipe, "baselines.dpo"."""
    settings: TrainedArmConfig
    optimizer: OptimizerConfig
    num_validations: int
    """Evenly spread over the steps, as many as RL has, so that no arm chooses among more checkpoints."""
    validate: Callable[[LanguageModel], float]
    """The held-out score of greedy outputs; the model with the best one is kept."""
    log: Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it."""

    steps: int
    kept_step: int
    """0: no step was better than the SFT model."""
    selection: float
    """The kept checkpoint's held-out score."""
    trained_tokens: int
    """Through forward and backward, over all steps: an item's prompt once, and its completions."""


def train(
    lm: LanguageModel, objective: Objective, plan: Plan, best: Path, rng: np.random.Generator, budget: MemoryBudget
) -> Trained:
    """Minimise the objective; the kept weights end up in the model. TrainingError if a number is not finite."""
    settings, sizes = plan.settings, objective.sizes
    per_epoch = -(-len(sizes) // settings.batch_size)
    num_steps = min(settings.num_epochs * per_epoch, settings.max_steps or settings.num_epochs * per_epoch)
    every = -(-num_steps // plan.num_validations)
    optimizer, schedule = build_optimizer([(lm.model.parameters(), plan.optimizer.lr)], plan.optimizer, num_steps)
    trainable = [p for p in lm.model.parameters() if p.requires_grad]
    lm.model.eval()
    best_score, kept, step, trained_tokens = plan.validate(lm), 0, 0, 0
    plan.log(0, {"selection": best_score})
    save_trainable(lm.model, best)
    with progress(plan.key, num_steps) as advance:
        while step < num_steps:
            for batch in epoch_batches(len(sizes), settings.batch_size, rng):
                batch_sizes = [sizes[i] for i in batch]
                longest = max(batch_sizes)
                loss = budget.spend(
                    partial(_accumulate, lm, objective, batch, batch_sizes, plan.key),
                    least=longest, smallest=f"a single item of {longest} tokens",
                )  # fmt: skip
                norm = apply_step(trainable, optimizer, schedule, grad_clip=plan.optimizer.grad_clip, stage=plan.key)
                step += 1
                advance(1)
                trained_tokens += sum(batch_sizes)
                plan.log(step, {"loss": loss, "gradient_norm": norm})
                if step % every == 0 or step == num_steps:
                    score = plan.validate(lm)
                    plan.log(step, {"selection": score})
                    if score > best_score:
                        best_score, kept = score, step
                        save_trainable(lm.model, best)
                if step == num_steps:
                    break
    load_trainable(lm.model, best)
    best.unlink()
    return Trained(step, kept, best_score, trained_tokens)


def _accumulate(
    lm: LanguageModel, objective: Objective, batch: Sequence[int], sizes: Sequence[int], key: str, tokens: int
) -> float:
    """Gradients, from zero, of the batch's loss, in micro-batches of so many tokens; returns that loss."""
    lm.model.zero_grad(set_to_none=True)
    value = 0.0
    for part in microbatches(sizes, tokens):
        loss = objective.loss(lm, [batch[i] for i in part], batch)
        check_finite(loss, f"{key}: the loss")
        loss.backward()
        value += float(loss.detach())
    return value
