"""Stage 3: train the reward model on references against negatives, calibrate it, and audit it on held-out documents."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.audit_findings import audit_lines, gate
from homestretch.config import RunConfig
from homestretch.console import say
from homestretch.data import load_splits
from homestretch.metrics import build_metrics, build_selection
from homestretch.models import load_language_model
from homestretch.rewards.audit import AuditSamples, audit
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.disagreement import with_disagreement
from homestretch.rewards.ensemble import RewardEnsemble, write_ensemble
from homestretch.rewards.held_out import mean_class_auc, train_held_out
from homestretch.rewards.leave_out import leave_out_matrix, members_matrix, train_ensemble, with_left_out
from homestretch.rewards.length import word_counts
from homestretch.rewards.own_samples import audit_samples
from homestretch.rewards.remembered import Remembered
from homestretch.rewards.reward_model import RewardModel, save_reward_model, score_form
from homestretch.rewards.training import RewardData, calibrate_reward, read_reward_data, train_reward
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir, write_json
from homestretch.training import MemoryBudget, free_memory, set_up_torch
from homestretch.types import Completion, Example, Scorer


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write run/reward/ and run/reward/audit.json; returns the audit's main numbers."""
    set_up_torch(config)
    shutil.rmtree(_members_path(rundir), ignore_errors=True)
    splits = load_splits(config)
    data, held_out = read_reward_data(config, rundir, splits)
    train, validation = data.train, data.validation
    samples = _sft_samples(config, rundir, splits.validation[: config.reward.audit.num_prompts])

    calibrated = partial(calibrate_reward, data=data, sample_examples=samples.examples, samples=samples.samples)
    model, steps = _train(config, rundir, data, calibrated)
    raw = Remembered(model.raw)
    model.calibration = calibrated(raw)
    selection = build_selection(config, splits.train)
    # the score of an ensemble is no log odds: its zero is a mean reference
    logits: Scorer = model.log_odds if isinstance(model, RewardEnsemble) else raw
    temperature = 1.0 if isinstance(model, RewardEnsemble) else model.calibration.temperature
    findings = audit(
        partial(_rewards, model.calibration, raw), examples=splits.validation, judged=validation, train_judged=train,
        samples=samples, metrics=build_metrics(config, splits.train), selection=selection,
        temperature=temperature, logits=logits, seed=config.seed,
    )  # fmt: skip
    if config.reward.audit.leave_out.folds:
        sft_dir, best = rundir.sft_dir, _best_path(rundir)
        findings = with_left_out(findings, leave_out_matrix(config, data, raw, sft_dir=sft_dir, best=best))
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
    summary = {
        "steps": steps, "num_members": config.reward.ensemble.num_members, "num_train": len(train),
        "num_validation": len(validation), "gate": findings["gate"]["decision"],
        "score": score_form(config) if config.reward.backbone == "sft" else config.reward.score,
    }  # fmt: skip
    del model, raw, logits
    free_memory()
    return summary | ({"held_out": _train_judge(config, rundir, held_out, samples)} if held_out.train else {})


def _train(
    config: RunConfig, rundir: RunDir, data: RewardData, calibrated: Callable[[Scorer], Calibration]
) -> tuple[RewardModel | RewardEnsemble, int]:
    """The reward, the members of an ensemble calibrated by themselves, and the steps that its training took."""
    sft_dir, best, log = rundir.sft_dir, _best_path(rundir), partial(rundir.log_metrics, "reward")
    if config.reward.ensemble.num_members == 1:
        return train_reward(config, data, sft_dir=sft_dir, best=best, log=log)
    return train_ensemble(config, data, calibrated, sft_dir=sft_dir, best=best, folder=_members_path(rundir), log=log)


def _train_judge(config: RunConfig, rundir: RunDir, data: RewardData, samples: AuditSamples) -> dict[str, Any]:
    """Train and write the reward that RL is never paid by; its main numbers."""
    judge, steps = train_held_out(config, data, sft_dir=rundir.sft_dir, best=_best_path(rundir))
    raw = Remembered(judge.raw)
    judge.calibration = calibrate_reward(raw, data, samples.examples, samples.samples)
    auc = mean_class_auc(raw, data)
    save_reward_model(judge, rundir.held_out_reward_dir, on_sft=config.reward.backbone == "sft")
    return {"steps": steps, "num_train": len(data.train), "mean_class_auc": auc}


def _rewards(
    calibration: Calibration, raw: Scorer, examples: Sequence[Example], completions: Sequence[Completion]
) -> NDArray[np.float64]:
    return calibration.reward(raw(examples, completions), word_counts(completions))


def _best_path(rundir: RunDir) -> Path:
    return rundir.path / ".reward-best.safetensors"


def _members_path(rundir: RunDir) -> Path:
    return rundir.path / ".reward-members"


def _sft_samples(config: RunConfig, rundir: RunDir, examples: Sequence[Example]) -> AuditSamples:
    lm = load_language_model(rundir.sft_dir, config)
    greedy = generate(
        lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        description="reward: SFT model's greedy answers for the audit",
    )  # fmt: skip
    return AuditSamples(examples, audit_samples(lm, examples, config), [row[0] for row in greedy])
