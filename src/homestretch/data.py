"""The task's data as `Example`s: files, a folder of splits, a hub data set, or a built-in task.

Every row is checked before any is used; a UserError lists the bad ones by file and row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from homestretch.config import DataConfig, RunConfig
from homestretch.ops.drawing import drawn
from homestretch.prompts import PromptTemplate, flat, parse_template
from homestretch.tables import SUFFIXES, Row, lines, raise_problems, read_bytes, read_table, table_suffix
from homestretch.types import Example, UserError

SPLITS = ("train", "validation", "test", "prompts")
DOCUMENT_COLUMNS = ("document", "prompt", "input", "source", "text", "dialogue", "article")
REFERENCE_COLUMNS = ("reference", "references", "completion", "summary", "target", "output")
_ALIASES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation",
            "dev": "validation", "test": "test", "prompts": "prompts"}  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HOLD_OUT = len(SPLITS)
"""Which stream of the seed draws the held-out validation examples; the first streams draw `max_examples`."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The task's data, ready for use."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    """Empty where the data has no test split."""
    prompts: tuple[Example, ...]
    """Further prompts without references."""
    notes: tuple[str, ...] = ()
    """What was left out or held out, one sentence each."""


def load_splits(config: RunConfig) -> Splits:
    """The splits of a recipe's data. Every call of a process with the same data and seed returns the same object.

    Raises UserError that lists all bad rows by file and row (the first 20 and a count), or says what is missing.
    """
    return _load_splits(config.data.model_dump_json(), config.seed, _stamp(config.data))


def _stamp(data: DataConfig) -> tuple[tuple[str, int, int], ...]:
    """Size and time of the files that are read, so that a changed file is not answered from memory."""
    paths = [Path(p) for p in (data.path, data.train, data.validation, data.test, data.prompts) if p is not None]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file())


@lru_cache(maxsize=2)
def _load_splits(data_json: str, seed: int, stamp: tuple[tuple[str, int, int], ...]) -> Splits:
    data = DataConfig.model_validate_json(data_json)
    notes: list[str] = []
    splits = _task_splits(data, seed) if data.task is not None else _row_splits(data, notes)
    if not splits["train"]:
        raise UserError("data: no train rows; give data.train, or a train file in data.path")
    if not splits["validation"]:
        _hold_out(splits, data.validation_fraction, seed, notes)
    for index, split in enumerate(SPLITS):
        cap = data.max_examples.get(split)  # type: ignore[call-overload]
        if cap is not None and cap < len(splits[split]):
            notes.append(f"{split}: {cap} of {len(splits[split])} rows drawn (data.max_examples.{split})")
            splits[split] = drawn(splits[split], cap, np.random.default_rng([seed, index]))
    notes.extend(_leaks(splits))
    splits["prompts"] = _told_apart(splits["prompts"], splits["train"])
    return Splits(**{split: tuple(splits[split]) for split in SPLITS}, notes=tuple(notes))


def evaluation_examples(config: RunConfig, splits: Splits) -> list[Example]:
    """At most `evaluate.max_examples` of `evaluate.split`, drawn with the run's seed, in their order.

    It names one of the splits, or a file, which is read with the recipe's columns and template and bounded by nothing
    else. Raises UserError if there are no examples, and for a file as `load_splits` does.
    """
    name = config.evaluate.split
    if name in SPLITS:
        examples: Sequence[Example] = getattr(splits, name)
        fix = f"give data.{name}, or name another split (evaluate.split=validation)"
    else:
        if table_suffix(Path(name)) is None:
            raise UserError(f"{name!r} is neither a split ({', '.join(SPLITS)}) nor a {', '.join(SUFFIXES)} file")
        examples = _file_examples(Path(name), config.data, labelled=True)
        fix = "give a file with rows"
    if not examples:
        raise UserError(f"{name}: no examples; {fix}")
    return drawn(examples, config.evaluate.max_examples, np.random.default_rng(config.seed))


def load_prompts(config: RunConfig, path: Path) -> tuple[Example, ...]:
    """Unlabelled prompts from a .jsonl, .csv or .parquet file, or a text file (.txt) with one document a line.

    Raises UserError that lists all bad rows.
    """
    if not path.name.lower().removesuffix(".gz").endswith(".txt"):
        examples = _file_examples(path, config.data, labelled=False)
    else:
        problems: list[str] = []
        rows = [Row(f"{path}:{n}", n, {"document": line}) for n, line in lines(path, read_bytes(path), problems)]
        raise_problems(problems)
        columns = config.data.model_copy(update={"columns": type(config.data.columns)()})
        examples = _examples(rows, str(path), columns, labelled=False)
    if not examples:
        raise UserError(f"{path}: no rows")
    return tuple(examples)


def _file_examples(path: Path, data: DataConfig, *, labelled: bool) -> list[Example]:
    problems: list[str] = []
    rows = read_table(path, problems)
    return _examples(rows, str(path), data, labelled=labelled, problems=problems)


# --- a built-in task -------------------------------------------------------------------------------------------------


