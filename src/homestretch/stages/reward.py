"""Stage 3: train the reward model on references against negatives, calibrate it, and audit it on held-out documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homestretch.audit_findings import audit_lines
from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import RunConfig, SamplingConfig
from homestretch.console import progress, say
from homestretch.data import load_splits
from homestretch.metrics import build_metrics
from homestretch.models import load_language_model
from homestretch.ops.losses import bradley_terry, smoothed_bce
from homestretch.rewards.audit import audit
from homestretch.rewards.calibration import Calibration, calibrate
from homestretch.rewards.judged import judged_from_row
from homestretch.rewards.length import word_counts
from homestretch.rewards.reward_model import RewardGroup, RewardModel, build_reward_model, save_reward_model
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir, read_jsonl, write_json
from homestretch.training import (
    MemoryBudget,
    apply_step,
    build_optimizer,
    check_finite,
    epoch_batches,
    microbatches,
    set_up_torch,
)
from homestretch.types import Completion, Example, Judged

_NUM_STANDARDISED = 256
"""Training references whose likelihoods set the scale that the score starts with."""


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write run/reward/ and run/reward/audit.json; returns the audit's main numbers."""
    set_up_torch(config)
    splits = load_splits(config)
    train = [judged_from_row(row) for row in read_jsonl(rundir.negatives_dir / "train.jsonl")]
    validation = [judged_from_row(row) for row in read_jsonl(rundir.negatives_dir / "validation.jsonl")]
    sample_examples = splits.validation[: config.reward.audit.num_prompts]
    samples = _sft_samples(config, rundir, sample_examples)

    model = build_reward_model(config, rundir.sft_dir)
    best_path = rundir.path / ".reward-best.safetensors"
    train_groups = reward_groups(model, splits.train, train)
    validation_groups = reward_groups(model, splits.validation, validation)
    model.standardise([group.encoded[0] for group in train_groups[:_NUM_STANDARDISED]])
    steps = _train(config, rundir, model, train_groups, validation_groups, best_path)
    load_trainable(model, best_path)
    model.requires_grad_(False)

    model.calibration = _calibration(model, splits.validation, validation, sample_examples, samples)
    findings = audit(
        model, examples=splits.validation, judged=validation, train_judged=train, samples=samples,
        sample_examples=sample_examples, metrics=build_metrics(config, splits.train),
        temperature=model.calibration.temperature, logits=model.raw, seed=config.seed,
    )  # fmt: skip
    save_reward_model(model, rundir.reward_dir, on_sft=config.reward.backbone == "sft")
    write_json(rundir.audit_path, findings)
    best_path.unlink()
    for line in audit_lines(findings):
        say(line)
    return {"steps": steps, "num_train": len(train), "num_validation": len(validation)}


def _sft_samples(config: RunConfig, rundir: RunDir, examples: Sequence[Example]) -> list[list[Completion]]:
    lm = load_language_model(rundir.sft_dir, config)
    return generate(
        lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        sampling=SamplingConfig(), num_samples=config.reward.audit.samples_per_prompt, seed=config.seed,
        description="reward: SFT samples for the audit",
    )  # fmt: skip


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


def _train(
    config: RunConfig,
    rundir: RunDir,
    model: RewardModel,
    train: Sequence[RewardGroup],
    validation: Sequence[RewardGroup],
    best: Path,
) -> int:
    """Optimize; the weights with the lowest validation loss end up in the file `best`. Returns the steps taken."""
    reward, rng = config.reward, np.random.default_rng([config.seed, 3])
    per_epoch = -(-len(train) // reward.prompts_per_batch)
    num_steps = min(reward.num_epochs * per_epoch, reward.max_steps or reward.num_epochs * per_epoch)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = build_optimizer([(trainable, reward.optimizer.lr)], reward.optimizer, num_steps)
    best_loss, step = float("inf"), 0
    with progress("reward", num_steps) as advance:
        while step < num_steps:
            model.train(reward.dropout)
            for indices in epoch_batches(len(train), reward.prompts_per_batch, rng):
                loss, accuracy = _within_memory(config, model, [train[i] for i in indices])
                apply_step(trainable, optimizer, schedule, grad_clip=reward.optimizer.grad_clip, stage="reward")
                step += 1
                advance(1)
                rundir.log_metrics("reward", step, {"reward/loss": loss, "reward/accuracy": accuracy})
                if step == num_steps:
                    break
            loss, accuracy = _validate(config, model, validation)
            rundir.log_metrics("reward", step, {"reward/validation_loss": loss, "reward/validation_accuracy": accuracy})
            if loss < best_loss:
                best_loss = loss
                save_trainable(model, best)
    return step


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


@torch.no_grad()
def _validate(config: RunConfig, model: RewardModel, groups: Sequence[RewardGroup]) -> tuple[float, float]:
    model.eval()
    return _within_memory(config, model, groups)


def _calibration(
    model: RewardModel,
    examples: Sequence[Example],
    judged: Sequence[Judged],
    sample_examples: Sequence[Example],
    samples: Sequence[Sequence[Completion]],
) -> Calibration:
    by_id = {example.id: example for example in examples}
    flat = [completion for row in samples for completion in row]
    repeated = [example for example, row in zip(sample_examples, samples, strict=True) for _ in row]
    shape = (len(samples), -1)
    references = [Completion(example.reference) for example in examples]
    return calibrate(
        reference_logits_N=model.raw(examples, references),
        reference_words_N=word_counts(references),
        sample_logits_PK=model.raw(repeated, flat).reshape(shape),
        sample_words_PK=word_counts(flat).reshape(shape),
        labelled_logits_M=model.raw([by_id[j.example_id] for j in judged], [j.completion for j in judged]),
        labels_M=np.array([j.label for j in judged]),
    )
