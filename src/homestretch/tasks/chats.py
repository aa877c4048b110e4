"""The `chats` task: two people arrange something; one sentence says what came of it.

A chat is an opening (who does what, with first values), then corrections (a value is misstated or agreed on anew),
rejections (a value is proposed and turned down) and small talk that names other days, places and people. The summary
must hold the values that were valid at the end, and the right person as the one who acts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from homestretch.tasks import chats_text as text_
from homestretch.tasks.base import SPLITS, Task
from homestretch.tasks.chats_facts import ROLES, fact_metrics, value_of
from homestretch.tasks.chats_scenarios import SCENARIOS, Scenario
from homestretch.types import Example, Metric

_MIN_TURNS, _MAX_TURNS = 4, 8
_MIN_WORDS, _MAX_WORDS = 24, 75
_T = TypeVar("_T")

_DISTRACTOR_VALUES: dict[str, tuple[str, ...]] = {
    "person": text_.NAMES,
    "place": text_.PLACES,
    "day": text_.DAYS,
    "time": text_.TIMES,
    "object": text_.THINGS,
    "price": text_.PRICES,
    "vehicle": text_.VEHICLES,
    "city": text_.CITIES,
    "event": text_.PARTIES + text_.SHOWS,
}


@dataclass(frozen=True, slots=True)
class _Draft:
    """A chat before it is an example."""

    source: str
    reference: str
    facts: dict[str, Any]


class Chats(Task):
    """Short two-person chats with distractors and corrections -> a one-sentence summary with exact facts.

    `correction_share`: share of chats with a correction; `rejection_share`: share with a proposal that is turned down;
    `reversal_share`: share, where the scenario has such openings, in which the job is handed back to the one who asked;
    `max_distractors`: each chat has 0 to this many pieces of unrelated small talk.
    """

    name: ClassVar[str] = "chats"
    template: ClassVar[str] = "{document}\nSummary:"

    def __init__(
        self,
        *,
        correction_share: float = 0.5,
        rejection_share: float = 0.25,
        reversal_share: float = 0.2,
        max_distractors: int = 1,
    ) -> None:
        if not all(0 <= share <= 1 for share in (correction_share, rejection_share, reversal_share)):
            raise ValueError("correction_share, rejection_share and reversal_share are between 0 and 1")
        if max_distractors < 0:
            raise ValueError("max_distractors is at least 0")
        self.correction_share = correction_share
        self.rejection_share = rejection_share
        self.reversal_share = reversal_share
        self.max_distractors = max_distractors

    def generate(self, split: str, size: int, seed: int) -> list[Example]:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        examples: list[Example] = []
        seen: set[str] = set()
        while len(examples) < size:
            draft = self._draft(rng)
            if draft is None or _split_of(draft.facts) != split or draft.source in seen:
                continue
            seen.add(draft.source)
            examples.append(self._example(f"{self.name}-{split}-{len(examples)}", draft, split))
        return examples

    def metrics(self) -> list[Metric]:
        return fact_metrics()

    def _example(self, example_id: str, draft: _Draft, split: str) -> Example:
        is_labelled = split != "prompts"
        return Example(
            id=example_id,
            source=draft.source,
            prompt=self.template.format(document=draft.source),
            document_span=(0, len(draft.source)),
            references=(draft.reference,) if is_labelled else (),
            facts=draft.facts if is_labelled else {},
        )

    def _draft(self, rng: np.random.Generator) -> _Draft | None:
        """One random chat; None if it came out too short or too long."""
        scenario = _pick(rng, SCENARIOS)
        a, b = (text_.NAMES[i] for i in rng.choice(len(text_.NAMES), 2, replace=False))
        used = {a, b}
        values = {role: _unused(rng, phrases, used) for role, phrases in scenario.slots.items()}
        is_reversed = scenario.reversals and rng.random() < self.reversal_share
        opening = _pick(rng, scenario.reversals if is_reversed else scenario.openings)
        lines = _speak(opening, {"A": a, "B": b}, values)
        later = self._changes(rng, scenario, (a, b), values, used)
        blocks = [lines, *later]
        for _ in range(int(rng.integers(0, self.max_distractors + 1))):
            blocks.insert(int(rng.integers(0, len(blocks) + 1)), _distractor(rng, (a, b), used))
        blocks = _with_courtesies(rng, blocks, (a, b))
        turns = _merge([line for block in blocks for line in block])
        source = "\n".join(f"{speaker}: {text}" for speaker, text in turns)
        if not (_MIN_TURNS <= len(turns) <= _MAX_TURNS and _MIN_WORDS <= len(source.split()) <= _MAX_WORDS):
            return None
        reference = _fill(_pick(rng, scenario.references), {**values, "a": a, "b": b})
        return _Draft(source, reference, _facts(scenario, (a, b), values))

    def _changes(
        self,
        rng: np.random.Generator,
        scenario: Scenario,
        people: tuple[str, str],
        values: dict[str, str],
        used: set[str],
    ) -> list[list[tuple[str, str]]]:
        """Corrections and rejections as blocks of lines, in random order; `values` is brought up to date."""
        kinds = ["correct"] * bool(rng.random() < self.correction_share)
        kinds += ["reject"] * bool(rng.random() < self.rejection_share)
        rng.shuffle(kinds)
        roles = [role for role in scenario.slots if role != "person"]
        blocks = []
        for kind in kinds:
            role = _pick(rng, roles)
            old, new = values[role], _unused(rng, scenario.slots[role], used)
            is_open = role not in scenario.fixed
            if kind == "correct":
                beats = text_.MISSTATED + text_.CHANGED if is_open else text_.MISSTATED
                values[role] = new
            else:
                beats = text_.DENIED + text_.REJECTED if is_open else text_.DENIED
            blocks.append(_speak(_pick(rng, beats), _either(rng, people), {"old": old, "new": new}))
        return blocks


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _unused(rng: np.random.Generator, phrases: Sequence[str], used: set[str]) -> str:
    """A value not yet in the chat, noted in `used`: no two different facts of a chat share a value."""
    phrase = _pick(rng, [p for p in phrases if p not in used])
    used.add(phrase)
    return phrase


def _either(rng: np.random.Generator, people: tuple[str, str]) -> dict[str, str]:
    x, y = people if rng.random() < 0.5 else people[::-1]
    return {"X": x, "Y": y}


def _fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its values; `{Old}` is `{old}` with a capital, and so is the text's first letter."""
    capitals = {key.capitalize(): value[0].upper() + value[1:] for key, value in values.items() if len(key) > 1}
    text = template.format(**values, **capitals)
    return text[0].upper() + text[1:]


