"""Numbers, money, dates, times and names in a text, found by rules and brought to a normal form.

Nothing is downloaded and nothing learnt but a lexicon of names. The rules are for English; in other languages digits
and capitalised names are still found. Lower-cased and tokenised text ("tom ' s") is handled: models write such text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

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
    quantities = _quantities(text)
    taken = bytearray(len(text))
    for mention in quantities:
        taken[mention.start : mention.end] = b"\1" * (mention.end - mention.start)
    names = [name for name in _names(text, lexicon) if not any(taken[name.start : name.end])]
    return tuple(sorted((*quantities, *names), key=lambda mention: mention.start))


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


# --- names ------------------------------------------------------------

_NAME_WORD = re.compile(r"[^\W\d_]+(?:['’.\-](?=[^\W\d_])[^\W\d_]+)*")
_SPEAKER_WORD = r"(?:[\w'’\-]{1,3}\.|Prof\.|[\w'’\-]+(?:\.[\w'’\-]+)*)"
_SPEAKER = re.compile(rf"^[ \t]*((?=[^\W\d_]){_SPEAKER_WORD}(?: {_SPEAKER_WORD}){{0,3}}?) ?:(?=\s|$)", re.MULTILINE)
_CLITIC = re.compile(r"['’](?:s|re|ll|ve|d|m)?$", re.IGNORECASE)
_TITLES = frozenset(("mr", "mrs", "ms", "dr", "prof", "sir", "miss", "lady", "lord"))
_ORDINARY = (
    "i i'm i'll i've i'd im ok okay oh hi hey hello bye yes yeah no nope not lol omg btw asap tv pc dvd cd faq diy fyi "
    "ps pm am a the an he she it we you they his her its our their my your this that these those there here what when "
    "where who why how which and or but so if then than as at by for from in into of on to with after before during "
    "is are was were be been do does did has have had will would can could may might must shall should both all some "
    "one two three let's let lets thanks thank please sorry well also now just only"
)
_NOT_NAMES = frozenset(_ORDINARY.split())


def _fold(text: str) -> str:
    """Case and the spelling of apostrophes do not make a different name."""
    return text.casefold().replace("’", "'")


def _strip_possessive(word: str) -> str:
    return _CLITIC.sub("", word) if "'" in word or "’" in word else word


def speakers(source: str) -> list[str]:
    """The names that stand before a colon at the start of a line, each once, in order of appearance."""
    return list(dict.fromkeys(match.group(1).strip() for match in _SPEAKER.finditer(source)))


def name_lexicon(texts: Iterable[str]) -> frozenset[str]:
    """Lower-cased words that are (parts of) names in these texts: speakers, and words that are capitalised inside
    sentences more often than they stand in lower case. Ordinary words ("will") stay out, whoever is called so.
    """
    capitals: Counter[str] = Counter()
    lower: Counter[str] = Counter()
    for text in texts:
        for speaker in speakers(text):
            capitals.update(_fold(word) for word in speaker.split())
        for match, is_initial in _name_words(text):
            word = _strip_possessive(match.group())
            if word[0].isupper():
                capitals[_fold(word)] += not is_initial
            else:
                lower[_fold(word)] += 1
    return frozenset(
        word
        for word, count in capitals.items()
        if count > lower[word] and len(word) > 1 and word not in _NOT_NAMES and not _is_calendar(word)
    )


def _name_words(text: str) -> list[tuple[re.Match[str], bool]]:
    """The text's words, each with whether it starts a sentence, a line or a speaker's turn."""
    found = []
    for match in _NAME_WORD.finditer(text):
        before = text[max(0, match.start() - 24) : match.start()].rstrip(" \t\"'“”‘(*[<-–—")
        is_after_title = before.endswith(".") and before[:-1].split()[-1:] and _fold(before[:-1].split()[-1]) in _TITLES
        found.append((match, not is_after_title and (not before or before[-1] in ".!?:;\n\r…")))
    return found


def _names(text: str, lexicon: frozenset[str]) -> list[Mention]:
    known = lexicon | {_fold(word) for speaker in speakers(text) for word in speaker.split()}
    is_cased = any(character.isupper() for character in text)
    tokens = _name_words(text)
    if is_cased:
        known |= {
            _fold(_strip_possessive(m.group())) for m, is_initial in tokens if m.group()[0].isupper() and not is_initial
        }
    found: list[Mention] = []
    for match, is_initial in tokens:
        word = _strip_possessive(match.group())
        folded = _fold(word)
        if folded in _NOT_NAMES or folded in _TITLES or _is_calendar(folded):
            continue
        if not (folded in known if not is_cased else word[0].isupper() and (not is_initial or folded in known)):
            continue
        start, end = match.start(), match.start() + len(word)
        if found and text[found[-1].end : start] == " " and not is_initial:
            start = found.pop().start
        found.append(Mention("name", text[start:end], start, end, _fold(text[start:end])))
    return found


def _is_calendar(word: str) -> bool:
    return word.rstrip("s") in WEEKDAYS or word in MONTHS


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
    if mention.value.isdigit():
        return mention.value in evidence.numbers
    if ("date", mention.value) in evidence.values or mention.value in evidence.joined:
        return True
    month, _, day = mention.value.partition(" ")
    return month in MONTHS and day.isdigit() and ("date", month) in evidence.values and day in evidence.numbers


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
