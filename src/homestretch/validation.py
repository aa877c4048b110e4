"""Everything that can be known to be wrong with a run before a model's weights are loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from homestretch.config import DataConfig, RunConfig
from homestretch.data import SPLITS, Splits, evaluation_examples, load_splits
from homestretch.finder import load_find
from homestretch.inspection import (
    InspectedModel,
    check_encoder_score,
    check_model_folder,
    checked_family,
    first_line,
    inspect_model,
    is_encoder,
    max_positions,
    read_model_config,
    read_tokenizer,
)
from homestretch.recipe import differences, load_recipe
from homestretch.rundir import STAGES, RunDir
from homestretch.types import Completion, Example, Scorer, UserError

_COPIES = 5
"""Models on disk at the fullest moment: sft, its best checkpoint, reward, policy or a refreshed reward, and the one
being written."""
_TRIED_EXAMPLES = 20
"""Train examples on which the user's own failure modes and scorers are tried."""


def validate(config: RunConfig, allowed_changes: Sequence[str] = ()) -> list[str]:
    """All problems of a run, one line each: data, model folder, tokenizer, lengths, names, run directory, disk.

    No model weights are loaded. `allowed_changes` are prefixes of keys that may differ from the recipe the run
    directory was begun with.
    """
    problems: list[str] = []

    def attempt(check: Callable[[], Any]) -> Any:
        try:
            return check()
        except UserError as error:
            problems.extend(line for line in str(error).splitlines() if line not in problems)
            return None

    attempt(lambda: _check_run_dir(config))
    problems.extend(changed_recipe(config, allowed_changes))
    splits = attempt(lambda: load_splits(config))
    if splits is not None:
        attempt(lambda: evaluation_examples(config, splits))
    # Without a finder, neither modes nor metrics can be tried: its message is enough.
    tried = splits if attempt(lambda: load_find(config.data.entities)) else None
    attempt(lambda: _check_failure_modes(config, tried))
    if tried is not None:
        attempt(lambda: _check_ensemble(config, tried))
        attempt(lambda: _check_metrics(config, tried))
        attempt(lambda: _check_terms(config, tried))
    attempt(lambda: _check_device(config))
    if config.reward.backbone != "sft":
        attempt(lambda: _check_backbone(config))
    model = attempt(lambda: inspect_model(config, splits.train if splits is not None else ()))
    if model is not None:
        for check in (_check_family, _check_terminator, _check_vocabulary, _check_positions, _check_disk):
            attempt(lambda check=check: check(model, config))  # type: ignore[misc]
        if splits is not None and model.can_terminate:
            attempt(lambda: _check_template(model, config, splits.train[0]))
    return problems


# --- the run directory -----------------------------------------------------------------------------------------------


def _check_run_dir(config: RunConfig) -> None:
    place = _existing(config.run_dir)
    if not place.is_dir():
        raise UserError(f"output_dir: {config.run_dir}: {place} is a file; give another output_dir or name")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"output_dir: {config.run_dir}: {place} may not be written to; give another output_dir")


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def changed_recipe(config: RunConfig, allowed_changes: Sequence[str] = ()) -> list[str]:
    """What differs from the recipe that the run directory was begun with, and the way out; empty if nothing does.

    Keys that begin with one of `allowed_changes` may differ, but for `evaluate.selection_metrics`, which earlier
    stages used as well.
    """
    rundir = RunDir(config.run_dir)
    path = rundir.config_path
    if not path.exists():
        done = [stage for stage in STAGES if rundir.is_done(stage)]
        lost = f"{path}: is not there, so nobody knows what recipe {', '.join(done)} here were made with"
        return [f"{lost}; put it back, or give this run a new name (name=...)"] if done else []
    try:
        changes = differences(load_recipe(path), config)
    except UserError as error:
        why = str(error).splitlines()[0]
        return [f"{path}: this version cannot read the run's recipe ({why}); give this run a new name (name=...)"]
    shared = "evaluate.selection_metrics"
    refused = [c for c in changes if c.startswith(shared) or not c.startswith(tuple(allowed_changes))]
    if not refused:
        return []
    ways = ["undo the change to continue it", "give the new run a new name (name=...)"]
    sections = {change.partition(".")[0] for change in refused}
    of_other_stages = any(change.startswith((shared, "reward.gate.")) for change in refused)
    if len(sections) == 1 and not of_other_stages and (stage := sections.pop()) in STAGES and rundir.is_done(stage):
        ways.insert(1, f"make that stage again (`homestretch {stage}`)")
    return [f"{path}: this run was made with another recipe: {'; '.join(refused)}; {', or '.join(ways)}"]


# --- names -----------------------------------------------------------------------------------------------------------


