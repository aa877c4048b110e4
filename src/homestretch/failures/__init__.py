"""The ways an output can fail: one file each, found by name, fitted to the task together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from homestretch.failures.plugin import guarded
from homestretch.ops.slots import is_data_to_text
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
    "missing_slot": "homestretch.failures.missing_slot:MissingSlot",
    "hallucinated_slot": "homestretch.failures.hallucinated_slot:HallucinatedSlot",
    "wrong_slot": "homestretch.failures.wrong_slot:WrongSlot",
}
"""Name in recipes and files -> class. Packages add theirs as entry points of `homestretch.failure_modes`."""

PRESETS: dict[str, tuple[str, ...]] = {
    "paper": ("random_tokens", "irrelevant", "shuffled", "repetition", "echo"),
    "full": tuple(FAILURE_MODES),
}
"""`paper`: the five classes of arXiv 2408.16753 as we read it; `full`: every mode."""

SLOT_MODES = ("missing_slot", "hallucinated_slot", "wrong_slot")
"""Modes of data-to-text alone; a preset has them only where the documents are meaning representations."""

_REPAIR_ORDER = ("run_on", "repetition", "truncation")


def mode_names(config: NegativesConfig) -> tuple[str, ...]:
    """The modes a recipe asks for: its preset, plus `include`, less `exclude`, as the recipe writes them.

    A mode of one's own may be excluded by its class's `name` too. Raises UserError if none is left, or if `exclude`
    names a mode that is not there.
    """
    names = tuple(dict.fromkeys((*PRESETS[config.preset], *config.include)))
    excluded = set(config.exclude)
    if not excluded <= set(names):
        classes = {name: name if name in FAILURE_MODES else mode_class(name).name for name in names}
        if unknown := [name for name in config.exclude if name not in names and name not in classes.values()]:
            known = ", ".join(classes.values())
            raise UserError(f"negatives.exclude: {unknown[0]!r} is not among the modes of this recipe ({known})")
        excluded |= {name for name in names if classes[name] in excluded}
    kept = tuple(name for name in names if name not in excluded)
    if not kept:
        raise UserError("negatives.exclude leaves no failure mode; take a name out of it")
    return kept


def task_mode_names(config: NegativesConfig, train: Sequence[Example]) -> tuple[str, ...]:
    """`mode_names` for these training examples: without slot modes that do not apply to the task.

    One that `include` names stays: it was asked for, so it is said that it applies to nothing.
    """
    names = mode_names(config)
    if is_data_to_text(train):
        return names
    return tuple(name for name in names if name not in SLOT_MODES or name in config.include)


def mode_class(name: str) -> type[FailureMode]:
    """The class that a name in a recipe stands for; one that is not ours is watched (`plugin.guarded`).

    In files and reports a mode goes by its class's `name`. Raises UserError for an unknown name, and for a class that
    cannot be used.
    """
    found = resolve(name, FAILURE_MODES, "homestretch.failure_modes", "failure mode")
    if not (isinstance(found, type) and issubclass(found, FailureMode)):
        raise UserError(f"failure mode {name!r}: the class must derive from homestretch.types.FailureMode")
    if name in FAILURE_MODES:
        return found
    own = getattr(found, "name", None)
    if not (isinstance(own, str) and own.strip()):
        raise UserError(f'failure mode {name!r}: the class has no name; give it one, such as `name = "my_mode"`')
    if own in FAILURE_MODES:
        raise UserError(f"failure mode {name!r}: its name {own!r} is that of a mode of ours; give the class another")
    if not found.faces():
        raise UserError(f"failure mode {name!r}: the class has none of corrupt, detect and repair; write at least one")
    return guarded(found)


def mode_classes(names: Iterable[str]) -> list[type[FailureMode]]:
    """`mode_class` of each name. Raises UserError with a line for every mistake, two classes of one name among them."""
    classes: dict[str, tuple[str, type[FailureMode]]] = {}
    complaints: list[str] = []
    for name in names:
        try:
            found = mode_class(name)
        except UserError as error:
            complaints.append(str(error))
            continue
        first, _ = classes.setdefault(found.name, (name, found))
        if first != name:
            complaints.append(f"failure mode {name!r}: its name {found.name!r} is also that of {first!r}; change one")
    if complaints:
        raise UserError("\n".join(complaints))
    return [found for _, found in classes.values()]


def build_modes(names: Iterable[str], corpus: Corpus) -> list[FailureMode]:
    """The named modes, fitted to the corpus, in the order of the names. Raises UserError as `mode_classes` does."""
    modes = [found() for found in mode_classes(names)]
    for mode in modes:
        mode.fit(corpus)
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
