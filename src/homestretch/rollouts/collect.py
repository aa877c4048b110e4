"""Sampled completions of a batch of prompts, scored: what an RL update learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from homestretch.config import AlgorithmConfig
from homestretch.models import LanguageModel
from homestretch.rollouts.sampler import generate
from homestretch.training import MemoryBudget
from homestretch.types import Completion, Example, Rollout, SequenceReward


def prompt_batches(examples: Sequence[Example], size: int, rng: np.random.Generator) -> Iterator[list[Example]]:
    """Batches without end: every prompt once in random order, then again in another; batches may span two rounds."""
    pending: list[int] = []
    while True:
        while len(pending) < size:
            pending.extend(rng.permutation(len(examples)).tolist())
        yield [examples[i] for i in pending[:size]]
        del pending[:size]


def collect(
    lm: LanguageModel,
    reward: SequenceReward,
    prompts: Sequence[Example],
    config: AlgorithmConfig,
    *,
    max_new_tokens: int,
    seed: int,
    budget: MemoryBudget | None = None,
) -> list[Rollout]:
    """`completions_per_prompt` rollouts of each prompt, those of a prompt next to each other.

    `budget` is the number of completions decoded at once, if not the recipe's.
    """
    rows = generate(
        lm, prompts, max_new_tokens=max_new_tokens, batch_size=budget or config.sampling.batch_size,
        sampling=config.sampling, num_samples=config.completions_per_prompt, seed=seed, description="rl: rollouts",
    )  # fmt: skip
    repeated = [example for example, row in zip(prompts, rows, strict=True) for _ in row]
    completions: list[Completion] = [completion for row in rows for completion in row]
    scored = reward(repeated, completions)
    encoded = [lm.codec.encode_prompt(prompt).ids for prompt in prompts]
    prompt_ids = [ids for ids, row in zip(encoded, rows, strict=True) for _ in row]
    return [
        Rollout(
            example=example,
            completion=completion,
            prompt_ids=prompt_ids[i],
            completion_ids=(*completion.ids, lm.codec.eos_id) if completion.terminated else completion.ids,
            score=float(scored.scores[i]),
            terms={name: float(values[i]) for name, values in scored.terms.items()},
        )
        for i, (example, completion) in enumerate(zip(repeated, completions, strict=True))
    ]
