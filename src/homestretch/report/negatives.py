"""The negatives of a run as the report shows them: counts per class, and examples with the edit marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.ops.drawing import evenly
from homestretch.report.formatting import clean

EXAMPLES_PER_CLASS = 3
_CONTEXT = 300
"""Characters shown on each side of the edit."""
_MAX_SPAN = 600


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A judged text around its edit."""

    example_id: str
    before: str
    span: str
    after: str
    has_edit: bool
    note: str
    terminated: bool


@dataclass(frozen=True, slots=True)
class NegativeClass:
    """One class of negatives/*.jsonl."""

    name: str
    label: str
    """"negative", "positive", or the mean label."""
    num_train: int
    num_validation: int
    num_unterminated: int
    """In train."""
    examples: tuple[Excerpt, ...]


def negative_classes(
    train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
) -> tuple[NegativeClass, ...]:
    """The classes of both files: positives first, then the failures by name."""
    views = []
    for mode in {row["mode"] for row in (*train, *validation)}:
        rows = [row for row in train if row["mode"] == mode]
        held_out = [row for row in validation if row["mode"] == mode]
        good = sum(row["label"] for row in (*rows, *held_out)) / len((*rows, *held_out)) >= 0.5
        views.append(
            NegativeClass(
                name=clean(mode),
                label="positive" if good else "negative",
                num_train=len(rows),
                num_validation=len(held_out),
                num_unterminated=sum(not row.get("terminated", True) for row in rows),
                examples=tuple(
                    map(_excerpt, evenly(rows or held_out, EXAMPLES_PER_CLASS) if mode != "reference" else ())
                ),
            )
        )
    return tuple(sorted(views, key=lambda view: (view.label == "negative", view.name != "reference", view.name)))


def _excerpt(row: Mapping[str, Any]) -> Excerpt:
    text = str(row["text"])
    low, high = (min(max(0, int(end)), len(text)) for end in row.get("span") or (0, 0))
    span = text[low:high]
    if len(span) > _MAX_SPAN:
        span = f"{span[: _MAX_SPAN // 2]} … {span[-_MAX_SPAN // 2 :]}"
    start, end = max(0, low - _CONTEXT), min(len(text), high + _CONTEXT)
    return Excerpt(
        example_id=clean(row["example_id"]),
        before=("…" if start else "") + clean(text[start:low]),
        span=clean(span),
        after=clean(text[high:end]) + ("…" if end < len(text) else ""),
        # (0, 0) is the default of a row without an edit, such as an on-policy sample.
        has_edit=bool(span) or (low, high) != (0, 0) or bool(row.get("note")),
        note=clean(row.get("note", "")),
        terminated=bool(row.get("terminated", True)),
    )
