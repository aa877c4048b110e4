"""Reading an output of the `chats` task back into facts, and scoring them exactly.

The reading knows the task's closed vocabularies but not its sentence templates: a value counts as stated wherever it
stands. The agent is the name before the scenario's verb, the name after "by" in the passive, or the name after the
inverse verb ("Tom will lend the tent to Mia" states that Mia borrows it). Case and spacing do not matter. What it does
not see: negation of the whole sentence, and things outside the vocabularies (they lower recall, not precision).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.tasks import chats_text as text_
from homestretch.tasks.chats_scenarios import SCENARIOS, Scenario
from homestretch.types import Completion, Example, Metric

ROLES: tuple[str, ...] = ("day", "time", "place", "city", "object", "event", "vehicle", "price", "count")
"""Roles whose values are things, not people."""

Fact = tuple[str, str]
"""(role, value), lower-cased; roles of people are "agent" and "other"."""

_TOKEN = re.compile(r"\d+|[^\W\d_]+|\$|€|£|:")
_NAMES = frozenset(name.lower() for name in text_.NAMES)
_PRONOUNS = frozenset({"he", "she", "they", "it"})
_NUMBER_WORDS = dict(one="1", two="2", three="3", four="4", five="5", six="6", seven="7", eight="8", nine="9", ten="10")
_TIME_PREPOSITIONS = frozenset({"at", "by", "before", "until", "around", "after"})
_CURRENCY_SIGNS = frozenset({"$", "€", "£"})
_CURRENCY_WORDS = frozenset({"dollar", "dollars", "euro", "euros", "pound", "pounds", "bucks"})
_SCENARIOS = {scenario.name: scenario for scenario in SCENARIOS}


def value_of(phrase: str) -> str:
    """A vocabulary's noun phrase as a fact's value: "the cafe" -> "cafe", "$40" -> "40", "4 tickets" -> "4"."""
    return re.sub(r"^the |^\$| tickets$", "", phrase.lower())


def _noun_roles() -> dict[str, str]:
    phrases = {
        "day": text_.DAYS,
        "place": text_.PLACES,
        "city": text_.CITIES,
        "object": text_.THINGS + text_.FOODS + text_.PAPERS,
        "event": text_.PARTIES + text_.SHOWS,
        "vehicle": text_.VEHICLES,
    }
    return {value_of(phrase): role for role, group in phrases.items() for phrase in group}


_NOUN_ROLES = _noun_roles()


def _tokens(text: str) -> list[str]:
    lowered = re.sub(r"\b([ap])\s*\.\s*m\b\.?", r"\1m", text.lower())
    return [_NUMBER_WORDS.get(token, token) for token in _TOKEN.findall(lowered)]


def _at(tokens: Sequence[str], i: int) -> str:
    return tokens[i] if 0 <= i < len(tokens) else ""


def _half(hour: int) -> str:
    """The half of the day a bare hour means in this task."""
    return "am" if hour in text_.HOURS and hour >= 8 else "pm"


def _number_facts(tokens: Sequence[str]) -> set[Fact]:
    """Prices, times and counts, told apart by what stands beside the number."""
    facts: set[Fact] = set()
    i = 0
    while i < len(tokens):
        token, before, following = tokens[i], _at(tokens, i - 1), i + 1
        if not token.isdecimal():
            i += 1
            continue
        minutes = ""
        if _at(tokens, i + 1) == ":" and _at(tokens, i + 2).isdecimal():
            minutes, following = tokens[i + 2], i + 3
        after = _at(tokens, following)
        if before in _CURRENCY_SIGNS or after in _CURRENCY_WORDS:
            facts.add(("price", token))
        elif after in ("am", "pm") or minutes or (before in _TIME_PREPOSITIONS and not after.startswith("ticket")):
            half = after if after in ("am", "pm") else _half(int(token))
            clock = token if minutes in ("", "00") else f"{token}:{minutes}"
            facts.add(("time", f"{clock} {half}"))
        else:
            facts.add(("count", token))
        i = following
    return facts


def _subjects(tokens: Sequence[str], verb: int) -> set[str]:
    """The names before the verb that are its subject: the nearest, and what "and" joins to it."""
    names = [i for i in range(verb) if tokens[i] in _NAMES]
    if not names:
        return set()
    last = names[-1]
    if any(token in _PRONOUNS for token in tokens[last + 1 : verb]):
        return {tokens[names[0]]}
    subjects = {tokens[last]}
    while _at(tokens, last - 1) == "and" and _at(tokens, last - 2) in _NAMES:
        last -= 2
        subjects.add(tokens[last])
    return subjects


def _agents(tokens: Sequence[str], scenario: Scenario) -> set[str]:
    """The names the text gives the agent's role; empty if it names nobody in it."""
    for i, token in enumerate(tokens):
        if token in scenario.verbs:
            passive = [
                tokens[j + 1] for j in range(i, len(tokens) - 1) if tokens[j] == "by" and tokens[j + 1] in _NAMES
            ]
            return set(passive) or _subjects(tokens, i)
        if token in scenario.inverse_verbs:
            after = [
                tokens[j] for j in range(i + 1, len(tokens)) if tokens[j] in _NAMES and tokens[j - 1] != "by"
            ]  # fmt: skip
            return set(after[:1])
    return {next((token for token in tokens if token in _NAMES), "")} - {""}


