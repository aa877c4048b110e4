"""What an alarm teaches the learned reward: samples that it over-rates become negatives for more training.

The samples are of the policy that raised the alarm, on labelled training prompts. Over-rated is what the learned reward
puts above the prompt's own reference, or in the top fifth of all samples, and the independent rule of the on-policy
class (on_policy.py) calls bad. The rule ranks them among as many samples of the SFT model, so that a policy that has
gone bad altogether is not graded on its own curve. An unterminated sample is paid the floor and not the learned reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from homestretch.checkpoint import load_trainable
from homestretch.config import OnPolicyConfig, RunConfig
from homestretch.ops.drawing import drawn
from homestretch.rewards.audit import class_aucs, paired
from homestretch.rewards.held_out import mean_class_auc
from homestretch.rewards.judged import MINED, ON_POLICY_POSITIVE, reference_rows
from homestretch.rewards.on_policy import judge_samples
from homestretch.rewards.reward_model import RewardModel
from homestretch.rewards.training import RewardData, optimize, reward_groups
from homestretch.types import Completion, Example, FailureMode, Judged, Scorer

FEWEST_PROMPTS = 8
"""With mined negatives on fewer prompts than this there is nothing to learn from and to measure on."""
_TOP_SHARE = 0.2
"""Of all samples, by the learned reward: what RL would go on to."""
_HELD_OUT_SHARE = 0.25
"""Of the prompts with mined negatives: what was learned is measured on them."""
_FEWEST_HELD_OUT = 4
"""Prompts, up to half of them."""
_LEAST_GAIN = 0.02
"""In AUC: below it what was learned is within the noise of so few prompts."""
_MOST_PASSES = 5
"""After each the weights are validated; fewer prompts are taken several times a pass."""
_MAX_FORGOTTEN = 0.05
"""A fall of the mean AUC over the old classes beyond this is too high a price."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of on_policy.py with what it needs of a run."""

    modes: Sequence[FailureMode]
    rouge_l: Scorer
    chrf: Scorer
    settings: OnPolicyConfig


@dataclass(frozen=True, slots=True)
class Mined:
    """What was found among the policy's samples."""

    rows: tuple[Judged, ...]
    """Over-rated samples (label 0, mode "mined") and good ones (label 1), each text once per prompt."""
    num_samples: int
    num_bad: int

    @property
    def prompts(self) -> list[str]:
        """The ids of the prompts with a mined negative, sorted."""
        return sorted({row.example_id for row in self.rows if row.mode == MINED})

    @property
    def num_mined(self) -> int:
        """How many negatives."""
        return sum(row.mode == MINED for row in self.rows)


@dataclass(frozen=True, slots=True)
class Refresh:
    """A reward trained on with mined negatives, in numbers."""

    steps: int
    num_train: int
    """Mined negatives that were trained on."""
    num_held_out: int
    """Mined negatives, of other prompts, on which the AUC against references is measured."""
    auc_before: float
    auc_after: float
    classes_before: float | None
    """The mean AUC of the classes it was first trained on, on validation documents."""
    classes_after: float | None

    @property
    def is_better(self) -> bool:
        """Whether it learned to tell the mined negatives from references, and did not forget the other classes."""
        forgotten = (self.classes_before or 0.0) - (self.classes_after or 0.0)
        return self.auc_after >= self.auc_before + _LEAST_GAIN and forgotten <= _MAX_FORGOTTEN

    @property
    def sentence(self) -> str:
        """What was done and came of it."""
        trained = f"{self.num_train} negatives mined from this policy's samples"
        change = f"AUC {self.auc_before:.2f} to {self.auc_after:.2f} on {self.num_held_out} more of them"
        if self.classes_before is not None and self.classes_after is not None:
            change += f", {self.classes_before:.2f} to {self.classes_after:.2f} on the classes it knew"
        if self.is_better:
            return f"the reward was trained on with {trained} and replaced ({change})"
        return f"the reward was trained on with {trained}, which did it no good, and stays as it was ({change})"


