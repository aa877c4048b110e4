"""Summaries that people have labelled, read from a file: what a reward is checked against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from homestretch.config import DataConfig
from homestretch.data import Columns, cell_as_text, prompt_template, row_example, text_cell
from homestretch.prompts import PromptTemplate
from homestretch.tables import Row, raise_problems, read_table
from homestretch.types import Completion, Example, UserError


@dataclass(frozen=True, slots=True)
class LabelledColumns:
    """Which columns of a labelled file hold what."""

    document: str = "document"
    summary: str = "summary"
    label: str = "label"
    """A number; higher is better."""
    reference: str | None = None
    """None: `reference` where the file has it. A row may have none."""
    group: str | None = None
    """Rows with the same value are of one document; None: rows with the same document text are."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled rows of a file, in its order."""

    examples: tuple[Example, ...]
    completions: tuple[Completion, ...]
    """The summaries, terminated."""
    labels_N: NDArray[np.float64]
    groups_N: NDArray[np.int64]
    """Which document a row is of, counted from 0."""
    places: tuple[str, ...]
    """Where a row stands, for messages."""
    num_unlabelled: int
    """Rows left out because they have no label."""


def load_labelled(path: Path, columns: LabelledColumns, data: DataConfig) -> Labelled:
    """Read a file, its prompts made as a run with this `data` section makes them.

    Raises UserError that lists all bad rows, or says that a column is missing or the labels tell nothing apart.
    """
    problems: list[str] = []
    rows = read_table(path, problems)
    columns = _found(columns, rows, path) if rows else columns
    template = prompt_template(data)
    read: list[tuple[Row, _LabelledRow]] = []
    num_unlabelled = 0
    for row in rows:
        try:
            if (label := _label(row, columns.label)) is None:
                num_unlabelled += 1
            else:
                read.append((row, _labelled_row(row, label, path, columns, template, data)))
        except UserError as error:
            problems.append(f"{row.place}: {error}")
    raise_problems(problems)
    _require_contrast([item.label for _, item in read], num_unlabelled, path, columns.label)
    numbers: dict[str, int] = {}
    return Labelled(
        examples=tuple(item.example for _, item in read),
        completions=tuple(item.completion for _, item in read),
        labels_N=np.array([item.label for _, item in read], dtype=np.float64),
        groups_N=np.array([numbers.setdefault(item.group, len(numbers)) for _, item in read]),
        places=tuple(row.place for row, _ in read),
        num_unlabelled=num_unlabelled,
    )


@dataclass(frozen=True, slots=True)
class _LabelledRow:
    example: Example
    completion: Completion
    label: float
    group: str


def _found(columns: LabelledColumns, rows: Sequence[Row], path: Path) -> LabelledColumns:
    """The columns that the file has. Raises UserError if one that is needed or was asked for is not among them."""
    present = {name for row in rows for name in row.values}
    for key in ("document", "summary", "label", "reference", "group"):
        name = getattr(columns, key)
        if name is not None and name not in present:
            has = ", ".join(sorted(present)) or "none"
            raise UserError(
                f"{path}: no column {name!r}; its columns are: {has}; name the right one with --{key}-column"
            )
    if columns.reference is None and "reference" in present:
        return LabelledColumns(columns.document, columns.summary, columns.label, "reference", columns.group)
    return columns


def _label(row: Row, column: str) -> float | None:
    """None where the row has no label."""
    value = row.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        label = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{column} must be a number, is {value!r:.60}; leave it empty if there is no label") from None
    if not math.isfinite(label):
        raise UserError(f"{column} must be a finite number, is {label}; leave it empty if there is no label")
    return label


def _labelled_row(
    row: Row, label: float, path: Path, columns: LabelledColumns, template: PromptTemplate, data: DataConfig
) -> _LabelledRow:
    reference = columns.reference if columns.reference and row.values.get(columns.reference) else None
    example = row_example(row, path.name, Columns(columns.document, reference, None), template, data)
    completion = Completion(text_cell(row, columns.summary).strip())
    group = example.source if columns.group is None else cell_as_text(row, columns.group)
    return _LabelledRow(example, completion, label, group)


def _require_contrast(labels: Sequence[float], num_unlabelled: int, path: Path, column: str) -> None:
    if not labels:
        count = f"none of its {num_unlabelled} rows has a label (column {column!r})" if num_unlabelled else "no rows"
        raise UserError(f"{path}: {count}")
    if min(labels) == max(labels):
        raise UserError(
            f"{path}: all {len(labels)} labels are {labels[0]:g}; a reward is checked on good and bad summaries"
        )