def stated_facts(text: str, scenario_name: str) -> frozenset[Fact]:
    """The facts a text states, read with the scenario's verbs. Raises KeyError for an unknown scenario."""
    scenario = _SCENARIOS[scenario_name]
    tokens = _tokens(text)
    facts = {(_NOUN_ROLES[token], token) for token in tokens if token in _NOUN_ROLES} | _number_facts(tokens)
    agents = _agents(tokens, scenario) if scenario.has_agent else set()
    facts |= {("agent", name) for name in agents}
    facts |= {("other", token) for token in tokens if token in _NAMES and token not in agents}
    return frozenset(facts)


def true_facts(facts: Mapping[str, Any]) -> frozenset[Fact]:
    """`Example.facts` of this task as (role, value) pairs."""
    people = {("agent", facts["agent"])} if "agent" in facts else set()
    people |= {("other", name) for name in facts["others"]}
    things = {(role, facts[role]) for role in ROLES if role in facts}
    return frozenset((role, value.lower()) for role, value in people | things)


@dataclass(frozen=True, slots=True)
class _FactScorer:
    """A scorer from a function of (true facts, stated facts)."""

    score: Callable[[frozenset[Fact], frozenset[Fact]], float]

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        scores = np.full(len(examples), np.nan)
        for i, (example, completion) in enumerate(zip(examples, completions, strict=True)):
            if example.facts:
                stated = stated_facts(completion.text, example.facts["scenario"])
                scores[i] = self.score(true_facts(example.facts), stated)
        return scores


def precision(true: frozenset[Fact], stated: frozenset[Fact]) -> float:
    """Share of the stated facts that are true; NaN if none is stated."""
    return len(true & stated) / len(stated) if stated else float("nan")


def recall(true: frozenset[Fact], stated: frozenset[Fact]) -> float:
    """Share of the true facts that are stated."""
    return len(true & stated) / len(true)


def f1(true: frozenset[Fact], stated: frozenset[Fact]) -> float:
    """Harmonic mean of precision and recall, 2 |true and stated| / (|true| + |stated|); 0 if nothing is stated."""
    return 2 * len(true & stated) / (len(true) + len(stated))


def wrong_speaker(true: frozenset[Fact], stated: frozenset[Fact]) -> float:
    """1 if another is given the agent's role, 0 if only the agent is; NaN if nobody is, or no such role exists."""
    agent = {fact for fact in true if fact[0] == "agent"}
    named = {fact for fact in stated if fact[0] == "agent"}
    return float("nan") if not agent or not named else float(named != agent)


def fact_metrics() -> list[Metric]:
    """The task's exact metrics."""
    return [
        Metric("fact_precision", _FactScorer(precision)),
        Metric("fact_recall", _FactScorer(recall)),
        Metric("fact_f1", _FactScorer(f1)),
        Metric("wrong_speaker", _FactScorer(wrong_speaker), higher_is_better=False),
    ]
