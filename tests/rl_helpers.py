"""Rollouts and RL sections for tests of the updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter

from homestretch.algorithms.learner import Learner
from homestretch.config import RLConfig
from homestretch.models import LanguageModel, frozen_copy
from homestretch.types import Completion, Example, Rollout
from tiny import tiny_examples

ALGORITHMS = ("ppo", "rloo", "grpo", "reinforce_pp")


def rl_section(algorithm: str = "ppo", **overrides: Any) -> RLConfig:
    """A section `rl` of one step per update, whose critic, if any, needs no warm-up."""
    settings: dict[str, Any] = {"algorithm": algorithm, "num_epochs": 1, "num_minibatches": 1}
    if algorithm == "ppo":
        settings["critic_warmup_updates"] = 0
    return TypeAdapter(RLConfig).validate_python(settings | overrides, strict=False)


def encoded(lm: LanguageModel, count: int = 6) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Prompts and completions as ids; every other completion hit the cap."""
    examples = tiny_examples(count)
    prompts = [lm.codec.encode_prompt(e).ids for e in examples]
    completions = [
        lm.codec.encode_completion(Completion(e.reference, terminated=i % 2 == 0)) for i, e in enumerate(examples)
    ]
    return prompts, completions


def grouped_rollouts(
    lm: LanguageModel, scores: Sequence[Sequence[float]], completions: Sequence[tuple[int, ...]] | None = None
) -> list[Rollout]:
    """As many completions of each example as there are scores; the examples' references in turn, unless given."""
    examples, texts = tiny_examples(len(scores)), completions or encoded(lm, 4)[1]
    return [
        Rollout(example, Completion(""), lm.codec.encode_prompt(example).ids, texts[(i + k) % len(texts)], score)
        for i, (example, row) in enumerate(zip(examples, scores, strict=True))
        for k, score in enumerate(row)
    ]


def with_prompt(rollout: Rollout, example: Example, prompt_ids: tuple[int, ...]) -> Rollout:
    """The rollout as the answer to another prompt."""
    return Rollout(example, rollout.completion, prompt_ids, rollout.completion_ids, rollout.score)


def weights(learner: Learner) -> torch.Tensor:
    """All weights of the policy as one vector."""
    return torch.cat([p.detach().flatten() for p in learner.lm.model.parameters()])


def build_learner(lm: LanguageModel, section: RLConfig, **options: Any) -> Learner:
    """A learner of full fine-tuning."""
    return Learner(lm, frozen_copy(lm), section, **options)
