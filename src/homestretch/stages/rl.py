"""Stage 4: { rollouts > reward > advantages > update }, with validation, and the best held-out checkpoint shipped."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.algorithms.guard import Guard, Observation
from homestretch.algorithms.learner import Learner, UpdateStats
from homestretch.checkpoint import load_trainable
from homestretch.config import RunConfig
from homestretch.console import progress, say, warn
from homestretch.data import Splits, load_splits
from homestretch.encoding import encoded_pairs
from homestretch.metrics import build_selection
from homestretch.models import (
    LanguageModel,
    add_lora,
    frozen_copy,
    load_language_model,
    narrow_frozen,
    save_language_model,
)
from homestretch.refresh import Evidence, gather, refresh, refresh_best_path, why_not
from homestretch.rewards.composition import RewardComposition, checked
from homestretch.rewards.ensemble import LearnedReward
from homestretch.rewards.length import word_counts
from homestretch.rewards.reward_model import attach_reward_model, can_share_trunk, load_reward_model
from homestretch.rollouts.collect import collect, prompt_batches
from homestretch.rollouts.sampler import generate
from homestretch.rollouts.slots import supports_slots
from homestretch.rundir import RunDir, append_jsonl
from homestretch.scorers import build_reward, build_statistics, lost_judges, reference_bands
from homestretch.training import MemoryBudget, TrainingError, free_memory, is_out_of_memory, set_up_torch
from homestretch.types import Completion, Example, Rollout, Scorer

_SAMPLES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Validation:
    """What is looked at every few updates."""

    examples: tuple[Example, ...]
    selection: Scorer
    held_out: LearnedReward | None
    statistics: Mapping[str, Scorer]
    budget: MemoryBudget
    """Completions decoded at once."""


@dataclass(slots=True)
class _Session:
    """What the loop goes on with: what changes is in the learner, in the guard's state, and in the last fields here."""

    config: RunConfig
    rundir: RunDir
    splits: Splits
    learner: Learner
    validation: _Validation
    guard: Guard
    reward: RewardComposition
    """What is paid; another one after a refresh."""
    reward_dir: Path
    """Where its learned part is written."""
    num_refreshes: int = 0
    """Alarms so far that the learned part was to learn from."""
    best_completions: list[Completion] = field(default_factory=list)
    """Of the validation examples, by the best checkpoint."""
    tokens: Counter[str] = field(default_factory=Counter)
    """What all updates sampled, scored and trained on (`_tokens`)."""


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write run/policy/ and samples.jsonl; returns which update was kept, why RL stopped, and the alarms.

    On a TrainingError nothing bad was applied: run/policy/ is then the best checkpoint so far, and the message says so.
    """
    set_up_torch(config)
    splits = load_splits(config)
    rundir.rl_samples_path.unlink(missing_ok=True)
    shutil.rmtree(rundir.refresh_dir, ignore_errors=True)
    refresh_best_path(rundir).unlink(missing_ok=True)
    for warning in lost_judges(config, splits.train):
        warn(warning)
    session = _session(config, rundir, load_models(config, rundir), splits)
    _watch(session, 0, 0.0)
    guard = session.guard
    try:
        update, stopped = _train(session, [*splits.train, *splits.prompts])
    except TrainingError as error:
        _ship_best(config, rundir, session.learner)
        kept = f"the best checkpoint so far (update {guard.best_update}) is in {rundir.policy_dir}"
        raise TrainingError(f"{error}; {kept}") from error
    _ship_best(config, rundir, session.learner)
    say(f"rl: stopped after update {update} ({stopped}); kept update {guard.best_update}")
    if guard.best_update == 0:
        say("rl: no update beat the SFT model on the held-out metrics, so policy/ is the SFT model")
    alarms = [asdict(alarm) for alarm in guard.state.alarms]
    done = {"updates": update, "kept_update": guard.best_update, "stopped": stopped, "alarms": alarms}
    return done | dict(session.tokens)


def _session(config: RunConfig, rundir: RunDir, models: Models, splits: Splits) -> _Session:
    reward = build_reward(config, models.reward, models.reward.calibration.floor, splits.train)
    statistics = build_statistics(config, splits.train, reward.length_model)
    validation = _Validation(
        splits.validation[: config.rl.max_validation_examples],
        build_selection(config, splits.train),
        models.held_out,
        statistics,
        MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size"),
    )
    guard = Guard(
        config.rl.guard,
        num_validations=-(-config.rl.num_updates // config.rl.validate_every),
        bands=reference_bands(statistics, splits.train, config.seed),
    )
    learner = _learner(config, models, splits.train)
    return _Session(config, rundir, splits, learner, validation, guard, reward, rundir.reward_dir)


def _train(session: _Session, prompts: list[Example]) -> tuple[int, str]:
    """The updates, until they are done or the guard says stop; the last one's number, and why it was the last."""
    config, rundir, learner = session.config, session.rundir, session.learner
    rng = np.random.default_rng([config.seed, 4])
    batches = prompt_batches(prompts, config.rl.prompts_per_update, rng)
    budget = MemoryBudget(config.rl.sampling.batch_size, "rl.sampling.batch_size")
    with progress("rl", config.rl.num_updates) as advance:
        for update in range(1, config.rl.num_updates + 1):
            start = time.perf_counter()
            rollouts = collect(
                learner.lm, session.reward, next(batches), config.rl,
                max_new_tokens=config.data.max_completion_tokens, seed=int(rng.integers(2**31)), budget=budget,
            )  # fmt: skip
            collected, beta = time.perf_counter(), learner.beta
            stats = learner.update(rollouts, rng)
            times = {"rl/seconds_rollout": collected - start, "rl/seconds_update": time.perf_counter() - collected}
            rundir.log_metrics("rl", update, _metrics(rollouts, stats, beta, session.reward) | times)
            session.tokens.update(_tokens(rollouts, stats.num_steps, config.rl.num_minibatches))
            advance(1)
            if update % config.rl.validate_every and update < config.rl.num_updates:
                continue
            if reason := _watch(session, update, stats.kl):
                return update, reason
    return config.rl.num_updates, "all updates done"