def _check_failure_modes(config: RunConfig, splits: Splits | None) -> None:
    """Every mode's class, also of those that `exclude` keeps from training: they judge outputs all the same.

    The user's own modes are tried on a few examples, so that a mistake in one is told before anything is trained.
    """
    from homestretch.failures import mode_classes, mode_names
    from homestretch.rewards.judged import OWN_CLASSES

    names = dict.fromkeys((*mode_names(config.negatives), *config.negatives.include))
    try:
        taken = [found.name for found in mode_classes(names) if found.name in OWN_CLASSES]
    except UserError as error:
        raise UserError("\n".join(f"negatives: {line}" for line in str(error).splitlines())) from error
    if taken:
        raise UserError(f"negatives: failure mode {taken[0]!r}: a class of ours has this name; give it another")
    if splits is not None:
        _try_own_modes(config, splits)


def _try_own_modes(config: RunConfig, splits: Splits) -> None:
    from homestretch.failures import FAILURE_MODES, build_modes
    from homestretch.types import Corpus

    own = [name for name in config.negatives.include if name not in FAILURE_MODES]
    for mode in build_modes(own, Corpus(splits.train, config.seed, config.data.entities)):
        rng = np.random.default_rng(config.seed)
        for example in splits.train[:_TRIED_EXAMPLES]:
            edit = mode.corrupt(example, rng)
            made = [] if edit is None else [edit.completion]
            for completion in (Completion(example.reference), Completion("", terminated=False), *made):
                mode.detect(example, completion)
                mode.repair(example, completion)


def _check_ensemble(config: RunConfig, splits: Splits) -> None:
    """Whether its members can each be trained without another class; those that apply to no example come on top."""
    from homestretch.failures import task_mode_names
    from homestretch.rewards.judged import ON_POLICY
    from homestretch.rewards.leave_out import ensemble_folds

    if config.reward.ensemble.num_members > 1:
        negatives = config.negatives
        samples_own = negatives.preset == "full" and negatives.on_policy.samples_per_prompt > 0
        classes = [*task_mode_names(negatives, splits.train), *([ON_POLICY] if samples_own else [])]
        ensemble_folds(classes, config.reward.ensemble.num_members)


def _check_metrics(config: RunConfig, splits: Splits) -> None:
    from homestretch.metrics import build_metrics
    from homestretch.metrics.contrasts import primary_names

    try:
        metrics = build_metrics(config, splits.train)
        primary_names(metrics, config.evaluate.primary_metrics)
        for metric in metrics:
            _try_scorer(metric.scorer, splits, nothing=Completion("", terminated=False))
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith("evaluate") else f"evaluate: {message}") from error


def _check_terms(config: RunConfig, splits: Splits) -> None:
    from homestretch.scorers import build_terms

    if config.rl.terms:
        for term in build_terms(config, splits.train):
            _try_scorer(term, splits, nothing=Completion("", logprobs=(-1.0,)))


def _try_scorer(scorer: Scorer, splits: Splits, *, nothing: Completion) -> None:
    """Call it on a few references as if they had been sampled, and on `nothing` written.

    So that a fault in it is told before anything is trained.
    """
    examples = splits.train[:_TRIED_EXAMPLES]
    lengths = [1 + len(example.reference.split()) for example in examples]
    sampled = [
        Completion(example.reference, ids=tuple(range(length)), logprobs=(-1.0,) * (length + 1))
        for example, length in zip(examples, lengths, strict=True)
    ]
    scorer(examples, sampled)
    scorer(examples[:1], [nothing])


def _check_device(config: RunConfig) -> None:
    from homestretch.models import resolve_device

    resolve_device(config)


# --- the model -------------------------------------------------------------------------------------------------------


def _check_family(model: InspectedModel, config: RunConfig) -> None:
    checked_family(f"{_key(model)}: {model.name}", model.config)


def _check_terminator(model: InspectedModel, config: RunConfig) -> None:
    if model.tokenizer is not None and not model.can_terminate:
        raise UserError(
            f"{_key(model)}: {model.name}: the tokenizer has no EOS token, so no output could end; "
            "set `eos_token` in its tokenizer_config.json"
        )


def _check_vocabulary(model: InspectedModel, config: RunConfig) -> None:
    if model.tokenizer is None:
        return
    top = max(model.tokenizer.get_vocab().values()) + 1
    for part in _parts(model.config):
        size = getattr(part, "vocab_size", None)
        if size is not None and top > size:
            raise UserError(
                f"{_key(model)}: {model.name}: the tokenizer has ids up to {top - 1}, the model's vocabulary ends at "
                f"{size - 1}; they do not belong together"
            )


def _check_positions(model: InspectedModel, config: RunConfig) -> None:
    _check_fit(model.name, model.config, config.data)


