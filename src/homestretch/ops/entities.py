"""Numbers, money, dates, times and names in a text, found by rules and brought to a normal form.

Nothing is downloaded and nothing learnt but a lexicon of names. The rules are for English; in other languages digits
and capitalised names are still found. Lower-cased and tokenised text ("tom ' s") is handled: models write such text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from homestretch.ops.names import Span, fold, name_spans
from homestretch.ops.quantities import DIGITS, MONTHS, NUMBER_WORDS, PATTERNS, WEEKDAYS, number_value, plain_number

Kind = Literal["number", "money", "date", "time", "name"]


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention of an entity in a text."""

    kind: Kind
    text: str
    """As written: `source[start:end]`."""
    start: int
    end: int
    value: str
    """Normal form: "3.5", "30 usd", "friday", "may 12", "17:00" ("5:00?": the half of the day is open), "tom smith"."""


def mentions(text: str, lexicon: frozenset[str] = frozenset()) -> list[Mention]:
    """Every mention in the text, in order and without overlaps.

    `lexicon` holds lower-cased words known to be (parts of) names, see `name_lexicon`. It settles whether a sentence's
    first word is a name, and it finds names in text without capitals. Speakers of a dialogue are known names.
    """
    return list(_mentions(text, lexicon))


@lru_cache(maxsize=32768)
def _mentions(text: str, lexicon: frozenset[str]) -> tuple[Mention, ...]:
    taken = bytearray(len(text))
    for quantity in _quantities(text):
        taken[quantity.start : quantity.end] = b"\1" * (quantity.end - quantity.start)
    return tuple(with_names(text, name_spans(text, lexicon, lambda start, end: not any(taken[start:end]))))


def with_names(text: str, spans: Iterable[Span]) -> list[Mention]:
    """The text's quantities together with names that stand in `spans`, in order and without overlaps.

    A quantity inside a longer name is part of it ("Voyager 1"); a name that overlaps a quantity otherwise is left out.
    """
    named = [Mention("name", text[start:end], start, end, fold(text[start:end])) for start, end in spans]
    kept = [
        q
        for q in _quantities(text)
        if not any(n.start <= q.start and q.end <= n.end and n.text != q.text for n in named)
    ]
    names = [name for name in named if all(name.end <= q.start or q.end <= name.start for q in kept)]
    return sorted((*kept, *names), key=lambda mention: mention.start)


@lru_cache(maxsize=32768)
def _quantities(text: str) -> tuple[Mention, ...]:
    taken = bytearray(len(text))
    found: list[Mention] = []
    for kind, pattern, normalise in PATTERNS:
        for match in pattern.finditer(text):
            value = normalise(match)
            if value is not None and not any(taken[match.start() : match.end()]):
                taken[match.start() : match.end()] = b"\1" * (match.end() - match.start())
                found.append(Mention(kind, match.group(), match.start(), match.end(), value))
    return tuple(found)


# --- support ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What a source says, in the forms `is_supported` looks things up in."""

    words: frozenset[str]
    joined: str
    numbers: frozenset[str]
    values: frozenset[tuple[str, str]]


def _join_apostrophes(text: str) -> str:
    """ "Tom's", "tom ' s" and "O’Brien" without their apostrophes: toms, toms, obrien."""
    return re.sub(r"(?<=\w)(?:['’]| ['’] )(?=\w)", "", text).casefold()


@lru_cache(maxsize=8192)
def _evidence(source: str) -> _Evidence:
    found = _quantities(source)
    joined = _join_apostrophes(source)
    words = frozenset(re.findall(r"[^\W_]+", joined))
    numbers = {m.value.split(" ")[0] for m in found if m.kind in {"number", "money"}}
    for digits in re.findall(DIGITS, source, re.ASCII):
        numbers |= {plain_number(number_value(part) or 0.0) for part in {digits, *re.split(r"[.,]", digits)}}
    numbers |= {plain_number(value) for word, value in NUMBER_WORDS.items() if word in words}
    numbers |= {"1"} if words & {"a", "an", "once", "single"} else set()
    numbers |= {"2"} if words & {"couple", "both", "twice", "pair", "two"} else set()
    values = {(m.kind, m.value) for m in found}
    values |= {("date", day) for day in WEEKDAYS if words & {day, day + "s", day[:3], day[:4], day[:5]}}
    values |= {("date", month) for month in MONTHS if words & {month, month[:3]}}
    return _Evidence(words, joined, frozenset(numbers), frozenset(values))


def is_supported(mention: Mention, source: str) -> bool:
    """Whether the mention's value occurs in the source.

    Numbers, money, dates and times are compared by value ("five" is 5, "5 pm" is 17:00, "at 5" may be either half of
    the day, "30 dollars" is supported by a bare 30); names by their words, whatever the case, possessive or apostrophe.
    """
    return _SUPPORT[mention.kind](mention, _evidence(source))


def _name_supported(mention: Mention, evidence: _Evidence) -> bool:
    parts = re.findall(r"[^\W_]+", _join_apostrophes(mention.value))
    return all(
        part in evidence.words or part + "s" in evidence.words or (part.endswith("s") and part[:-1] in evidence.words)
        for part in parts
    )


def _number_supported(mention: Mention, evidence: _Evidence) -> bool:
    return mention.value.split(" ")[0] in evidence.numbers


def _date_supported(mention: Mention, evidence: _Evidence) -> bool:
    """A date with a month is supported part by part: the month by name, day and year as numbers."""
    month, *rest = mention.value.split()
    if month.isdigit() and not rest:
        return month in evidence.numbers
    # "May 1" is not said by "May 12"
    if re.search(rf"(?<!\d){re.escape(mention.value)}(?!\d)", evidence.joined) or any(
        kind == "date" and f"{value} ".startswith(f"{mention.value} ") for kind, value in evidence.values
    ):
        return True
    is_of_month = month in MONTHS and bool(rest) and ("date", month) in evidence.values
    return is_of_month and all(number in evidence.numbers for number in rest)


def _time_supported(mention: Mention, evidence: _Evidence) -> bool:
    hour, minute = _hour_and_minute(mention.value)
    for kind, value in evidence.values:
        if kind == "time":
            is_open = "?" in value + mention.value
            other_hour, other_minute = _hour_and_minute(value)
            if minute == other_minute and (hour == other_hour or (is_open and hour % 12 == other_hour % 12)):
                return True
    bare = {value for kind, value in evidence.values if kind == "number"}
    return _bare_time_supported(hour, minute, bare)


def _bare_time_supported(hour: int, minute: int, numbers: set[str]) -> bool:
    """ "Five?", "530" or "5.30" said for a time."""
    hours = {hour, hour % 12 or 12}
    if minute == 0:
        return bool({str(h) for h in hours} & numbers)
    return bool({form for h in hours for form in (f"{h}{minute:02d}", plain_number(h + minute / 100))} & numbers)


def _hour_and_minute(value: str) -> tuple[int, int]:
    hour, _, minute = value.rstrip("?").partition(":")
    return int(hour), int(minute)


_SUPPORT: dict[Kind, Callable[[Mention, _Evidence], bool]] = {
    "name": _name_supported,
    "number": _number_supported,
    "money": _number_supported,
    "date": _date_supported,
    "time": _time_supported,
}
