"""The SFT model's own samples: drawing them at several temperatures, and the rows made of the judged ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from homestretch.config import RunConfig, SamplingConfig
from homestretch.rewards.judged import ON_POLICY, ON_POLICY_POSITIVE, stable_seed
from homestretch.rewards.on_policy import SampleVerdict
from homestretch.types import Completion, Example, Judged

if TYPE_CHECKING:
    from homestretch.models import LanguageModel


@dataclass(frozen=True, slots=True)
class OwnSample:
    """A sample of the SFT model, and how it was drawn."""

    example: Example
    completion: Completion
    temperature: float
    seed: int
    """The seed of the sampling call it came from."""


def sample_at_temperatures(
    lm: LanguageModel, examples: Sequence[Example], config: RunConfig, *, description: str
) -> list[OwnSample]:
    """`samples_per_prompt` samples of every example; the temperatures take turns, so that each has an equal share."""
    from homestretch.rollouts.sampler import generate
    from homestretch.training import MemoryBudget

    budget = MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size")
    settings = config.negatives.on_policy
    k, temperatures = settings.samples_per_prompt, settings.temperatures
    samples: list[OwnSample] = []
    for t, temperature in enumerate(temperatures):
        shares = [sum((i * k + j) % len(temperatures) == t for j in range(k)) for i in range(len(examples))]
        for share in sorted(set(shares) - {0}):
            chosen = [example for example, n in zip(examples, shares, strict=True) if n == share]
            seed = stable_seed(config.seed, description, temperature, share)
            drawn = generate(
                lm,
                chosen,
                max_new_tokens=config.data.max_completion_tokens,
                batch_size=budget,
                sampling=SamplingConfig(temperature=temperature, batch_size=config.evaluate.batch_size),
                num_samples=share,
                seed=seed,
                description=f"{description}, T {temperature:g}",
            )
            for example, completions in zip(chosen, drawn, strict=True):
                samples += [OwnSample(example, completion, temperature, seed) for completion in completions]
    return samples


def audit_samples(lm: LanguageModel, examples: Sequence[Example], config: RunConfig) -> list[list[Completion]]:
    """The SFT model's samples that a reward is calibrated and audited on, one list per example."""
    from homestretch.rollouts.sampler import generate
    from homestretch.training import MemoryBudget

    return generate(
        lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        sampling=SamplingConfig(), num_samples=config.reward.audit.samples_per_prompt, seed=config.seed,
        description="reward: SFT samples for the audit",
    )  # fmt: skip


def judged_samples(
    samples: Sequence[OwnSample],
    verdicts: Sequence[SampleVerdict],
    rouge_l: NDArray[np.float64],
    chrf: NDArray[np.float64],
) -> list[Judged]:
    """Rows of the bad and the good samples, each text once per example; a sample that is a reference is left out.

    The overlaps, shape (n,), are only noted. A good sample is a *soft* positive: its label is 1, its note says so.
    """
    rows: dict[tuple[str, str, bool], Judged] = {}
    for sample, verdict, rouge, char in zip(samples, verdicts, rouge_l, chrf, strict=True):
        text, terminated = sample.completion.text, sample.completion.terminated
        if verdict.verdict == "unused" or (terminated and text in sample.example.references):
            continue
        is_good = verdict.verdict == "good"
        why = "no flag, a soft positive" if is_good else f"flags: {', '.join(verdict.flags)}"
        note = f"T {sample.temperature:g}, ROUGE-L {rouge:.2f}, chrF {char:.2f}, {why}"
        rows.setdefault(
            (sample.example.id, text, terminated),
            Judged(
                example_id=sample.example.id,
                completion=Completion(text, terminated=terminated),
                mode=ON_POLICY_POSITIVE if is_good else ON_POLICY,
                label=float(is_good),
                span=(0, len(text)),
                note=note,
                seed=sample.seed,
            ),
        )
    return list(rows.values())
