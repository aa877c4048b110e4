"""Failure modes that are not ours: what a user's class raises, or returns amiss, becomes one line that names it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from homestretch.registry import blaming
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode, UserError

_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


def guarded(mode: type[FailureMode]) -> type[FailureMode]:
    """The same mode, name and faces, as a subclass whose calls are watched.

    An exception becomes a UserError that names the mode, the face, the example and the line; so does a result that is
    not what the face promises. Numbers of numpy become Python's, so that every result can be written as JSON.
    """
    watched: Any = type(mode.__name__, (mode,), {"__module__": mode.__module__, "__doc__": mode.__doc__})
    title = f"failure mode {mode.name!r}"

    def __init__(self: FailureMode) -> None:
        with blaming(f"{title}: making it failed"):
            super(watched, self).__init__()

    def fit(self: FailureMode, corpus: Corpus) -> None:
        with blaming(f"{title}: fit failed"):
            super(watched, self).fit(corpus)

    watched.__init__, watched.fit = __init__, fit
    checks = {"corrupt": _checked_edit, "detect": _checked_severity, "repair": _checked_completion}
    for face in mode.faces():
        setattr(watched, face, _watched_face(watched, mode, face, checks[face]))
    found: type[FailureMode] = watched
    return found


def _watched_face(watched: Any, mode: type[FailureMode], face: str, check: Callable[[Any], Any]) -> Callable[..., Any]:
    @wraps(getattr(mode, face))
    def call(self: FailureMode, example: Example, *rest: Any, **named: Any) -> Any:
        where = f"failure mode {mode.name!r}: {face} of example {example.id!r}"
        with blaming(f"{where} failed"):
            result = getattr(super(watched, self), face)(example, *rest, **named)
        try:
            return check(result)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from error

    return call


def _checked_edit(result: Any) -> Edit | None:
    if result is None:
        return None
    if not isinstance(result, Edit):
        raise TypeError(f"returned {_shown(result)}; return an Edit, or None where the mode does not apply")
    completion = _checked_completion(result.completion)
    try:
        start, end = (int(place) for place in result.span)
    except (TypeError, ValueError) as error:
        raise TypeError(f"returned the span {_shown(result.span)}; give two whole numbers (start, end)") from error
    if not isinstance(result.note, str):
        raise TypeError(f"returned the note {_shown(result.note)}; give a text")
    return Edit(completion, (start, end), result.note)


def _checked_severity(result: Any) -> float | None:
    if result is None:
        return None
    if not isinstance(result, _NUMBERS) or not 0 <= result <= 1:
        raise ValueError(f"returned {_shown(result)}; return a severity in 0..1, or None where it cannot be judged")
    return float(result)


def _checked_completion(result: Any) -> Completion:
    if not isinstance(result, Completion):
        raise TypeError(f"returned {_shown(result)}; return a Completion")
    if not isinstance(result.text, str):
        raise TypeError(f"returned a completion whose text is {_shown(result.text)}; give a str")
    if not isinstance(result.terminated, bool | np.bool_):
        raise TypeError(f"returned a completion whose `terminated` is {_shown(result.terminated)}; give True or False")
    if isinstance(result.terminated, bool):
        return result
    return Completion(result.text, bool(result.terminated), result.ids, result.logprobs)


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
