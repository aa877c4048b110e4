"""Stage 2: references and edited references as positives, made failures and own bad samples as negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from homestretch.config import RunConfig
from homestretch.console import progress, say, table, warn
from homestretch.data import load_splits
from homestretch.failures import SLOT_MODES, build_modes, task_mode_names
from homestretch.failures.positives import edited_positive
from homestretch.metrics.overlap import chrf, rouge_l
from homestretch.metrics.scoring import MetricContext
from homestretch.ops.drawing import drawn
from homestretch.ops.slots import SlotLexicon, slot_lexicon
from homestretch.rewards.judged import (
    OWN_CLASSES,
    balanced_negatives,
    edited_reference,
    judged_to_row,
    negative,
    reference_rows,
    stable_seed,
)
from homestretch.rewards.on_policy import judge_samples
from homestretch.rewards.own_samples import judged_samples, sample_at_temperatures
from homestretch.rundir import RunDir, write_jsonl
from homestretch.types import Corpus, Example, FailureMode, Judged, Scorer, UserError

EXAMPLES_PER_CLASS = 3


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write negatives/train.jsonl and negatives/validation.jsonl and return the counts per class.

    Raises UserError when no negative could be made: there is nothing to learn a reward from.
    """
    splits = load_splits(config)
    corpus = Corpus(splits.train, config.seed, config.data.entities)
    modes = build_modes(task_mode_names(config.negatives, splits.train), corpus)
    if any(mode.name in SLOT_MODES for mode in modes):
        _say_unchecked(slot_lexicon(splits.train, config.seed))
    makers = [mode for mode in modes if "corrupt" in mode.faces()]
    _check_names(modes)
    settings = config.negatives
    validation = drawn(splits.validation, settings.max_validation_examples, _rng(config, "validation"))
    rows = {
        "train": train_rows(splits.train, makers, config),
        "validation": validation_rows(validation, makers, config),
    }
    if not any(row.label == 0 for row in rows["train"]):
        raise UserError(
            f"negatives: none of {', '.join(m.name for m in makers) or 'the modes'} applies to any train example "
            "(an edit that gives back a reference does not count), so there is nothing to learn a reward from: "
            "add failure modes with `negatives.include`, or check that the references are whole texts"
        )
    unused = [mode.name for mode in makers if not any(row.mode == mode.name for row in rows["train"])]
    summary: dict[str, Any] = {"modes_that_never_apply": unused}
    if settings.preset == "full" and settings.on_policy.samples_per_prompt > 0:
        prompts = drawn(splits.train, settings.on_policy.max_prompts, _rng(config, "on-policy prompts"))
        context = MetricContext(config, splits.train)
        sampled, summary["on_policy"] = on_policy_rows(
            {"train": prompts, "validation": validation},
            modes,
            (rouge_l(context).scorer, chrf(context).scorer),
            config,
            rundir,
        )
        rows = {split: _by_example(rows[split] + sampled[split]) for split in rows}
    for split, judged in rows.items():
        write_jsonl(rundir.negatives_dir / f"{split}.jsonl", map(judged_to_row, judged))
        summary[split] = dict(sorted(Counter(row.mode for row in judged).items()))
    _print(rows, unused)
    return summary


def _rng(config: RunConfig, purpose: str) -> np.random.Generator:
    return np.random.default_rng(stable_seed(config.seed, purpose))


def train_rows(examples: Sequence[Example], makers: Sequence[FailureMode], config: RunConfig) -> list[Judged]:
    """Positives and `per_example` negatives of every example, balanced over the modes."""
    counts: Counter[str] = Counter()
    rows: list[Judged] = []
    with progress("negatives (train)", len(examples)) as advance:
        for example in examples:
            edited = _edited(example, config)
            made = balanced_negatives(
                example, makers, counts, per_example=config.negatives.per_example, seed=config.seed, edited=edited
            )
            counts.update(row.mode for row in made)
            rows += [*_positives(example, edited), *made]
            advance(1)
    return rows


def validation_rows(examples: Sequence[Example], makers: Sequence[FailureMode], config: RunConfig) -> list[Judged]:
    """Positives and one negative of every mode that applies, for every example."""
    rows: list[Judged] = []
    with progress("negatives (validation)", len(examples)) as advance:
        for example in examples:
            edited = _edited(example, config)
            made = (negative(example, mode, seed=config.seed, edited=edited) for mode in makers)
            rows += [*_positives(example, edited), *(row for row in made if row is not None)]
            advance(1)
    return rows


