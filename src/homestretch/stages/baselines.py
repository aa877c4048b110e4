"""Between rl and evaluate, where a recipe asks for them: the arms that RL is compared with, made of the SFT model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from homestretch.baselines.best_of_n import rewarded_best, sample
from homestretch.baselines.cost import num_tokens
from homestretch.baselines.objectives import (
    DPO,
    MaximumLikelihood,
    Objective,
    Pair,
    Unlikelihood,
    build_pairs,
    frozen_logprobs,
)
from homestretch.baselines.trainer import Plan, train
from homestretch.config import ArmName, RunConfig, TrainedArmConfig
from homestretch.console import say
from homestretch.data import Splits, load_splits
from homestretch.metrics import build_selection
from homestretch.models import LanguageModel, add_lora, load_language_model, save_language_model
from homestretch.ops.drawing import drawn
from homestretch.rewards.judged import judged_from_row
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir, read_jsonl
from homestretch.training import MemoryBudget, set_up_torch
from homestretch.types import UserError

Prepared = tuple[Objective, dict[str, int]]
"""What an arm minimises, and what making it took: counts for the summary."""


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write run/baselines/ARM/; returns each arm's steps, held-out score and cost. `best_of_n` only decodes."""
    set_up_torch(config)
    shutil.rmtree(rundir.baselines_dir, ignore_errors=True)
    if not config.baselines.arms:
        say("baselines: none asked for (baselines.arms)")
    return {"arms": {arm: _arm(arm, config, rundir) for arm in config.baselines.trained_arms}}


def _arm(arm: ArmName, config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    start, splits = time.perf_counter(), load_splits(config)
    settings: TrainedArmConfig = getattr(config.baselines, arm)
    budget = MemoryBudget(settings.tokens_per_microbatch, f"baselines.{arm}.tokens_per_microbatch")
    lm = load_language_model(rundir.sft_dir, config)
    if arm == "rejection_sft":
        objective, cost = _rejection_sampled(config, rundir, lm, splits)
    else:
        objective, cost = _contrastive(arm, config, rundir, lm, splits, budget)
    if not objective.sizes:
        raise UserError(f"baselines.{arm}: there is nothing to learn from: {cost}")
    plan = Plan(
        f"baselines.{arm}", settings, settings.optimizer or config.rl.optimizer,
        num_validations=-(-config.rl.num_updates // config.rl.validate_every),
        validate=_held_out_score(config, splits),
        log=lambda step, row: rundir.log_metrics("baselines", step, {f"{arm}/{k}": v for k, v in row.items()}),
    )  # fmt: skip
    lm = add_lora(lm, config.model.lora, config.seed) if config.model.lora else lm
    best, rng = rundir.path / ".baseline-best.safetensors", np.random.default_rng([config.seed, 5])
    trained = train(lm, objective, plan, best, rng, budget)
    save_language_model(lm, rundir.baselines_dir / arm)
    say(f"{arm}: kept step {trained.kept_step} of {trained.steps}, held-out score {trained.selection:.3f}")
    return asdict(trained) | cost | {"seconds": round(time.perf_counter() - start, 1)}


def _held_out_score(config: RunConfig, splits: Splits) -> Callable[[LanguageModel], float]:
    """What chooses RL's checkpoint, on the same examples: the mean held-out score of greedy outputs."""
    examples = splits.validation[: config.rl.max_validation_examples]
    selection = build_selection(config, splits.train)
    budget = MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size")

    def score(lm: LanguageModel) -> float:
        rows = generate(
            lm, examples, max_new_tokens=config.data.max_completion_tokens, batch_size=budget,
            description="baselines: validation",
        )  # fmt: skip
        return float(selection(examples, [row[0] for row in rows]).mean())

    return score


def _rejection_sampled(config: RunConfig, rundir: RunDir, lm: LanguageModel, splits: Splits) -> Prepared:
    """The best of each prompt's samples, by what RL is paid; a prompt whose best did not end is left out."""
    settings = config.baselines.rejection_sft
    most = settings.max_prompts or config.rl.num_updates * config.rl.prompts_per_update
    prompts = drawn([*splits.train, *splits.prompts], most, np.random.default_rng([config.seed, 6]))
    samples = sample(
        lm, config, prompts, num_samples=settings.samples_per_prompt, temperature=settings.temperature,
        name="rejection_sft",
    )  # fmt: skip
    best = rewarded_best(config, rundir, prompts, samples)
    pairs = [
        (lm.codec.encode_prompt(example).ids, lm.codec.encode_completion(completion))
        for example, completion in zip(prompts, best, strict=True)
        if completion.terminated
    ]
    cost = {
        "num_items": len(pairs),
        "num_left_out": len(prompts) - len(pairs),
        "sampled_completions": sum(map(len, samples)),
        "sampled_tokens": num_tokens([completion for row in samples for completion in row]),
    }
    return MaximumLikelihood(pairs), cost


def _contrastive(
    arm: ArmName, config: RunConfig, rundir: RunDir, lm: LanguageModel, splits: Splits, budget: MemoryBudget
) -> Prepared:
    """DPO or unlikelihood on the references and negatives that taught the reward."""
    path = rundir.negatives_dir / "train.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no negatives there for baselines.{arm}; run `homestretch negatives` with this recipe")
    judged = [judged_from_row(row) for row in read_jsonl(path)]
    pairs = build_pairs(lm.codec, splits.train, judged)
    num_negatives = sum(row.label <= 0.5 for row in judged)
    if arm == "unlikelihood":
        pairs = [pair for pair in pairs if any(pair.is_wrong)]
        return Unlikelihood(pairs, config.baselines.unlikelihood.alpha), _counts(pairs, num_negatives)
    reference_logprobs = frozen_logprobs(lm, pairs, budget)
    cost = _counts(pairs, num_negatives) | {"scored_tokens": sum(pair.size for pair in pairs)}
    return DPO(pairs, reference_logprobs, config.baselines.dpo.beta), cost


def _counts(pairs: Sequence[Pair], num_negatives: int) -> dict[str, int]:
    return {"num_items": len(pairs), "num_left_out": num_negatives - len(pairs)}
