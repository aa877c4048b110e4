"""homestretch as a contender: the loop of stages/rl.py without validation, one update at a time.

python -m benchmarks.ours JOB.json      (started by rl_throughput.py; see protocol.py)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.common import stopwatch
from benchmarks.protocol import Channel, Job, read_job
from homestretch.config import RunConfig
from homestretch.types import Completion, Example, ScoredCompletions, SequenceReward

_PER_ALGORITHM: dict[str, dict[str, Any]] = {"ppo": {"critic_warmup_updates": 0}}
"""Settings that only one algorithm has. The first updates of PPO train the critic alone, which would flatter us."""


def recipe(job: Job) -> RunConfig:
    """The job as a recipe."""
    rl = {
        "algorithm": job.algorithm,
        "num_updates": 100_000,
        "prompts_per_update": job.prompts_per_update,
        "completions_per_prompt": job.completions_per_prompt,
        "sampling": {"batch_size": job.num_rollouts},
        "optimizer": {"lr": 1e-6, "schedule": "constant"},
        "num_epochs": job.num_passes,
        "num_minibatches": 1,
        "tokens_per_microbatch": job.tokens_per_microbatch,
    }
    return RunConfig.model_validate(
        {
            "device": job.device,
            "dtype": "bfloat16",
            "num_threads": job.threads,
            "seed": job.seed,
            "data": {
                "train": job.prompts_path,
                "max_prompt_tokens": job.max_prompt_tokens,
                "max_completion_tokens": job.max_new_tokens,
            },
            "model": {"path": job.model_dir, "attention": job.attention, "lora": {} if job.lora else None},
            # a scalar head on the last state, as TRL's reward models have
            "reward": {"score": "state", "tokens_per_microbatch": job.tokens_per_microbatch},
            "rl": rl | _PER_ALGORITHM.get(job.algorithm, {}),
        },
        strict=False,
    )


def load_examples(path: str | Path) -> list[Example]:
    """The prompts."""
    from homestretch.rundir import read_jsonl

    prompts = [row["prompt"] for row in read_jsonl(Path(path))]
    return [Example(f"p{i}", prompt, prompt, (0, len(prompt))) for i, prompt in enumerate(prompts)]


@dataclass(frozen=True, slots=True)
class AllTerminated:
    """Forced outputs never end; as ended ones they are paid the reward model's score, which differs, not the floor."""

    reward: SequenceReward

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        return self.reward(examples, [replace(c, terminated=True) for c in completions])


@dataclass(frozen=True, slots=True)
class Timed:
    """A reward that writes down how long it took."""

    reward: SequenceReward
    seconds: dict[str, float]
    device: str

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        with stopwatch(self.seconds, "scoring", self.device):
            return self.reward(examples, completions)


class OurRun:
    """Policy, reward model, learner and prompts, ready to update."""

    def __init__(self, job: Job) -> None:
        from homestretch.rollouts.collect import prompt_batches
        from homestretch.training import set_up_torch

        self.job, self.config = job, recipe(job)
        set_up_torch(self.config)
        self.seconds: dict[str, float] = {}
        self.learner = _learner(self.config, job)
        reward = _reward(self.config, job)
        self.reward = Timed(AllTerminated(reward) if job.forced else reward, self.seconds, job.device)
        self.rng = np.random.default_rng(job.seed)
        self.batches = prompt_batches(load_examples(job.prompts_path), job.prompts_per_update, self.rng)
        self.num_steps = 0
        register_optimizer_step_post_hook(self._count_step)
        for method in ("_observed", "_trajectories"):  # where old and reference log-probs are computed
            _time_method(self.learner, method, self.seconds, "log_probs", job.device)

    def _count_step(self, *_: Any) -> None:
        self.num_steps += 1

    def update(self) -> dict[str, Any]:
        """One update: what it took, and what it did."""
        from homestretch.rollouts.collect import collect

        self.seconds.clear()
        steps_before, cpu_before = self.num_steps, time.process_time()
        total: dict[str, float] = {}
        with stopwatch(total, "update", self.job.device):
            with stopwatch(total, "collect", self.job.device):
                rollouts = collect(
                    self.learner.lm, self.reward, next(self.batches), self.config.rl,
                    max_new_tokens=self.job.max_new_tokens, seed=int(self.rng.integers(2**31)),
                )  # fmt: skip
            self.learner.update(rollouts, self.rng)
        lengths = [len(r.completion_ids) for r in rollouts]
        scoring, log_probs = self.seconds["scoring"], self.seconds.get("log_probs", 0.0)
        return {
            "seconds": total["update"],
            "cpu_seconds": time.process_time() - cpu_before,
            "completions": len(rollouts),
            "optimizer_steps": self.num_steps - steps_before,
            "mean_prompt_tokens": float(np.mean([len(r.prompt_ids) for r in rollouts])),
            "mean_completion_tokens": float(np.mean(lengths)),
            "terminated": float(np.mean([r.completion.terminated for r in rollouts])),
            "seconds_rollout": total["collect"] - scoring,
            "seconds_scoring": scoring,
            "seconds_log_probs": log_probs,
            "seconds_training": total["update"] - total["collect"] - log_probs,
        }


def _learner(config: RunConfig, job: Job) -> Any:
    from homestretch.algorithms.learner import Learner
    from homestretch.models import add_lora, frozen_copy, load_language_model

    lm = load_language_model(job.model_dir, config)
    if config.model.lora:
        return Learner(add_lora(lm, config.model.lora, config.seed), None, config.rl)
    return Learner(lm, frozen_copy(lm), config.rl)


def _reward(config: RunConfig, job: Job) -> SequenceReward:
    from homestretch.rewards.composition import RewardComposition
    from homestretch.rewards.length import LengthModel
    from homestretch.rewards.reward_model import load_reward_model

    model = load_reward_model(Path(job.reward_dir), config)
    expected = LengthModel(intercept=float(np.log1p(job.max_new_tokens / 2)), slope=0.0)
    return RewardComposition(model, model.calibration.floor, expected, config.rl.length, config.rl.shaping)


def _time_method(owner: Any, method: str, seconds: dict[str, float], name: str, device: str) -> None:
    """Have a method's duration added up; nothing if the class has no such method (then no part of that name)."""
    plain = getattr(owner, method, None)
    if plain is None:
        return

    def timed(*arguments: Any, **keywords: Any) -> Any:
        with stopwatch(seconds, name, device):
            return plain(*arguments, **keywords)

    setattr(owner, method, timed)


def main() -> None:
    """The worker."""
    job = read_job(sys.argv[1])
    channel = Channel()
    run = OurRun(job)
    channel.send(ready=True, torch=torch.__version__)
    while True:
        channel.wait()
        record = run.update()
        if job.device == "cuda":
            record["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
        channel.send(**record)


if __name__ == "__main__":
    main()