def on_policy_rows(
    prompts: Mapping[str, Sequence[Example]],
    modes: Sequence[FailureMode],
    overlaps: tuple[Scorer, Scorer],
    config: RunConfig,
    rundir: RunDir,
) -> tuple[dict[str, list[Judged]], dict[str, dict[str, int]]]:
    """Per split: rows of the SFT model's own samples that the rule calls bad or good, and the rule's counts."""
    from homestretch.models import load_language_model

    settings = config.negatives.on_policy
    lm = load_language_model(rundir.sft_dir, config)
    rows: dict[str, list[Judged]] = {}
    counts: dict[str, dict[str, int]] = {}
    for split, examples in prompts.items():
        samples = sample_at_temperatures(lm, examples, config, description=f"own samples ({split})")
        asked, answers = [sample.example for sample in samples], [sample.completion for sample in samples]
        rouge_l, chrf = overlaps[0](asked, answers), overlaps[1](asked, answers)
        verdicts = judge_samples(
            asked,
            answers,
            modes,
            (rouge_l, chrf),
            bad_fraction=settings.bad_fraction,
            good_fraction=settings.good_fraction,
        )
        rows[split] = judged_samples(samples, verdicts, rouge_l, chrf)
        counts[split] = {"samples": len(samples), **Counter(verdict.verdict for verdict in verdicts)}
        counts[split]["unterminated"] = sum(not answer.terminated for answer in answers)
    return rows, counts


def _edited(example: Example, config: RunConfig) -> Judged | None:
    return edited_reference(example, edited_positive, rate=config.negatives.edited_share, seed=config.seed)


def _positives(example: Example, edited: Judged | None) -> list[Judged]:
    return [*reference_rows(example), *([] if edited is None else [edited])]


def _by_example(rows: Sequence[Judged]) -> list[Judged]:
    """Rows of one example together, examples in the order they first occur, so that a person can read the file."""
    groups: dict[str, list[Judged]] = {}
    for row in rows:
        groups.setdefault(row.example_id, []).append(row)
    return [row for group in groups.values() for row in group]


def _say_unchecked(lexicon: SlotLexicon) -> None:
    unused, reworded = lexicon.unchecked()
    if unused:
        say(f"slots: {_listed(unused)}: seldom written as in the document, so neither corrupted nor checked")
    if reworded:
        say(f"slots: {_listed(reworded)}: often said in other words, so never taken for missing")


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_names(modes: Sequence[FailureMode]) -> None:
    for mode in modes:
        if mode.name in OWN_CLASSES:
            raise UserError(f"failure mode {mode.name!r}: this name is taken by a class of our own: rename it")


def _print(rows: Mapping[str, Sequence[Judged]], unused: Sequence[str]) -> None:
    counts = {split: Counter(row.mode for row in judged) for split, judged in rows.items()}
    first = {row.mode: row for judged in rows.values() for row in judged}
    names = sorted(first, key=lambda name: (-first[name].label, name))
    cells = [
        [
            name,
            "good" if first[name].label > 0.5 else "bad",
            str(counts["train"][name]),
            str(counts["validation"][name]),
        ]
        for name in names
    ]
    table("Labelled completions", ["class", "label", "train", "validation"], cells)
    for name in names:
        say(f"{name}:")
        for row in [row for row in rows["train"] if row.mode == name][:EXAMPLES_PER_CLASS]:
            say(f"  {excerpt(row)}")
    for name in unused:
        warn(f"negatives: {name} applies to no train example, so the reward does not learn this failure")


def excerpt(row: Judged, width: int = 100) -> str:
    """The text around the edited span, the span in [[ ]], cut to about `width` characters; then the note.

    An unterminated text ends in the sign "(no end)", so that a missing terminator can be seen.
    """
    text, (start, end) = row.completion.text, row.span
    is_part = (start, end) not in ((0, 0), (0, len(text)))
    left = max(0, start - width // 2) if is_part and len(text) > width else 0
    marked = f"{text[left:start]}[[{text[start:end]}]]{text[end:]}" if is_part else text
    shown = " ".join(marked.split())
    shown = shown if len(shown) <= width else shown[: width - 3].rstrip() + "..."
    end_sign = "" if row.completion.terminated else " (no end)"
    note = " ".join(row.note.split())
    return f"{'...' if left else ''}{shown}{end_sign}" + (f"   <- {note}" if note else "")
