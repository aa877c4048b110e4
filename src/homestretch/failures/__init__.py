"""The ways an output can fail: one file each, found by name, fitted to the task together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from homestretch.registry import resolve
from homestretch.types import Completion, Corpus, Example, FailureMode, UserError

if TYPE_CHECKING:
    from homestretch.config import NegativesConfig

FAILURE_MODES: dict[str, str] = {
    "random_tokens": "homestretch.failures.random_tokens:RandomTokens",
    "irrelevant": "homestretch.failures.irrelevant:Irrelevant",
    "shuffled": "homestretch.failures.shuffled:Shuffled",
    "repetition": "homestretch.failures.repetition:Repetition",
    "echo": "homestretch.failures.echo:Echo",
    "truncation": "homestretch.failures.truncation:Truncation",
    "run_on": "homestretch.failures.run_on:RunOn",
    "wrong_entity": "homestretch.failures.wrong_entity:WrongEntity",
    "wrong_number": "homestretch.failures.wrong_number:WrongNumber",
    "wrong_date": "homestretch.failures.wrong_date:WrongDate",
    "wrong_speaker": "homestretch.failures.wrong_speaker:WrongSpeaker",
    "negation": "homestretch.failures.negation:Negation",
    "omission": "homestretch.failures.omission:Omission",
    "addition": "homestretch.failures.addition:Addition",
}
"""Name in recipes and files -> class. Packages add theirs as entry points of `homestretch.failure_modes`."""

PRESETS: dict[str, tuple[str, ...]] = {
    "paper": ("random_tokens", "irrelevant", "shuffled", "repetition", "echo"),
    "full": tuple(FAILURE_MODES),
}
"""`paper`: the five classes of arXiv 2408.16753 as we read it; `full`: every mode."""

_REPAIR_ORDER = ("run_on", "repetition", "truncation")


def mode_names(config: NegativesConfig) -> tuple[str, ...]:
    """The modes a recipe asks for: its preset, plus `include`, less `exclude`. Raises UserError if none is left, or if
    `exclude` names a mode that is not there.
    """
    names = tuple(dict.fromkeys((*PRESETS[config.preset], *config.include)))
    for name in config.exclude:
        if name not in names:
            raise UserError(f"negatives.exclude: {name!r} is not among the modes of this recipe ({', '.join(names)})")
    kept = tuple(name for name in names if name not in config.exclude)
    if not kept:
        raise UserError("negatives.exclude leaves no failure mode; take a name out of it")
    return kept


def build_modes(names: Iterable[str], corpus: Corpus) -> list[FailureMode]:
    """The named modes, fitted to the corpus, in the order of the names. Raises UserError for an unknown name."""
    modes: list[FailureMode] = []
    for name in names:
        found = resolve(name, FAILURE_MODES, "homestretch.failure_modes", "failure mode")
        if not (isinstance(found, type) and issubclass(found, FailureMode)):
            raise UserError(f"failure mode {name!r}: the class must derive from homestretch.types.FailureMode")
        mode = found()
        mode.fit(corpus)
        modes.append(mode)
    return modes


def post_process(modes: Sequence[FailureMode], example: Example, completion: Completion) -> Completion:
    """The completion after every repair: run-on, repetition, truncation, then those of other modes in their order.

    Too much text goes first, so that what the last repair completes is the text that stays.
    """
    with_repair = [mode for mode in modes if "repair" in mode.faces()]
    rank = {name: i for i, name in enumerate(_REPAIR_ORDER)}
    for mode in sorted(with_repair, key=lambda mode: rank.get(mode.name, len(rank))):
        completion = mode.repair(example, completion)
    return completion