def _watch(session: _Session, update: int, kl: float) -> str | None:
    """Validate and do what the guard says: keep the checkpoint, answer an alarm. Returns why RL should end, if so."""
    observation, completions, row = _validate(session, update, kl)
    verdict = session.guard.observe(observation)
    session.rundir.log_metrics("rl", update, row | {"validation/alarms": len(session.guard.state.alarms)})
    if verdict.is_best:
        session.learner.save(_best_path(session.rundir))
        session.best_completions = completions
    if verdict.alarm:
        say(f"rl: ALARM after update {update}, {verdict.alarm.action}: {verdict.alarm.sentence}")
        if verdict.alarm.action == "rolled back":
            _answer(session, update)
    return verdict.stop


def _answer(session: _Session, update: int) -> None:
    """What is done between an alarm and the next update: back to the best checkpoint, and what the reward learns."""
    config, guard = session.config, session.guard
    sentence = why_not(config, session.reward.reward, num_done=session.num_refreshes, update=update)
    evidence = None
    if sentence is None:
        try:
            evidence = gather(session.learner.lm, config, session.rundir, session.splits, update=update)
        except (TrainingError, RuntimeError) as error:
            sentence = _excuse(error)
    session.learner.roll_back(_best_path(session.rundir), beta_factor=config.rl.guard.beta_factor)
    say(f"rl: back to update {guard.best_update}; KL weight {session.learner.beta:.4g} from now on, and no less")
    if evidence is not None:
        sentence = _refresh(session, evidence)
    guard.answered(sentence or "")
    say(f"rl: {sentence}")


def _refresh(session: _Session, evidence: Evidence) -> str:
    """Have the reward learn from the evidence; if that did it good, RL is paid by the new one from now on.

    The guard then compares with the best checkpoint as the new reward sees it. Returns what came of it, in words.
    """
    config, rundir, learner = session.config, session.rundir, session.learner
    session.num_refreshes += 1
    try:
        lesson = refresh(
            config, rundir, session.splits, evidence, reward=session.reward.reward, start=session.reward_dir,
            folder=rundir.refresh_dir / str(session.num_refreshes),
        )  # fmt: skip
        if lesson.path is None:
            return lesson.sentence
        name = f"refreshed_{session.num_refreshes}"
        reward = load_reward(learner.frozen or learner.lm, lesson.path, config, name=name)
        paid = replace(session.reward, reward=reward, floor=reward.calibration.floor)
        best_scores = paid(session.validation.examples, session.best_completions).scores
    except (TrainingError, RuntimeError) as error:
        return _excuse(error)
    session.reward, session.reward_dir = paid, lesson.path
    session.guard.rescored(best_scores)
    return lesson.sentence


def _excuse(error: TrainingError | RuntimeError) -> str:
    """Why the reward does not learn, in words, if a training that fails or too little memory for it is the reason.

    RL can go on with the reward that it has, so these do not end it. Any other error is raised again.
    """
    if not isinstance(error, TrainingError) and not is_out_of_memory(error):
        raise error
    free_memory()
    return f"the learned reward stays as it is: training it on failed ({str(error).splitlines()[0]})"


def _best_path(rundir: RunDir) -> Path:
    return rundir.path / ".rl-best.safetensors"


def _ship_best(config: RunConfig, rundir: RunDir, learner: Learner) -> None:
    """Write run/policy/ from the best checkpoint. Neither the learner nor its reference may be used after."""
    lm = learner.lm
    if config.model.lora:
        lm.model.to("meta")  # free: its frozen weights may be in bfloat16, and merging wants all their digits
        lm = add_lora(load_language_model(rundir.sft_dir, config), config.model.lora, config.seed)
    load_trainable(lm.model, _best_path(rundir))
    save_language_model(lm, rundir.policy_dir)
    _best_path(rundir).unlink()


@dataclass(frozen=True, slots=True)
class Models:
    """What RL computes with. They share trunks where they can: one in all with `model.lora`, else two."""

    policy: LanguageModel
    frozen: LanguageModel | None
    """The reference; None: the policy's trunk with its adapters off."""
    reward: LearnedReward
    """On the trunk of the reference where it is adapters on the SFT model; else a model of its own, or several."""
    held_out: LearnedReward | None = None
    """Likewise; None where the recipe asks for none."""


