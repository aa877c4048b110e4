"""Labelled completions: drawing them from examples and failure modes, and their row in negatives/*.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from homestretch.types import Completion, Edit, Example, FailureMode, Judged, UserError

REFERENCE = "reference"
EDITED_REFERENCE = "edited_reference"
ON_POLICY = "on_policy"
ON_POLICY_POSITIVE = "on_policy_positive"
MINED = "mined"
POSITIVE_MODES = frozenset({REFERENCE, EDITED_REFERENCE, ON_POLICY_POSITIVE})
OWN_CLASSES = POSITIVE_MODES | {ON_POLICY, MINED}
"""Names that no failure mode may have."""


def stable_seed(*parts: str | int | float) -> int:
    """A seed in [0, 2**32) that depends on the parts alone: the same in every process and on every machine."""
    text = json.dumps(parts, ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def reference_rows(example: Example) -> list[Judged]:
    """The example's references as terminated positives."""
    return [Judged(example.id, Completion(text), REFERENCE, 1.0) for text in example.references]


def edited_reference(
    example: Example, edit: Callable[[Example, np.random.Generator], Edit | None], *, rate: float, seed: int
) -> Judged | None:
    """With probability `rate`, the reference after the truth-preserving `edit`; None if not drawn or not possible."""
    if np.random.default_rng(stable_seed(seed, example.id, EDITED_REFERENCE, "draw")).random() >= rate:
        return None
    return _judged_edit(example, EDITED_REFERENCE, 1.0, edit, stable_seed(seed, example.id, EDITED_REFERENCE))


def negative(example: Example, mode: FailureMode, *, seed: int, edited: Judged | None = None) -> Judged | None:
    """The mode's failed version of the example's reference; None if the mode does not apply.

    Where the example has an `edited` positive, half of the modes start from that one, so that the edit's wording
    stands in good and bad completions alike and is evidence of neither.
    The row's own seed follows from (seed, example, mode) and nothing else, so the edit stays the same when modes are
    added to or left out of the recipe, and `mode.corrupt(example, np.random.default_rng(row.seed))` makes it again.
    An edit that gives back a reference, properly ended, would be a false label and counts as not applying.
    """
    start = example
    if edited is not None and stable_seed(seed, example.id, mode.name, "start") % 2:
        start = replace(example, references=(edited.completion.text, *example.references[1:]))
    row = _judged_edit(start, mode.name, 0.0, mode.corrupt, stable_seed(seed, example.id, mode.name))
    if row is None or (row.completion.terminated and row.completion.text in (*example.references, *start.references)):
        return None
    return row


def balanced_negatives(
    example: Example,
    modes: Sequence[FailureMode],
    counts: Counter[str],
    *,
    per_example: int,
    seed: int,
    edited: Judged | None = None,
) -> list[Judged]:
    """Up to `per_example` negatives of different modes, distinct as texts.

    `counts` is how many each mode has made so far (the caller adds these). The mode that lags most is tried first,
    and ties fall at random, so a mode that rarely applies is used nearly wherever it does, and the counts end close.
    """
    order = np.random.default_rng(stable_seed(seed, example.id, "order")).permutation(len(modes))
    rows: list[Judged] = []
    made: set[tuple[str, bool]] = set()
    for mode in sorted((modes[i] for i in order), key=lambda mode: counts[mode.name]):
        if len(rows) == per_example:
            break
        row = negative(example, mode, seed=seed, edited=edited)
        if row is not None and (row.completion.text, row.completion.terminated) not in made:
            rows.append(row)
            made.add((row.completion.text, row.completion.terminated))
    return rows


def judged_to_row(judged: Judged) -> dict[str, Any]:
    """One line of negatives/*.jsonl. The sampled token ids are not kept: reward models read text."""
    return {
        "example_id": judged.example_id,
        "text": judged.completion.text,
        "terminated": judged.completion.terminated,
        "mode": judged.mode,
        "label": judged.label,
        "span": list(judged.span),
        "note": judged.note,
        "seed": judged.seed,
    }


def judged_from_row(row: Mapping[str, Any]) -> Judged:
    """The inverse of `judged_to_row`. Raises UserError on a row without a needed key or with a label outside 0..1."""
    missing = sorted({"example_id", "text", "terminated", "mode", "label"} - row.keys())
    if missing:
        raise UserError(
            f"negatives: row of example {row.get('example_id')!r} has no {missing[0]!r}: run `negatives` again"
        )
    if not 0 <= row["label"] <= 1:
        raise UserError(f"negatives: row of example {row['example_id']!r} has label {row['label']}: give one in 0..1")
    start, end = row.get("span", (0, 0))
    return Judged(
        example_id=row["example_id"],
        completion=Completion(row["text"], terminated=row["terminated"]),
        mode=row["mode"],
        label=float(row["label"]),
        span=(start, end),
        note=row.get("note", ""),
        seed=row.get("seed", 0),
    )


def _judged_edit(
    example: Example,
    mode: str,
    label: float,
    edit: Callable[[Example, np.random.Generator], Edit | None],
    seed: int,
) -> Judged | None:
    made = edit(example, np.random.default_rng(seed))
    if made is None:
        return None
    start, end = made.span
    if not 0 <= start <= end <= len(made.completion.text):
        raise UserError(
            f"failure mode {mode!r}: span {made.span} lies outside its text of {len(made.completion.text)} characters "
            f"(example {example.id!r}): return a half-open character range"
        )
    return Judged(example.id, made.completion, mode, label, (start, end), made.note, seed)