def mine(
    prompts: Sequence[Example],
    samples: Sequence[Sequence[Completion]],
    of_sft: Sequence[Sequence[Completion]],
    *,
    reward: Scorer,
    rule: Rule,
    note: str,
) -> Mined:
    """What the learned `reward` over-rates among the policy's `samples` of labelled prompts, and what is good there.

    `samples[i]` and the SFT model's `of_sft[i]` answer `prompts[i]`. `note` says where the samples are from. The good
    ones keep "written by this policy" from becoming a sign of bad.
    """
    num_samples = sum(map(len, samples))
    answers = [completion for rows in (samples, of_sft) for row in rows for completion in row]
    asked = [e for rows in (samples, of_sft) for e, row in zip(prompts, rows, strict=True) for _ in row]
    overlaps = rule.rouge_l(asked, answers), rule.chrf(asked, answers)
    verdicts = judge_samples(
        asked, answers, rule.modes, overlaps,
        bad_fraction=rule.settings.bad_fraction, good_fraction=rule.settings.good_fraction,
        among=slice(num_samples, None),
    )  # fmt: skip
    rewards = reward(asked, answers)
    of_reference = dict(
        zip([e.id for e in prompts], reward(prompts, [Completion(e.reference) for e in prompts]), strict=True)
    )
    top = np.quantile(rewards, 1 - _TOP_SHARE)
    rows: dict[tuple[str, str], Judged] = {}
    for i, (example, answer) in enumerate(zip(asked[:num_samples], answers, strict=False)):
        verdict = verdicts[i]
        if verdict.verdict == "unused" or not answer.terminated or answer.text in example.references:
            continue
        is_good = verdict.verdict == "good"
        if not is_good and rewards[i] <= of_reference[example.id] and rewards[i] < top:
            continue
        mode, why = (ON_POLICY_POSITIVE, "good") if is_good else (MINED, f"flags: {', '.join(verdict.flags)}")
        numbers = f"reward {rewards[i]:.2f}, reference {of_reference[example.id]:.2f}"
        numbers += f", ROUGE-L {overlaps[0][i]:.2f}, chrF {overlaps[1][i]:.2f}"
        rows.setdefault(
            (example.id, answer.text),
            Judged(example.id, Completion(answer.text), mode, float(is_good), (0, len(answer.text)),
                   f"{note}, {numbers}, {why}"),
        )  # fmt: skip
    num_bad = sum(verdict.verdict == "bad" for verdict in verdicts[:num_samples])
    return Mined(tuple(rows.values()), num_samples, num_bad)


def train_on(
    config: RunConfig, model: RewardModel, mined: Mined, data: RewardData, *, seed: int, best: Path
) -> Refresh:
    """Train a reward, as `resume_reward_model` gives it, on with mined negatives; it is not calibrated anew.

    What it was first trained on is mixed in, so that it forgets nothing: the rows of the mined prompts, and those of
    as many others. A quarter of the mined prompts is held out, to measure on and, with a validation sample of the old
    rows, to choose between the passes; `best` holds the weights meanwhile.
    """
    rng = np.random.default_rng(seed)
    prompts = mined.prompts
    num_held_out = max(_FEWEST_HELD_OUT, round(_HELD_OUT_SHARE * len(prompts)))
    held_out = set(drawn(prompts, min(num_held_out, len(prompts) // 2), rng))
    learned = [row for row in mined.rows if row.example_id not in held_out]
    measured = [row for row in mined.rows if row.example_id in held_out and row.mode == MINED]
    references = [r for e in data.train_examples if e.id in held_out for r in reference_rows(e)]
    old = _mixed_in(data, {row.example_id for row in learned}, held_out, rng)
    seen = _some(data, config.reward.audit.num_prompts, rng)
    train = reward_groups(model, data.train_examples, [*old, *learned])
    validation = [
        *reward_groups(model, seen.validation_examples, seen.validation),
        *reward_groups(model, data.train_examples, [*references, *measured]),
    ]
    before, classes_before = _auc(model, [*references, *measured], data), mean_class_auc(model.raw, seen)
    config, repeats = _bounded(config, len(train))
    steps = optimize(config, model, train * repeats, validation, best=best, description="rl: reward")
    load_trainable(model, best)
    best.unlink()
    return Refresh(
        steps, mined.num_mined - len(measured), len(measured), before, _auc(model, [*references, *measured], data),
        classes_before, mean_class_auc(model.raw, seen),
    )  # fmt: skip


def _mixed_in(data: RewardData, taught: set[str], held_out: set[str], rng: np.random.Generator) -> list[Judged]:
    """The rows of the prompts that are taught, and those of as many others that are not held out."""
    others = sorted({row.example_id for row in data.train} - taught - held_out)
    chosen = taught | set(drawn(others, len(taught), rng))
    return [row for row in data.train if row.example_id in chosen]


def _some(data: RewardData, num_prompts: int, rng: np.random.Generator) -> RewardData:
    """The validation rows of at most so many documents."""
    ids = set(drawn(sorted({row.example_id for row in data.validation}), num_prompts, rng))
    kept = [row for row in data.validation if row.example_id in ids]
    return RewardData(data.train_examples, data.train, data.validation_examples, kept)


def _bounded(config: RunConfig, num_prompts: int) -> tuple[RunConfig, int]:
    """The recipe with the refresh's own reward steps in a few passes, and how often a pass takes each prompt."""
    steps = config.rl.guard.refresh.max_steps
    rounds = -(-steps * config.reward.prompts_per_batch // num_prompts)
    passes = min(rounds, _MOST_PASSES)
    reward = config.reward.model_copy(update={"num_epochs": passes, "max_steps": steps})
    return config.model_copy(update={"reward": reward}), -(-rounds // passes)


def _auc(model: RewardModel, judged: Sequence[Judged], data: RewardData) -> float:
    """The AUC of references over the mined negatives among the rows."""
    scores = model.raw(paired(judged, data.train_examples), [row.completion for row in judged])
    auc = class_aucs(judged, scores)[MINED]
    assert auc is not None, "every mined prompt has a reference"
    return auc
