"""Rows of JSONL, CSV and Parquet files (each also .gz), every one with the place it came from.

A broken row does not end the reading: it is noted, and all of them are reported together.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homestretch.types import UserError

SUFFIXES = (".jsonl", ".csv", ".parquet")
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    place: str
    """Where it stands, for messages: "train.jsonl:17", "train.parquet row 17"."""
    number: int
    """Counted from 1: the line of a JSONL or CSV file, the row of a Parquet file."""
    values: Mapping[str, Any]
    """Column -> value."""


def table_suffix(path: Path) -> str | None:
    """ ".jsonl", ".csv" or ".parquet", with or without .gz behind it; None for any other file."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_table(path: Path, problems: list[str]) -> list[Row]:
    """Read a table; rows that cannot be read are left out and described in `problems`.

    Raises UserError if the file as a whole cannot be read.
    """
    suffix = table_suffix(path)
    if suffix is None:
        raise UserError(f"{path}: not a file of a known kind; use one of {', '.join(SUFFIXES)}, each also with .gz")
    content = read_bytes(path)
    if suffix == ".parquet":
        return _parquet_rows(path, content)
    rows = _jsonl_rows(path, content, problems) if suffix == ".jsonl" else _csv_rows(path, content, problems)
    return list(rows)


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked if its name ends in .gz. Raises UserError where that cannot be done."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory, a file is needed") from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read: check its permissions") from error
    if path.suffix.lower() != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file ({error})") from error


def not_utf8(place: str, error: UnicodeDecodeError, line: int) -> str:
    """The message for bytes that are not UTF-8; the error's offsets are those of the line."""
    byte = error.object[error.start]
    return f"{place}:{line}: not UTF-8: byte {byte:#04x} at offset {error.start} of the line; save the file as UTF-8"


def lines(path: Path, content: bytes, problems: list[str]) -> Iterator[tuple[int, str]]:
    """The text's lines that are not blank, with their numbers; those that are not UTF-8 go to `problems`."""
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            problems.append(not_utf8(str(path), error, number))
            continue
        if line:
            yield number, line


def _jsonl_rows(path: Path, content: bytes, problems: list[str]) -> Iterator[Row]:
    for number, line in lines(path, content, problems):
        place = f"{path}:{number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(f"{place}: not valid JSON at column {error.colno} ({error.msg}); write one object a line")
            continue
        except ValueError:
            problems.append(f"{place}: a number has more digits than can be read; write it as text, in quotes")
            continue
        except RecursionError:
            problems.append(f"{place}: nested too deeply; a row is one flat object")
            continue
        if isinstance(values, dict):
            yield Row(place, number, values)
        else:
            problems.append(f'{place}: a row must be a JSON object, such as {{"document": ..., "reference": ...}}')


def _csv_rows(path: Path, content: bytes, problems: list[str]) -> Iterator[Row]:
    bad = [note for note in _undecodable(path, content)]
    if bad:  # a quoted cell may span lines, so no row of the file is sure
        problems.extend(bad)
        return
    text = content.decode("utf-8-sig")
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # the default refuses long documents
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            place = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if header is None:
                header = _header(path, cells)
            elif len(cells) == len(header):
                yield Row(place, reader.line_num, dict(zip(header, cells, strict=True)))
            else:
                problems.append(f"{place}: {len(cells)} cells under {len(header)} columns; quote cells with commas")
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: not valid CSV ({error}); reading stopped here")


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise UserError(f"{path}:1: the column {repeated[0]!r} is there twice; rename one")
    return header


def _undecodable(path: Path, content: bytes) -> Iterator[str]:
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            yield not_utf8(str(path), error, number)


def _parquet_rows(path: Path, content: bytes) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        values = parquet.read_table(io.BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: values, such as dates
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    return [Row(f"{path} row {number}", number, row) for number, row in enumerate(values, start=1)]


def raise_problems(problems: Sequence[str]) -> None:
    """Raise UserError with one line per problem, the first 20 and a count of the others; nothing if there are none."""
    if not problems:
        return
    shown = list(problems[:_SHOWN_PROBLEMS])
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more rows like these ({len(problems)} in all)")
    raise UserError("\n".join(shown))
