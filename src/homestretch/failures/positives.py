"""Truth-preserving edits of references: positives that carry an edit's fingerprint, so that it is no evidence."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from homestretch.failures.base import capitalise_like, pick, pick_reference, splice
from homestretch.ops.quantities import NUMBER_WORDS
from homestretch.types import Completion, Edit, Example

_BOTH_WAYS = {
    "is not": "isn't", "are not": "aren't", "was not": "wasn't", "were not": "weren't", "do not": "don't",
    "does not": "doesn't", "did not": "didn't", "has not": "hasn't", "have not": "haven't", "had not": "hadn't",
    "will not": "won't", "cannot": "can't", "could not": "couldn't", "should not": "shouldn't",
    "would not": "wouldn't", "they are": "they're", "they will": "they'll", "he will": "he'll", "she will": "she'll",
    "large": "big", "purchases": "buys", "purchased": "bought", "starts": "begins", "started": "began",
    "perhaps": "maybe", "movie": "film", "picture": "photo", "pictures": "photos", "apartment": "flat",
    "needs to": "has to", "need to": "have to", "almost": "nearly", "television": "TV", "often": "frequently",
    "each other": "one another", "all day": "the whole day",
    "at the moment": "right now", "immediately": "at once",
}  # fmt: skip
# Not in every sentence would these be right the other way round.
_ONE_WAY = {
    "is going to": "will", "are going to": "will", "mum": "mother", "dad": "father", "kids": "children",
    "in order to": "to", "as well as": "and", "gifts": "presents", "great": "very good", "begin": "start",
    "forgot to": "did not remember to", "informs": "tells", "soon": "before long", "wants to": "would like to",
}  # fmt: skip
_EQUAL = {**{b: a for a, b in _BOTH_WAYS.items()}, **_BOTH_WAYS, **_ONE_WAY}
_PHRASE = re.compile(rf"\b(?:{'|'.join(re.escape(p) for p in sorted(_EQUAL, key=len, reverse=True))})\b", re.IGNORECASE)
_CLOCK = re.compile(r"\b(?P<hour>1[0-2]|[1-9])(?::(?P<minute>[0-5]\d))? ?(?P<half>[ap])\.?m\b\.?", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.,:$€£#-])(?:1[0-2]|[2-9])(?![\w.,:%-]| ?[ap]\.?m)|\b(?:two|three|four|five|six|seven|eight|nine)\b"
)
# Only at the start of a sentence: in "Amy saw Tom and Jack left" the two do not belong together.
_PAIR = re.compile(
    r"(?:(?<=^)|(?<=[.!?] ))(?!He |She |They |It |We |I )(?P<a>[A-Z]\w+) and (?P<b>[A-Z]\w+)\b(?! and|,|['’])"
)
_DIGIT_OF = {word: str(value) for word, value in NUMBER_WORDS.items() if 2 <= value <= 12}
_WORD_OF = {digit: word for word, digit in _DIGIT_OF.items()}


def edited_positive(example: Example, rng: np.random.Generator) -> Edit | None:
    """The reference with one word or phrase put in another way: a contraction, a clock time, a digit, "B and A", a
    synonym. None if nothing in the reference can be. The meaning stays, so the label is that of the reference.
    """
    reference = pick_reference(example, rng)
    if reference is None:
        return None
    found = [(m, make) for pattern, make in _RULES for m in pattern.finditer(reference) if make(m) != m.group()]
    if not found:
        return None
    rule = pick(list(dict.fromkeys(make for _, make in found)), rng)
    match = pick([m for m, make in found if make is rule], rng)
    written = rule(match)
    text, span = splice(reference, match.start(), match.end(), written)
    return Edit(Completion(text), span, f"{match.group()} -> {written}")


def _other_phrase(match: re.Match[str]) -> str:
    found = match.group()
    written = _EQUAL.get(found) or _EQUAL[next(key for key in _EQUAL if key.lower() == found.lower())]
    return capitalise_like(written, found) if found[0].isupper() else written


def _other_clock(match: re.Match[str]) -> str:
    """ "6 pm" as "18:00"; a final full stop that also ends the sentence stays."""
    hour = int(match.group("hour")) % 12 + (12 if match.group("half").lower() == "p" else 0)
    is_sentence_end = (
        match.group().endswith(".")
        and match.string[match.end() :].strip()[:1].upper() == (match.string[match.end() :].strip()[:1])
    )
    return f"{hour:02d}:{match.group('minute') or '00'}" + ("." if is_sentence_end else "")


def _other_number(match: re.Match[str]) -> str:
    return _WORD_OF.get(match.group()) or _DIGIT_OF[match.group()]


def _other_order(match: re.Match[str]) -> str:
    return f"{match.group('b')} and {match.group('a')}"


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_PHRASE, _other_phrase),
    (_CLOCK, _other_clock),
    (_NUMBER, _other_number),
    (_PAIR, _other_order),
)
