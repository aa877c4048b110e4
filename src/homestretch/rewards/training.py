"""Training a reward model on labelled completions: the one that RL is paid by, and those that the audit compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import RunConfig
from homestretch.console import progress
from homestretch.data import Splits
from homestretch.ops.losses import bradley_terry, smoothed_bce
from homestretch.rewards.calibration import Calibration, calibrate
from homestretch.rewards.judged import REFERENCE, judged_from_row, stable_seed
from homestretch.rewards.length import word_counts
from homestretch.rewards.reward_model import RewardGroup, RewardModel, build_reward_model
from homestretch.rundir import RunDir, read_jsonl
from homestretch.training import apply_step, build_optimizer, check_finite, epoch_batches, microbatches
from homestretch.types import Completion, Example, Judged, Scorer, UserError

_NUM_STANDARDISED = 256
"""Training references whose likelihoods set the scale that the score starts with."""

Log = Callable[[int, Mapping[str, float]], None]
"""Takes a step and its metrics."""


def _unlogged(step: int, metrics: Mapping[str, float]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class RewardData:
    """The judged completions of two splits and the documents they belong to."""

    train_examples: Sequence[Example]
    train: Sequence[Judged]
    validation_examples: Sequence[Example]
    validation: Sequence[Judged]

    def without(self, modes: frozenset[str]) -> RewardData:
        """The same without the completions of these classes, in training and in the choice of the best weights."""
        return replace(
            self,
            train=[row for row in self.train if row.mode not in modes],
            validation=[row for row in self.validation if row.mode not in modes],
        )

    def shared_out(self, share: float, seed: int) -> tuple[RewardData, RewardData]:
        """The training rows in two parts by prompt, drawn: what is left, and this share of the prompts.

        A share of 0 takes nothing, any other at least one prompt and never all. UserError if there is only one.
        """
        ids = sorted({row.example_id for row in self.train})
        if share and len(ids) < 2:
            raise UserError("reward.held_out.prompt_share: one prompt with negatives cannot be shared out; set it to 0")
        count = min(max(1, round(share * len(ids))), len(ids) - 1) if share else 0
        order = np.random.default_rng([seed, stable_seed("held-out reward")]).permutation(len(ids))
        taken = {ids[i] for i in order[:count]}
        parts = ([row for row in self.train if (row.example_id in taken) == of_taken] for of_taken in (False, True))
        left, other = (replace(self, train=part) for part in parts)
        return left, other


def read_reward_data(config: RunConfig, rundir: RunDir, splits: Splits) -> tuple[RewardData, RewardData]:
    """What the negatives stage wrote: for the reward that is paid, and for the held-out one (without rows if off)."""
    rows = {split: read_jsonl(rundir.negatives_dir / f"{split}.jsonl") for split in ("train", "validation")}
    train, validation = ([judged_from_row(row) for row in rows[split]] for split in ("train", "validation"))
    data = RewardData(splits.train, train, splits.validation, validation)
    return data.shared_out(config.reward.held_out.prompt_share, config.seed)


def train_reward(
    config: RunConfig,
    data: RewardData,
    *,
    sft_dir: Path,
    best: Path,
    log: Log = _unlogged,
    max_steps: int | None = None,
    description: str = "reward",
) -> tuple[RewardModel, int]:
    """A reward model trained on these completions, not calibrated yet, and the steps it took.

    The weights are those with the lowest validation loss; the file `best` holds them meanwhile. At most `max_steps`
    steps (None: the recipe's). The same data give the same model but for dropout, which goes on drawing where it was.
    """
    model = build_reward_model(config, sft_dir)
    train = reward_groups(model, data.train_examples, data.train)
    validation = reward_groups(model, data.validation_examples, data.validation)
    model.standardise([group.encoded[0] for group in train[:_NUM_STANDARDISED]])
    steps = optimize(config, model, train, validation, best=best, log=log, max_steps=max_steps, description=description)
    load_trainable(model, best)
    best.unlink()
    return model.requires_grad_(False), steps


def optimize(
    config: RunConfig,
    model: RewardModel,
    train: Sequence[RewardGroup],
    validation: Sequence[RewardGroup],
    *,
    best: Path,
    log: Log = _unlogged,
    max_steps: int | None = None,
    description: str = "reward",
) -> int:
    """Train; the weights with the lowest validation loss end up in the file `best`. Returns the steps taken."""
    reward, rng = config.reward, np.random.default_rng([config.seed, 3])
    all_steps = reward.num_epochs * -(-len(train) // reward.prompts_per_batch)
    num_steps = min(all_steps, reward.max_steps or all_steps, max_steps or all_steps)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = build_optimizer([(trainable, reward.optimizer.lr)], reward.optimizer, num_steps)
    best_loss, step = float("inf"), 0
    with progress(description, num_steps) as advance:
        while step < num_steps:
            model.train(reward.dropout)
            for indices in epoch_batches(len(train), reward.prompts_per_batch, rng):
                loss, accuracy = _within_memory(config, model, [train[i] for i in indices])
                apply_step(trainable, optimizer, schedule, grad_clip=reward.optimizer.grad_clip, stage="reward")
                step += 1
                advance(1)
                log(step, {"reward/loss": loss, "reward/accuracy": accuracy})
                if step == num_steps:
                    break
            loss, accuracy = validate(config, model, validation)
            log(step, {"reward/validation_loss": loss, "reward/validation_accuracy": accuracy})
            if loss < best_loss:
                best_loss = loss
                save_trainable(model, best)
    return step


@torch.no_grad()
def validate(config: RunConfig, model: RewardModel, groups: Sequence[RewardGroup]) -> tuple[float, float]:
    """The loss and the pairwise accuracy, dropout off."""
    model.eval()
    return _within_memory(config, model, groups)


def calibrate_reward(
    raw: Scorer, data: RewardData, sample_examples: Sequence[Example], samples: Sequence[Sequence[Completion]]
) -> Calibration:
    """The calibration of a trained reward, which scores as `raw`, on the judged completions of the validation
    documents, references among them; `samples[i]` are the SFT model's."""
    judged = data.validation
    by_id = {example.id: example for example in data.validation_examples}
    flat = [completion for row in samples for completion in row]
    repeated = [example for example, row in zip(sample_examples, samples, strict=True) for _ in row]
    shape = (len(samples), -1)
    logits_M = raw([by_id[row.example_id] for row in judged], [row.completion for row in judged])
    is_reference_M = np.array([row.mode == REFERENCE for row in judged])
    return calibrate(
        reference_logits_N=logits_M[is_reference_M],
        reference_words_N=word_counts([row.completion for row in judged])[is_reference_M],
        sample_logits_PK=raw(repeated, flat).reshape(shape),
        sample_words_PK=word_counts(flat).reshape(shape),
        labelled_logits_M=logits_M,
        labels_M=np.array([row.label for row in judged]),
    )


def reward_groups(model: RewardModel, examples: Sequence[Example], judged: Sequence[Judged]) -> list[RewardGroup]:
    """The judged completions gathered by prompt, encoded for this reward model."""
    by_id = {example.id: example for example in examples}
    rows: dict[str, list[Judged]] = defaultdict(list)
    for row in judged:
        rows[row.example_id].append(row)
    return [
        RewardGroup(
            tuple(model.encode(by_id[example_id], row.completion) for row in group),
            tuple(row.label for row in group),
        )
        for example_id, group in rows.items()
    ]


def _within_memory(config: RunConfig, model: RewardModel, groups: Sequence[RewardGroup]) -> tuple[float, float]:
    """`_accumulate` with as many tokens at once as fit; a prompt's completions are compared, so they stay together."""
    longest = max((g.num_tokens for g in groups), default=0)
    return model.budget.spend(
        partial(_accumulate, config, model, groups), least=longest,
        smallest=f"a single prompt's judged completions ({longest} tokens)",
    )  # fmt: skip


def _accumulate(
    config: RunConfig, model: RewardModel, groups: Sequence[RewardGroup], tokens: int
) -> tuple[float, float]:
    """Gradients of the batch's loss, from zero, whatever the micro-batches; returns (loss, pairwise accuracy)."""
    model.zero_grad(set_to_none=True)
    num_items = sum(len(g.labels) for g in groups)
    num_pairs = sum(len(g.labels) for g in groups if min(g.labels) <= 0.5 < max(g.labels))
    total, correct = 0.0, 0.0
    for part in microbatches([g.num_tokens for g in groups], tokens):
        chosen = [groups[i] for i in part]
        logits = model.logits([pair for g in chosen for pair in g.encoded])
        loss = reward_loss(logits, chosen, config, num_items=num_items, num_groups=len(groups))
        check_finite(loss, "reward/loss")
        if loss.requires_grad:
            loss.backward()
        total += float(loss.detach())
        correct += _correct(logits.detach(), chosen)
    return total, correct / max(1, num_pairs)


def reward_loss(
    logits: Tensor, groups: Sequence[RewardGroup], config: RunConfig, *, num_items: int, num_groups: int
) -> Tensor:
    """Bradley-Terry within the prompt + 0.5 * smoothed BCE + 1e-3 * mean(logit^2); "bce": the smoothed BCE alone.

    The denominators are those of the whole batch: `num_groups` prompts and `num_items` completions.
    """
    reward = config.reward
    labels = torch.tensor([label for g in groups for label in g.labels], device=logits.device)
    bce = smoothed_bce(logits, labels, smoothing=reward.label_smoothing).sum() / num_items
    if (reward.loss or ("bce" if config.negatives.preset == "paper" else "pairwise+bce")) == "bce":
        return bce
    group = torch.repeat_interleave(torch.tensor([len(g.labels) for g in groups])).to(logits.device)
    pairwise = bradley_terry(logits, labels, group).sum() / num_groups
    return pairwise + 0.5 * bce + 1e-3 * (logits**2).sum() / num_items


def _correct(logits: Tensor, groups: Sequence[RewardGroup]) -> float:
    """How many completions stand on the right side of their group's mean of the other label."""
    correct, start = 0.0, 0
    for g in groups:
        scores, good = logits[start : start + len(g.labels)], torch.tensor(g.labels) > 0.5
        start += len(g.labels)
        if good.any() and (~good).any():
            correct += float((scores[good] > scores[~good].mean()).sum() + (scores[~good] < scores[good].mean()).sum())
    return correct