def _task_splits(data: DataConfig, seed: int) -> dict[str, list[Example]]:
    from homestretch.tasks import build_task

    task = build_task(str(data.task))
    splits = {split: list(task.generate(split, getattr(data.sizes, split), seed)) for split in SPLITS}
    splits["prompts"] = [replace(e, references=(), facts={}) for e in splits["prompts"]]
    if _has_default_template(data) and not data.flatten_lines:
        return splits
    template = prompt_template(data)
    if template.columns:
        raise UserError(f"data.template: {{{template.columns[0]}}}: a built-in task has no columns but {{document}}")
    return {split: [_refilled(e, template, data) for e in examples] for split, examples in splits.items()}


def prompt_template(data: DataConfig) -> PromptTemplate:
    """What a run's prompts are made with: the recipe's template, or a built-in task's own where the recipe has none."""
    if data.task is None or not _has_default_template(data):
        return parse_template(data.template)
    from homestretch.tasks import build_task

    return parse_template(build_task(data.task).template)


def _has_default_template(data: DataConfig) -> bool:
    return bool(data.template == DataConfig.model_fields["template"].default)


def _refilled(example: Example, template: PromptTemplate, data: DataConfig) -> Example:
    document = flat(example.source) if data.flatten_lines else example.source
    prompt, span = template.fill(document, {})
    return replace(example, prompt=prompt, document_span=span)


# --- rows ------------------------------------------------------------------------------------------------------------


def _row_splits(data: DataConfig, notes: list[str]) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    complaints: list[str] = []
    for split, (place, read) in _tables(data).items():
        problems: list[str] = []
        try:
            rows = read(problems)
            if split == "train":
                rows = _without_overlaps(rows, place, data, notes)
            splits[split] = _examples(rows, place, data, labelled=split != "prompts", problems=problems)
        except UserError as error:
            complaints.append(str(error))
    if complaints:
        raise UserError("\n".join(complaints))
    return splits


_Reader = Callable[[list[str]], list[Row]]


def _tables(data: DataConfig) -> dict[str, tuple[str, _Reader]]:
    """For each split that the data has: the table's name in messages, and what reads it."""
    tables = _path_tables(data) if data.path is not None else {}
    for split in SPLITS:
        if (file := getattr(data, split)) is not None:
            tables[split] = (file, _file_reader(Path(file)))
    return {split: tables[split] for split in SPLITS if split in tables}


def _file_reader(path: Path) -> _Reader:
    return lambda problems: read_table(path, problems)


def _path_tables(data: DataConfig) -> dict[str, tuple[str, _Reader]]:
    path = Path(str(data.path))
    if path.is_file():
        raise UserError(f"data.path: {path} is a file; a single file is given as data.train")
    if path.is_dir():
        files = split_files(path)
        return {s: (str(f), _file_reader(f)) for s, f in files.items()} if files else _hub_tables(data)
    if not _HUB_ID.fullmatch(str(data.path)):
        raise UserError(f"data.path: {path}: no such directory")
    return _hub_tables(data)


def split_files(folder: Path) -> dict[str, Path]:
    """The split files of a folder, such as train.jsonl, valid.csv.gz, test.parquet.

    Raises UserError if a split is there twice.
    """
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = _ALIASES.get(file.name.split(".")[0].lower())
        if split is None or table_suffix(file) is None or not file.is_file():
            continue
        if split in files:
            raise UserError(f"data.path: {folder} has {files[split].name} and {file.name}; give one as data.{split}")
        files[split] = file
    return files


def _hub_tables(data: DataConfig) -> dict[str, tuple[str, _Reader]]:
    """The splits of a hub data set, or of a local folder that the `datasets` library understands."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        found = datasets.load_dataset(data.path, name=data.hub_config)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(f"data.path: {data.path}: no data set could be loaded: {str(error).splitlines()[0]}") from error

    def reader(name: str) -> _Reader:
        rows = [Row(f"{data.path} [{name}] row {n}", n, values) for n, values in enumerate(found[name], start=1)]
        return lambda problems: rows

    return {_ALIASES[name]: (f"{data.path} [{name}]", reader(name)) for name in found if name in _ALIASES}


def _without_overlaps(rows: list[Row], place: str, data: DataConfig, notes: list[str]) -> list[Row]:
    if not data.drop_overlaps:
        return rows
    if rows and all("overlaps" not in row.values for row in rows):
        raise UserError(
            f"{place}: data.drop_overlaps is given, and no row has a field `overlaps` to go by; take it out"
        )
    unwanted = set(data.drop_overlaps)
    kept = [row for row in rows if unwanted.isdisjoint(_names(row.values.get("overlaps")))]
    if rows and not kept:
        raise UserError(f"{place}: no rows left: every one is dropped by data.drop_overlaps={list(data.drop_overlaps)}")
    notes.append(
        f"train: {len(rows) - len(kept)} of {len(rows)} rows dropped (overlaps: {', '.join(sorted(unwanted))})"
    )
    return kept


def _names(value: Any) -> Iterable[str]:
    """The split names of an `overlaps` field: a list, or in CSV a text with commas."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    return [str(name) for name in value] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table that hold what; None: it has none."""

    document: str
    reference: str | None
    id: str | None