def load_models(config: RunConfig, rundir: RunDir) -> Models:
    """The SFT model as policy and as reference, the reward, and the held-out one."""
    policy, frozen = load_language_model(rundir.sft_dir, config), None
    if config.model.lora:
        policy = add_lora(policy, config.model.lora, config.seed)
        supports_slots(policy)  # the sampler tries this once, in float32
    else:
        frozen = frozen_copy(policy)
    reward = load_reward(frozen or policy, rundir.reward_dir, config)
    if frozen is not None and can_share_trunk(rundir.reward_dir):
        frozen = reward.lm
    held_out = None
    if rundir.held_out_reward_dir.is_dir():
        held_out = load_reward(frozen or policy, rundir.held_out_reward_dir, config, name="held_out")
    for lm in (policy, frozen):
        if lm is not None:
            narrow_frozen(lm.model, lm.dtype)
    return Models(policy, frozen, reward, held_out)


def load_reward(trunk: LanguageModel, path: Path, config: RunConfig, *, name: str = "reward") -> LearnedReward:
    """The reward at `path`: on this trunk, under `name`, where it is adapters on it; else one of its own."""
    if not can_share_trunk(path):
        return load_reward_model(path, config)
    reward = attach_reward_model(trunk, path, config, name=name)
    narrow_frozen(reward.lm.model, reward.lm.dtype)
    return reward


def _learner(config: RunConfig, models: Models, train: tuple[Example, ...]) -> Learner:
    references = encoded_pairs(models.policy.codec, train)[0] if config.rl.sft_mix.coefficient else []
    return Learner(models.policy, models.frozen, config.rl, references=references)


def _tokens(rollouts: Sequence[Rollout], num_steps: int, num_minibatches: int) -> dict[str, int]:
    """What an update took, a group's prompt counted once: forward only are old policy, reference and reward."""
    prompts = {r.prompt_ids for r in rollouts}
    sampled = sum(len(r.completion_ids) for r in rollouts)
    passed = sampled + sum(map(len, prompts))
    num_epochs = num_steps / min(num_minibatches, len(prompts))
    return {"sampled_tokens": sampled, "scored_tokens": 3 * passed, "trained_tokens": round(num_epochs * passed)}


def _metrics(rollouts: list[Rollout], stats: UpdateStats, beta: float, reward: RewardComposition) -> dict[str, float]:
    completions = [r.completion for r in rollouts]
    expected = reward.length_model.expected([r.example for r in rollouts])
    row = {
        "rl/score": float(np.mean([r.score for r in rollouts])),
        "rl/terminated": float(np.mean([c.terminated for c in completions])),
        "rl/length_ratio": float(np.mean((word_counts(completions) + 1) / (expected + 1))),
        "rl/beta": beta,
    }
    row |= _means({f"rl/{term}": np.array([r.terms[term] for r in rollouts]) for term in rollouts[0].terms})
    return row | {f"rl/{name}": float(value) for name, value in asdict(stats).items() if value is not None}


def _means(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Over what is defined; what is nowhere is left out."""
    return {name: float(np.nanmean(found)) for name, found in values.items() if not np.isnan(found).all()}


def _validate(session: _Session, update: int, kl: float) -> tuple[Observation, list[Completion], dict[str, float]]:
    """Complete the validation examples greedily and keep a few samples.

    What the guard sees, the completions, and the means to log.
    """
    config, validation = session.config, session.validation
    examples = validation.examples
    rows = generate(
        session.learner.lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=validation.budget, description="rl: validation",
    )  # fmt: skip
    completions = [row[0] for row in rows]
    scores = validation.selection(examples, completions)
    scored = session.reward(examples, completions)
    held_out = np.zeros(0)
    if validation.held_out is not None:
        held_out = checked(validation.held_out(examples, completions), len(examples), "validation/held_out_reward")
    expected = session.reward.length_model.expected(examples)
    statistics = {name: scorer(examples, completions) for name, scorer in validation.statistics.items()}
    row = {
        "validation/selection": float(scores.mean()),
        "validation/score": float(scored.scores.mean()),
        "validation/terminated": float(np.mean([c.terminated for c in completions])),
        "validation/length_ratio": float(np.mean((word_counts(completions) + 1) / (expected + 1))),
    }
    if len(held_out):
        row["validation/held_out_reward"] = float(held_out.mean())
    row |= _means({f"validation/{name}": values for name, values in (*scored.terms.items(), *statistics.items())})
    say(f"rl: update {update}: " + ", ".join(f"{name.partition('/')[2]} {value:.3f}" for name, value in row.items()))
    for example, completion, score in list(zip(examples, completions, scores, strict=True))[:_SAMPLES_SHOWN]:
        sample = {"text": completion.text, "terminated": completion.terminated, "score": float(score)}
        shown = {"update": update, "id": example.id, "source": example.source, **sample}
        append_jsonl(session.rundir.rl_samples_path, shown)
    return Observation(update, scores, scored.scores, held_out, statistics, kl), completions, row