def _speak(beat: text_.Beat, cast: Mapping[str, str], values: Mapping[str, str]) -> list[tuple[str, str]]:
    names = {role.lower(): name for role, name in cast.items()}
    return [(cast[speaker], _fill(template, {**values, **names})) for speaker, template in beat]


def _distractor(rng: np.random.Generator, people: tuple[str, str], used: set[str]) -> list[tuple[str, str]]:
    beat = _pick(rng, text_.DISTRACTORS)
    text = " ".join(template for _, template in beat)
    values = {
        role: _unused(rng, phrases, used) for role, phrases in _DISTRACTOR_VALUES.items() if f"{{{role}}}" in text
    }
    return _speak(beat, _either(rng, people), values)


def _with_courtesies(
    rng: np.random.Generator, blocks: list[list[tuple[str, str]]], people: tuple[str, str]
) -> list[list[tuple[str, str]]]:
    """The blocks with a greeting before and a goodbye after, each half of the time; always if there is little else."""
    is_short = sum(len(block) for block in blocks) < _MIN_TURNS
    if is_short or rng.random() < 0.5:
        blocks = [_speak(_pick(rng, text_.GREETINGS), _either(rng, people), {}), *blocks]
    if is_short or rng.random() < 0.5:
        blocks = [*blocks, _speak(_pick(rng, text_.CLOSINGS), _either(rng, people), {})]
    return blocks


def _merge(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Lines of one speaker in a row become one turn."""
    turns: list[tuple[str, str]] = []
    for speaker, text in lines:
        if turns and turns[-1][0] == speaker:
            turns[-1] = (speaker, f"{turns[-1][1]} {text}")
        else:
            turns.append((speaker, text))
    return turns


def _facts(scenario: Scenario, people: tuple[str, str], values: Mapping[str, str]) -> dict[str, Any]:
    a, b = people
    facts: dict[str, Any] = {"scenario": scenario.name, "speakers": [a, b]}
    named = [key for key in ("a", "b", "person") if f"{{{key}}}" in scenario.references[0]]
    names = {"a": a, "b": b, "person": values.get("person", "")}
    if scenario.has_agent:
        facts["agent"] = a
        named.remove("a")
    facts["others"] = [names[key] for key in named]
    facts.update((role, value_of(values[role])) for role in ROLES if role in values)
    return facts


def _split_of(facts: Mapping[str, Any]) -> str:
    """The one split that may hold these facts: told in other words they are still in the same split."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
    return SPLITS[digest[0] % len(SPLITS)]
