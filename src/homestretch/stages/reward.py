"""Stage 3: train the reward model on references against negatives, calibrate it, and audit it on held-out documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from homestretch.audit_findings import audit_lines, gate
from homestretch.config import RunConfig, SamplingConfig
from homestretch.console import say
from homestretch.data import load_splits
from homestretch.metrics import build_metrics, build_selection
from homestretch.models import load_language_model
from homestretch.rewards.audit import AuditSamples, audit
from homestretch.rewards.calibration import Calibration, calibrate
from homestretch.rewards.disagreement import with_disagreement
from homestretch.rewards.ensemble import LearnedReward, RewardEnsemble, write_ensemble
from homestretch.rewards.judged import judged_from_row
from homestretch.rewards.leave_out import leave_out_matrix, members_matrix, train_ensemble, with_left_out
from homestretch.rewards.length import word_counts
from homestretch.rewards.reward_model import RewardModel, save_reward_model
from homestretch.rewards.training import RewardData, train_reward
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir, read_jsonl, write_json
from homestretch.training import MemoryBudget, set_up_torch
from homestretch.types import Completion, Example, Judged


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write run/reward/ and run/reward/audit.json; returns the audit's main numbers."""
    set_up_torch(config)
    splits = load_splits(config)
    train = [judged_from_row(row) for row in read_jsonl(rundir.negatives_dir / "train.jsonl")]
    validation = [judged_from_row(row) for row in read_jsonl(rundir.negatives_dir / "validation.jsonl")]
    samples = _sft_samples(config, rundir, splits.validation[: config.reward.audit.num_prompts])

    data = RewardData(splits.train, train, splits.validation, validation)
    calibrated = partial(_calibration, examples=splits.validation, judged=validation, own=samples)
    model, steps = _train(config, rundir, data, calibrated)
    selection = build_selection(config, splits.train)
    findings = audit(
        model, examples=splits.validation, judged=validation, train_judged=train, samples=samples,
        metrics=build_metrics(config, splits.train), selection=selection,
        temperature=model.calibration.temperature, logits=model.raw, seed=config.seed,
    )  # fmt: skip
    if config.reward.audit.leave_out.folds:
        sft_dir, best = rundir.sft_dir, _best_path(rundir)
        findings = with_left_out(findings, leave_out_matrix(config, data, model.raw, sft_dir=sft_dir, best=best))
    elif isinstance(model, RewardEnsemble):
        findings = with_left_out(findings, members_matrix(model, data))
    if isinstance(model, RewardEnsemble):
        findings = with_disagreement(findings, model, data, samples, selection=selection, seed=config.seed)
    findings["gate"] = gate(findings, config.reward.gate)
    if isinstance(model, RewardEnsemble):
        write_ensemble(model, _members_path(rundir), rundir.reward_dir)
    else:
        save_reward_model(model, rundir.reward_dir, on_sft=config.reward.backbone == "sft")
    write_json(rundir.audit_path, findings)
    for line in audit_lines(findings):
        say(line)
    return {
        "steps": steps, "num_members": config.reward.ensemble.num_members, "num_train": len(train),
        "num_validation": len(validation), "gate": findings["gate"]["decision"],
    }  # fmt: skip


def _train(
    config: RunConfig, rundir: RunDir, data: RewardData, calibrated: Callable[[LearnedReward], Calibration]
) -> tuple[RewardModel | RewardEnsemble, int]:
    """The reward, calibrated, and the steps that its training took."""
    sft_dir, best, log = rundir.sft_dir, _best_path(rundir), partial(rundir.log_metrics, "reward")
    model: RewardModel | RewardEnsemble
    if config.reward.ensemble.num_members == 1:
        model, steps = train_reward(config, data, sft_dir=sft_dir, best=best, log=log)
    else:
        model, steps = train_ensemble(
            config, data, calibrated, sft_dir=sft_dir, best=best, folder=_members_path(rundir), log=log
        )
    model.calibration = calibrated(model)
    return model, steps


def _best_path(rundir: RunDir) -> Path:
    return rundir.path / ".reward-best.safetensors"


def _members_path(rundir: RunDir) -> Path:
    return rundir.path / ".reward-members"


def _sft_samples(config: RunConfig, rundir: RunDir, examples: Sequence[Example]) -> AuditSamples:
    write = partial(
        generate, load_language_model(rundir.sft_dir, config), examples,
        max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        description="reward: SFT samples for the audit",
    )  # fmt: skip
    k = config.reward.audit.samples_per_prompt
    samples = write(sampling=SamplingConfig(), num_samples=k, seed=config.seed)
    return AuditSamples(examples, samples, [row[0] for row in write()])


def _calibration(
    model: LearnedReward,
    examples: Sequence[Example],
    judged: Sequence[Judged],
    own: AuditSamples,
) -> Calibration:
    by_id = {example.id: example for example in examples}
    flat = [completion for row in own.samples for completion in row]
    repeated = [example for example, row in zip(own.examples, own.samples, strict=True) for _ in row]
    shape = (len(own.samples), -1)
    references = [Completion(example.reference) for example in examples]
    return calibrate(
        reference_logits_N=model.raw(examples, references),
        reference_words_N=word_counts(references),
        sample_logits_PK=model.raw(repeated, flat).reshape(shape),
        sample_words_PK=word_counts(flat).reshape(shape),
        labelled_logits_M=model.raw([by_id[j.example_id] for j in judged], [j.completion for j in judged]),
        labels_M=np.array([j.label for j in judged]),
    )