def _columns(rows: Sequence[Row], place: str, data: DataConfig, *, labelled: bool) -> Columns:
    present = {name for row in rows for name in row.values}
    has = ", ".join(sorted(present)) or "none"

    def find(key: str, usual: Sequence[str]) -> str:
        given = getattr(data.columns, key)
        wanted = (given,) if given is not None else usual
        if (name := next((name for name in wanted if name in present), None)) is None:
            looked = f"no column {given!r}" if given is not None else f"no {key} column ({', '.join(usual)})"
            raise UserError(f"{place}: {looked}; its columns are: {has}; set data.columns.{key}")
        return name

    has_id = data.columns.id is not None or "id" in present
    return Columns(
        document=find("document", DOCUMENT_COLUMNS),
        reference=find("reference", REFERENCE_COLUMNS) if labelled else None,
        id=find("id", ("id",)) if has_id else None,
    )


def _examples(
    rows: Sequence[Row], place: str, data: DataConfig, *, labelled: bool, problems: list[str] | None = None
) -> list[Example]:
    """One example per row. Raises UserError with all problems, those found in reading included."""
    problems = [] if problems is None else problems
    template = prompt_template(data)
    if not rows:
        raise_problems(problems)
        return []
    columns = _columns(rows, place, data, labelled=labelled)
    examples: list[Example] = []
    places: dict[str, str] = {}
    for row in rows:
        try:
            example = row_example(row, Path(place).name, columns, template, data)
        except UserError as error:
            problems.append(f"{row.place}: {error}")
            continue
        if example.id in places:
            problems.append(f"{row.place}: the id {example.id!r} is also that of {places[example.id]}; ids must differ")
        places.setdefault(example.id, row.place)
        examples.append(example)
    raise_problems(problems)
    return examples


def row_example(row: Row, file: str, columns: Columns, template: PromptTemplate, data: DataConfig) -> Example:
    """The example a row is, its prompt made as the run's. Raises UserError that names the column."""
    source = text_cell(row, columns.document)
    document = flat(source) if data.flatten_lines else source
    prompt, span = template.fill(document, {name: cell_as_text(row, name) for name in template.columns})
    references = _references(row, columns.reference) if columns.reference is not None else ()
    id = cell_as_text(row, columns.id) if columns.id is not None else f"{file}:{row.number}"
    return Example(id=id, source=source, prompt=prompt, document_span=span, references=references)


def _references(row: Row, column: str) -> tuple[str, ...]:
    value = row.values.get(column)
    if not isinstance(value, list):
        return (text_cell(row, column),)
    if not value:
        raise UserError(f"{column} is an empty list; give at least one text, or leave the row out")
    return tuple(_checked_text(item, f"{column}[{i}]") for i, item in enumerate(value))


def text_cell(row: Row, column: str) -> str:
    """A cell that must hold text. Raises UserError if it is missing, of another kind, or blank."""
    if column not in row.values:
        raise UserError(f"the column {column!r} is missing")
    return _checked_text(row.values[column], column)


def _checked_text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{column} must be text, is {_kind(value)}")
    if not value.strip():
        raise UserError(f"{column} is empty; fill it, or leave the row out")
    if re.search(r"[\ud800-\udfff]", value):
        raise UserError(f"{column} holds half of a surrogate pair, which is no text; write the character itself")
    return value


def cell_as_text(row: Row, column: str) -> str:
    """A cell as text: an id, or a further column of the template. Numbers will do; else as `text_cell`."""
    value = row.values.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text_cell(row, column)


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")


# --- all splits ------------------------------------------------------------------------------------------------------


def _hold_out(splits: dict[str, list[Example]], fraction: float, seed: int, notes: list[str]) -> None:
    train = splits["train"]
    if len(train) < 2:
        raise UserError("data: one train row and no validation split; give data.validation, or more train rows")
    size = min(len(train) - 1, max(1, round(fraction * len(train))))
    splits["validation"] = drawn(train, size, np.random.default_rng([seed, _HOLD_OUT]))
    held_out = {example.id for example in splits["validation"]}
    splits["train"] = [example for example in train if example.id not in held_out]
    notes.append(f"validation: {size} rows held out from train (there is no validation split)")


def _told_apart(prompts: list[Example], train: Sequence[Example]) -> list[Example]:
    """The prompts, under other ids if one of them is also a train example's: RL draws from both at once."""
    taken = {example.id for example in train}
    if taken.isdisjoint(example.id for example in prompts):
        return prompts
    prefix = "prompts/"
    while any(prefix + example.id in taken for example in prompts):
        prefix += "prompts/"
    return [replace(example, id=prefix + example.id) for example in prompts]


def _leaks(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Notes on evaluation documents that training sees as well."""
    notes = []
    seen = {example.source for split in ("train", "prompts") for example in splits[split]}
    for split in ("validation", "test"):
        if count := sum(example.source in seen for example in splits[split]):
            notes.append(f"{split}: {count} of {len(splits[split])} documents are also in train or prompts")
    return notes
