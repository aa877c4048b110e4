"""The answer to an alarm of the guard, as far as the reward goes: what it over-rates is mined, and it learns from that.

Works on what the policy that raised the alarm wrote, and on files; writes run/refresh/ROUND/ and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from homestretch.config import RunConfig
from homestretch.data import Splits
from homestretch.failures import build_modes, task_mode_names
from homestretch.metrics.overlap import chrf, rouge_l
from homestretch.metrics.scoring import MetricContext
from homestretch.models import LanguageModel, load_language_model
from homestretch.ops.drawing import drawn
from homestretch.rewards.judged import judged_to_row, stable_seed
from homestretch.rewards.own_samples import audit_samples
from homestretch.rewards.refresh import FEWEST_PROMPTS, Mined, Rule, mine, train_on
from homestretch.rewards.reward_model import RewardModel, resume_reward_model, save_reward_model
from homestretch.rewards.training import RewardData, calibrate_reward, read_reward_data
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir, write_json, write_jsonl
from homestretch.training import MemoryBudget
from homestretch.types import Completion, Corpus, Example, Scorer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the policy that raised an alarm writes for labelled prompts that the paid reward was trained on."""

    update: int
    data: RewardData
    prompts: Sequence[Example]
    samples: Sequence[Sequence[Completion]]
    """`samples[i]` answer `prompts[i]`."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of it."""

    sentence: str
    path: Path | None = None
    """The reward to be paid from now on; None: the one that was."""


def why_not(config: RunConfig, reward: Scorer, *, num_done: int, update: int) -> str | None:
    """Why the learned reward cannot learn from an alarm, whatever there is to learn; None if it can."""
    rounds = config.rl.guard.refresh.rounds
    if update >= config.rl.num_updates:
        return "the learned reward stays as it is: no update is left that it would be paid in"
    if num_done >= rounds:
        return f"the learned reward stays as it is (rl.guard.refresh.rounds={rounds})"
    if not config.rl.reward_weight:
        return "the learned reward stays as it is: it is not paid (rl.reward_weight=0); look at rl.terms"
    if not isinstance(reward, RewardModel):
        return "the learned reward stays as it is: only a single model is refreshed, and it is not one"
    return None


def gather(lm: LanguageModel, config: RunConfig, rundir: RunDir, splits: Splits, *, update: int) -> Evidence:
    """Sample the policy that raised the alarm, before it is taken back."""
    data, _ = read_reward_data(config, rundir, splits)
    known = {row.example_id for row in data.train}
    rng = np.random.default_rng(_seed(config, update))
    prompts = drawn([e for e in splits.train if e.id in known], config.rl.guard.refresh.num_prompts, rng)
    return Evidence(update, data, prompts, _sampled(lm, prompts, config, update, "rl: samples to learn from"))


def refresh(
    config: RunConfig, rundir: RunDir, splits: Splits, evidence: Evidence, *, reward: Scorer, start: Path, folder: Path
) -> Lesson:
    """Train the learned `reward`, which is written at `start`, on with what it over-rates in the evidence.

    Writes mined.jsonl, refresh.json and, if it did the reward good, reward/ into `folder`.
    """
    sft, update = load_language_model(rundir.sft_dir, config), evidence.update
    of_sft = _sampled(sft, evidence.prompts, config, update, "rl: samples of the SFT model")
    rule, note = _rule(config, splits), f"policy at update {update}"
    mined = mine(evidence.prompts, evidence.samples, of_sft, reward=reward, rule=rule, note=note)
    write_jsonl(folder / "mined.jsonl", map(judged_to_row, mined.rows))
    if len(mined.prompts) < FEWEST_PROMPTS:
        return Lesson(_too_little(mined, config))
    audited = splits.validation[: config.reward.audit.num_prompts]
    of_sft = audit_samples(sft, audited, config)
    del sft
    model, best = resume_reward_model(start, config, rundir.sft_dir), refresh_best_path(rundir)
    found = train_on(config, model, mined, evidence.data, seed=_seed(config, update), best=best)
    write_json(folder / "refresh.json", {"update": update, **asdict(found), "replaced": found.is_better})
    if not found.is_better:
        return Lesson(found.sentence)
    model.calibration = calibrate_reward(model.raw, evidence.data, audited, of_sft)
    save_reward_model(model, folder / "reward", on_sft=config.reward.backbone == "sft")
    return Lesson(found.sentence, folder / "reward")


def refresh_best_path(rundir: RunDir) -> Path:
    """Where the weights are while the reward trains on; nothing once that is over."""
    return rundir.path / ".refresh-best.safetensors"


def _seed(config: RunConfig, update: int) -> int:
    return stable_seed(config.seed, "refresh", update)


def _sampled(
    lm: LanguageModel, prompts: Sequence[Example], config: RunConfig, update: int, description: str
) -> list[list[Completion]]:
    """Samples of each prompt as rollouts are sampled, one list a prompt."""
    return generate(
        lm, prompts, max_new_tokens=config.data.max_completion_tokens, sampling=config.rl.sampling,
        batch_size=MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size"),
        num_samples=config.rl.guard.refresh.samples_per_prompt, seed=_seed(config, update), description=description,
    )  # fmt: skip


def _rule(config: RunConfig, splits: Splits) -> Rule:
    context = MetricContext(config, splits.train)
    corpus = Corpus(splits.train, config.seed, config.data.entities)
    modes = build_modes(task_mode_names(config.negatives, splits.train), corpus)
    return Rule(modes, rouge_l(context).scorer, chrf(context).scorer, config.negatives.on_policy)


def _too_little(mined: Mined, config: RunConfig) -> str:
    elsewhere = "; look at rl.terms" if config.rl.terms else ""
    return (
        f"the learned reward stays as it is: of {mined.num_samples} samples of this policy the rule calls "
        f"{mined.num_bad} bad, and the reward over-rates {mined.num_mined} of them, on {len(mined.prompts)} prompts "
        f"({FEWEST_PROMPTS} are needed){elsewhere}"
    )
