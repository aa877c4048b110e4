"""Samples of the SFT model, and the one of a prompt's samples that the reward likes best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from homestretch.baselines.cost import num_tokens
from homestretch.config import RunConfig, SamplingConfig
from homestretch.data import load_splits
from homestretch.models import LanguageModel, load_language_model
from homestretch.rewards.judged import stable_seed
from homestretch.rewards.reward_model import load_reward_model
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir
from homestretch.scorers import build_reward
from homestretch.training import MemoryBudget
from homestretch.types import Completion, Example, SequenceReward


def sample(
    lm: LanguageModel,
    config: RunConfig,
    examples: Sequence[Example],
    *,
    num_samples: int,
    temperature: float,
    name: str,
) -> list[list[Completion]]:
    """`num_samples` completions of each prompt; `name` says what for, and the seed follows from it."""
    return generate(
        lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        sampling=SamplingConfig(temperature=temperature), num_samples=num_samples,
        seed=stable_seed(config.seed, name), description=f"{name}: SFT samples",
    )  # fmt: skip


def best_of(
    reward: SequenceReward, examples: Sequence[Example], samples: Sequence[Sequence[Completion]]
) -> list[Completion]:
    """Of each example's samples the one with the highest score, the first of equals."""
    repeated = [example for example, row in zip(examples, samples, strict=True) for _ in row]
    scores = iter(reward(repeated, [completion for row in samples for completion in row]).scores.tolist())
    return [max(zip([next(scores) for _ in row], row, strict=True), key=lambda pair: pair[0])[1] for row in samples]


def rewarded_best(
    config: RunConfig, rundir: RunDir, examples: Sequence[Example], samples: Sequence[Sequence[Completion]]
) -> list[Completion]:
    """`best_of` by what RL is paid in this run. The examples' references and facts count as RL lets them."""
    model = load_reward_model(rundir.reward_dir, config)
    reward = build_reward(config, model, model.calibration.floor, load_splits(config).train)
    return best_of(reward, examples, samples)


def decode_best_of_n(config: RunConfig, rundir: RunDir, examples: Sequence[Example]) -> tuple[list[Completion], int]:
    """The arm's outputs, and how many tokens were decoded for them.

    References and facts are hidden from the choice, as one would not have them: a shaped reward, or a term that
    compares with them, then works with what it does for a prompt without a reference.
    """
    settings = config.baselines.best_of_n
    lm = load_language_model(rundir.sft_dir, config)
    samples = sample(lm, config, examples, num_samples=settings.n, temperature=settings.temperature, name="best_of_n")
    blind = [replace(example, references=(), facts={}) for example in examples]
    return rewarded_best(config, rundir, blind, samples), num_tokens([c for row in samples for c in row])
