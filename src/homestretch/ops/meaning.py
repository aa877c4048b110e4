"""Meaning representations, the documents of data-to-text tasks: their slots, and the words that realise a value.

Two notations are read: attributes, `name[Aromi], food[Chinese]` (E2E, Novikova et al. 2017), and triples,
`subject | predicate | object && ...` (WebNLG, Gardent et al. 2017).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from homestretch.ops.quantities import MONTHS, NUMBER_WORDS, number_value, plain_number
from homestretch.ops.words import WORD_PATTERN

_KEY = r"[^\W\d_][\w \-/]{0,39}"
_ATTRIBUTE = re.compile(rf"\s*({_KEY})\[([^\[\]\n]+)\]\s*")
_ATTRIBUTES = re.compile(rf"{_ATTRIBUTE.pattern}(?:,{_ATTRIBUTE.pattern})*")
_TOKEN = re.compile(rf"{WORD_PATTERN.pattern}|[^\w\s]")
_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_PLACE = re.compile(r"([^,]+), [A-Z][^,]*")
_MIN_PLURAL = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """One thing that a meaning representation says."""

    name: str
    """The attribute, or the predicate; of a triple's subject "subject of" and the predicate."""
    value: str
    """As it stands in the document."""
    role: str
    """What the value is in a sentence: the attribute's name; "subject" or "object" of a triple."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a punctuation mark of a text."""

    normal: str
    """Without case, accents and possessive; a number as plain digits ("five" is 5)."""
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.normal[0].isalnum()


@lru_cache(maxsize=32768)
def slots(document: str) -> tuple[Slot, ...]:
    """The slots of a meaning representation, each once, in order; empty for any other text.

    The whole document must be in one of the two notations, on one line.
    """
    found = _attributes(document) or _triples(document)
    return tuple(dict.fromkeys(found))


def _attributes(document: str) -> list[Slot]:
    if not _ATTRIBUTES.fullmatch(document):
        return []
    found = [(m.group(1).strip(), m.group(2).strip()) for m in _ATTRIBUTE.finditer(document)]
    return [Slot(name, value, name) for name, value in found if value]


def _triples(document: str) -> list[Slot]:
    if "\n" in document.strip():
        return []
    found = []
    for triple in document.split("&&"):
        parts = [part.strip() for part in triple.split(" | ")]
        # An entity is one word with underscores, or the predicate is one word: a row of a table is neither.
        is_triple = len(parts) == 3 and triple.count("|") == 2 and all(map(surfaces, parts))
        if not is_triple or (" " in parts[0] and " " in parts[1]):
            return []
        subject, predicate, value = parts
        found += [Slot(f"subject of {predicate}", subject, "subject"), Slot(predicate, value, "object")]
    return found


@lru_cache(maxsize=65536)
def tokens(text: str) -> tuple[Token, ...]:
    """The text's words, numbers and punctuation marks in order."""
    return tuple(Token(_normal(m.group()), m.start(), m.end()) for m in _TOKEN.finditer(text))


@lru_cache(maxsize=65536)
def _normal(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    folded = re.sub(r"(?<=\w)'s$", "", "".join(c for c in decomposed if not unicodedata.combining(c))) or word
    if ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", folded, re.ASCII):
        return ordinal.group(1)
    if folded in NUMBER_WORDS:
        return str(NUMBER_WORDS[folded])
    value = number_value(folded) if folded[0].isdigit() and folded.isascii() else None
    return folded if value is None else plain_number(value)


def written(value: str) -> str:
    """A value as it would stand in a sentence: no quotes, no underscores, no note in brackets, no ".0"."""
    plain = value.strip().strip('"').replace("_", " ").strip()
    without_note = re.sub(r"\s*\([^()]*\)", "", plain).strip()
    return re.sub(r"^(-?\d+)\.0$", r"\1", without_note or plain)


@lru_cache(maxsize=65536)
def surfaces(value: str) -> tuple[tuple[str, ...], ...]:
    """The word sequences, normalised, that realise a value; the first is the value's own. Empty if it has no word.

    Besides the value as written: without a note in brackets, a place without its region ("Albany" for "Albany,
    Oregon"), a day with its month in words, and singular and plural of the last word.
    """
    plain = value.strip().strip('"').replace("_", " ").strip()
    forms = [plain, written(value)]
    if place := _PLACE.fullmatch(written(value)):
        forms.append(place.group(1))
    if (date := _ISO_DATE.fullmatch(plain)) and 1 <= int(date.group(2)) <= 12:
        year, month, day = date.group(1), MONTHS[int(date.group(2)) - 1], str(int(date.group(3)))
        forms += [f"{month} {day} {year}", f"{day} {month} {year}", f"{day} of {month} {year}"]
    found = [normal_words(form) for form in forms]
    numbers = [words for words in found if words]
    return tuple(dict.fromkeys([*numbers, *(_other_number(words) for words in numbers if words[-1].isalpha())]))


def normal_words(text: str) -> tuple[str, ...]:
    """The text's words and numbers, normalised."""
    return tuple(token.normal for token in tokens(text) if token.is_word)


def _other_number(words: tuple[str, ...]) -> tuple[str, ...]:
    """Singular for plural, plural for singular, of the last word; short words stay."""
    last = words[-1]
    if len(last) < _MIN_PLURAL:
        return words
    return (*words[:-1], last[:-1] if last.endswith("s") else last + "s")