def _check_backbone(config: RunConfig) -> None:
    path = config.reward.backbone
    check_model_folder("reward.backbone", path)
    backbone = read_model_config("reward.backbone", path)
    read_tokenizer("reward.backbone", path)
    if is_encoder(backbone):
        check_encoder_score(config, backbone)
    _check_fit(f"reward.backbone {path}", backbone, config.data)


def _check_fit(name: str, model_config: Any, data: DataConfig) -> None:
    """Prompt and completion must find a place, and one more token: what the reward reads stands behind the last."""
    prompt, completion = data.max_prompt_tokens, data.max_completion_tokens
    if not getattr(model_config, "is_encoder_decoder", False):
        limit = max_positions(model_config)
        if limit is not None and prompt + completion + 1 > limit:
            raise UserError(
                f"data.max_prompt_tokens + data.max_completion_tokens + 1 = {prompt + completion + 1} is more than the "
                f"{limit} positions of {name}; set data.max_prompt_tokens={max(1, limit - completion - 1)} or less"
            )
        return
    encoder, decoder = (_parts(model_config) * 2)[:2]
    for key, tokens, part, extra in (
        ("max_prompt_tokens", prompt, encoder, 0), ("max_completion_tokens", completion, decoder, 1),
    ):  # fmt: skip
        limit = max_positions(part)
        if limit is not None and tokens + extra > limit:
            raise UserError(
                f"data.{key}{' + 1' * extra} = {tokens + extra} is more than the {limit} positions of {name}; "
                f"set data.{key}={limit - extra} or less"
            )


def _parts(model_config: Any) -> list[Any]:
    """The encoder's and the decoder's config of a composite model, else the one config."""
    parts = [getattr(model_config, name, None) for name in ("encoder", "decoder")]
    found = [part for part in parts if hasattr(part, "model_type")]
    return found or [model_config]


def _check_template(model: InspectedModel, config: RunConfig, example: Example) -> None:
    """The template alone, without a document, must fit into a prompt; a chat template must be there if it is used."""
    from jinja2 import TemplateError

    try:
        _codec(model, config).encode_bare_prompt(example)
    except UserError as error:
        raise UserError(f"data.template: {error}") from error
    except (ValueError, TemplateError) as error:
        raise UserError(f"data.chat_template: {model.name}: {first_line(error)}") from error


def _codec(model: InspectedModel, config: RunConfig) -> Any:
    from homestretch.encoding import Codec

    return Codec(model.tokenizer, "seq2seq" if model.family == "seq2seq" else "causal", config.data)


def _check_disk(model: InspectedModel, config: RunConfig) -> None:
    if model.num_bytes is None:
        return
    place = _existing(config.run_dir)
    copies = _COPIES + config.reward.ensemble.num_members - 1 + len(config.baselines.trained_arms)
    copies += bool(config.reward.held_out.prompt_share)
    needed, free = model.num_bytes * copies, shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"output_dir: {config.output_dir}: {free / 2**30:.1f} GiB free, and this run writes about "
            f"{needed / 2**30:.1f} GiB; free some space or set output_dir to another disk"
        )


def _key(model: InspectedModel) -> str:
    return "model.new" if model.name == "model.new" else "model.path"


# --- a summary of what is fine ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SplitLengths:
    """Counts and token lengths of one split."""

    split: str
    num_examples: int
    prompt_tokens: tuple[int, int, int] | None
    """Median, 95th percentile and longest, after cutting; None for an empty split."""
    num_cut_prompts: int
    """Prompts whose document is cut at `data.max_prompt_tokens`."""
    reference_tokens: tuple[int, int, int] | None
    """The same of the references, EOS included."""
    num_cut_references: int
    """References longer than `data.max_completion_tokens`."""


def split_lengths(config: RunConfig) -> Iterator[SplitLengths]:
    """Lengths of every split, with the tokenizer of the run. Raises UserError as `validate` reports."""
    splits = load_splits(config)
    model = inspect_model(config, splits.train)
    codec = _codec(model, config)
    for split in SPLITS:
        examples: Sequence[Example] = getattr(splits, split)
        prompts = [codec.encode_prompt(example) for example in examples]
        references = [codec.encode_completion(Completion(r)) for example in examples for r in example.references]
        yield SplitLengths(
            split=split,
            num_examples=len(examples),
            prompt_tokens=_spread([len(prompt.ids) for prompt in prompts]),
            num_cut_prompts=sum(prompt.was_cut for prompt in prompts),
            reference_tokens=_spread([len(ids) for ids in references]),
            num_cut_references=sum(ids[-1] != codec.eos_id for ids in references),
        )


def _spread(lengths: Sequence[int]) -> tuple[int, int, int] | None:
    if not lengths:
        return None
    return (int(np.median(lengths)), int(np.percentile(lengths, 95)), max(lengths))
