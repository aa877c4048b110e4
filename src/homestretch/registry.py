"""From a name in a recipe to a class or function: the literal table, then entry points, then `module:attribute`.

And how code that is not ours is called, so that a fault in it is told as one.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.types import Completion, Example, Scorer, UserError

_NOT_THEIRS = ("<frozen", *(str(Path(file).parent / "_").removesuffix("_") for file in (__file__, importlib.__file__)))
_MAX_MESSAGE = 300


def look_in(*folders: Path) -> None:
    """Let `module:attribute` find modules in these folders as well.

    They come last on the import path: what is installed, or on PYTHONPATH, cannot be shadowed by a file there.
    """
    for folder in folders:
        place = str(folder.resolve())
        if place not in sys.path:
            sys.path.append(place)


def resolve(name: str, table: Mapping[str, str], group: str, kind: str) -> Any:
    """Return what `name` stands for.

    `table` maps our own names to "module:attribute"; `group` is the entry-point group that packages may extend;
    `kind` is the word for messages ("failure mode"). Raises UserError that suggests the nearest name.
    """
    if name in table:
        return _load(table[name], kind)
    plugins = {point.name: point.value for point in entry_points(group=group)}
    if name in plugins:
        return _load(plugins[name], kind)
    if ":" in name:
        return _load(name, kind)
    known = sorted({*table, *plugins})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}; your own: `package.module:Name`"
    raise UserError(f"unknown {kind} {name!r}: {hint}")


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn whatever a user's own code raises in the block into one line: `what`, the error, and the line it came from.

    Only for calls of code that is not ours; a UserError passes as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {type(error).__name__}: {_in_one_line(error)}{_place(error)}") from error


def checked_scores(
    what: str, scorer: Scorer, examples: Sequence[Example], completions: Sequence[Completion]
) -> NDArray[np.float64]:
    """What a scorer that may be the user's own gives, shape (n,); NaN where it is undefined.

    UserError, one line with `what` and the id of the first example at fault where there is one, if it raises, gives
    another shape than (n,), no numbers, or an infinite one.
    """
    try:
        with blaming(f"{what} failed"):
            values = np.asarray(scorer(examples, completions), dtype=np.float64)
    except UserError as error:
        raise UserError(f"{error}{_culprit(scorer, examples, completions)}") from error
    if values.shape != (len(examples),):
        raise UserError(
            f"{what} returned shape {values.shape} for {len(examples)} completions; a scorer returns one number per "
            "completion"
        )
    if np.isinf(values).any():
        bad = examples[int(np.flatnonzero(np.isinf(values))[0])].id
        raise UserError(f"{what} is infinite (example {bad!r}); return NaN where it is undefined")
    return values


def _culprit(scorer: Scorer, examples: Sequence[Example], completions: Sequence[Completion]) -> str:
    """The first example that fails alone as well, in words; nothing if there is none."""
    for example, completion in zip(examples, completions, strict=True):
        try:
            np.asarray(scorer([example], [completion]), dtype=np.float64)
        except Exception:  # noqa: BLE001 - the error itself was caught before; this only finds its place
            return f" (example {example.id!r})"
    return ""


def _load(target: str, kind: str) -> Any:
    module_name, _, attribute = target.partition(":")
    with blaming(f"{kind} {target!r}: {module_name!r} cannot be imported"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{kind} {target!r}: no module {error.name!r} (is it installed, on PYTHONPATH, in the recipe's folder "
                "or in the current one?)"
            ) from error
    if not hasattr(module, attribute):
        raise UserError(f"{kind} {target!r}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}..."


def _place(error: Exception) -> str:
    """The innermost line of the user's file that we called, as " (file:line)"; empty if the call did not get there."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    own = [frame for frame in theirs if frame.filename == theirs[0].filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
