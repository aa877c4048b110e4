"""Phrases that can be taken out of a data-to-text reference, or put into one, and leave a fluent sentence.

Fluent means: it is a phrase by a short list of the words that open one (English), and every run of five words (where
there is no such edit, of four or three) that the edit makes stands in two training references at least, with slot
values replaced by their role ("a <eatType> near <near>").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from homestretch.failures.base import capitalise_like
from homestretch.ops.drawing import evenly
from homestretch.ops.meaning import slots, tokens
from homestretch.ops.slots import SlotLexicon

_START, _END = "<s>", "</s>"
_STOPS = frozenset(".!?")
_ARTICLES = frozenset(("a", "an", "the"))
_OPENING = (
    ", and but which that who whose where near in on at by from with for to called named close next along beside "
    "around within under about opposite born built known found led made written won"
)
_OPENERS = frozenset(_OPENING.split())
_MIN_COUNT = 2
LENGTHS = (5, 4, 3)
"""Runs of words that must be attested: of five if possible, else of four or three."""
_PAD = max(LENGTHS) - 1
_MAX_REFERENCES = 20_000
_MAX_BEFORE = 8
_MAX_BEHIND = 3
_MIN_LEFT = 4
_CLOSING = frozenset(",.;:!?)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, a punctuation mark, or a value of the document in a reference."""

    label: str
    """The normalised word; a value's role in angle brackets."""
    start: int
    end: int
    values: frozenset[str] = frozenset()
    """Keys of the document's values that stand here."""


@dataclass(frozen=True, slots=True)
class Change:
    """An edited text, and where the edit is in it."""

    text: str
    span: tuple[int, int]


def pieces(lexicon: SlotLexicon, document: str, text: str) -> list[Piece]:
    """The text in pieces, the document's values each in one."""
    roles = {lexicon.key(slot.value): slot.role for slot in slots(document)}
    values = {m.first: m for m in lexicon.matches(document, text) if m.values & roles.keys()}
    found: list[Piece] = []
    done = 0
    for i, token in enumerate(tokens(text)):
        if i < done:
            continue
        if match := values.get(i):
            own = match.values & roles.keys()
            found.append(Piece(f"<{roles[min(own)]}>", match.start, match.end, frozenset(own)))
            done = match.last
        else:
            found.append(Piece(token.normal, token.start, token.end))
    return found


class Phrases:
    """Which word sequences are usual in a task's references."""

    def __init__(self, lexicon: SlotLexicon) -> None:
        """Learn from the texts that the lexicon is of, at most 20,000 references."""
        texts = [(document, reference) for document, references in lexicon.texts for reference in references]
        runs: Counter[tuple[str, ...]] = Counter()
        for document, reference in evenly(texts, _MAX_REFERENCES):
            labels = _padded([piece.label for piece in pieces(lexicon, document, reference)])
            for n in LENGTHS:
                runs.update(tuple(labels[i : i + n]) for i in range(len(labels) - n + 1))
        self._usual = frozenset(run for run, count in runs.items() if count >= _MIN_COUNT)

    def is_usual(self, labels: Sequence[str], at: int, n: int) -> bool:
        """Whether every run of n words that crosses the place `at` stands in references."""
        padded = _padded(labels)
        at += _PAD
        return all(tuple(padded[i : i + n]) in self._usual for i in range(at - n + 1, at))

    def removable(self, parts: Sequence[Piece], value: int, n: int) -> list[tuple[int, int]]:
        """Half-open ranges around the piece `value` whose loss leaves runs of n usual words, the best first.

        The best lose the fewest other values, then are short.
        """
        labels = [part.label for part in parts]
        ranked = []
        for left, right in _phrases(labels, value):
            rest = labels[:left] + labels[right:]
            if len(rest) < _MIN_LEFT or not self.is_usual(rest, left, n):
                continue
            kept = {key for part in (*parts[:left], *parts[right:]) for key in part.values}
            lost = {key for part in parts[left:right] for key in part.values} - kept
            ranked.append((len(lost), right - left, left, right))
        return [(left, right) for *_, left, right in sorted(ranked)]

    def places(self, labels: Sequence[str], phrase: Sequence[str], n: int) -> list[int]:
        """Where the phrase can be put in so that every run of n words across its ends is usual."""
        return [
            at
            for at in range(len(labels) + 1)
            if _may_stand(phrase, labels, at)
            if all(self.is_usual([*labels[:at], *phrase, *labels[at:]], end, n) for end in (at, at + len(phrase)))
        ]


def _padded(labels: Sequence[str]) -> list[str]:
    return [*[_START] * _PAD, *labels, *[_END] * _PAD]


def _phrases(labels: Sequence[str], value: int) -> Iterator[tuple[int, int]]:
    """What can be left out with the value: the value after an article, phrases around it, its whole sentence.

    A phrase begins with a word such as "near", "and" or "located", and goes up to the next such word or a full stop;
    at the start of a sentence its comma belongs to it.
    """
    first = max((i + 1 for i in range(value) if labels[i] in _STOPS), default=0)
    last = next((i for i in range(value, len(labels)) if labels[i] in _STOPS), len(labels))
    if value > first and labels[value - 1] in _ARTICLES:
        yield value, value + 1
    ends = [i for i in range(value + 1, min(last, value + 1 + _MAX_BEHIND) + 1) if i == last or _ends_phrase(labels[i])]
    for left in range(max(first, value - _MAX_BEFORE), value):
        if not ends or not _opens_phrase(labels[left]) or (labels[left] == "," and not _opens_phrase(labels[left + 1])):
            continue
        if left > first:
            yield left, ends[0]
        elif ends[0] < last and labels[ends[0]] == ",":
            yield left, ends[0] + 1
    if (first, last) != (0, len(labels)):
        yield first, min(last + 1, len(labels))


def _may_stand(phrase: Sequence[str], labels: Sequence[str], at: int) -> bool:
    """Sentences go between sentences; other phrases before a phrase, a stop or the end of an unended text."""
    is_between = at > 0 and labels[at - 1] in _STOPS
    if phrase[-1] in _STOPS:
        return is_between
    return not is_between if at == len(labels) else is_between or _ends_phrase(labels[at])


def _opens_phrase(label: str) -> bool:
    return label in _OPENERS or (label.endswith(("ing", "ed")) and not label.startswith("<"))


def _ends_phrase(label: str) -> bool:
    return label in _STOPS or label == "," or _opens_phrase(label)


def without(text: str, parts: Sequence[Piece], left: int, right: int) -> Change:
    """The text without the pieces [left, right); spaces, a capital and "a" or "an" are put right."""
    return replaced(text, parts, left, right, "")


def replaced(text: str, parts: Sequence[Piece], left: int, right: int, phrase: str) -> Change:
    """The text with a phrase in place of the pieces [left, right); with left = right it is put in there."""
    before = text[: parts[left - 1].end] if left else ""
    after = text[parts[right].start :] if right < len(parts) else text[parts[-1].end :]
    if not left or parts[left - 1].label in _STOPS:
        if phrase and phrase[-1] not in _STOPS and left == right < len(parts) and not parts[right].values:
            after = _uncapitalised(after)
        phrase, after = (capitalise_like(phrase, "A"), after) if phrase else ("", capitalise_like(after, "A"))
    if not phrase and (not after or after[0] in _STOPS):
        before = before.rstrip(" ,;")
    phrase = _without_echo(before, phrase)
    before = _with_article(before, phrase or after)
    behind = "" if not after or after[0] in _CLOSING or not phrase else _space(text, parts, right)
    gap = "" if not before or (phrase or after or ".")[0] in _CLOSING else _space(text, parts, left)
    start = len(before) + (len(gap) if phrase else 0)
    return Change(f"{before}{gap}{phrase}{behind}{after}", (start, start + len(phrase)))


def _space(text: str, parts: Sequence[Piece], at: int) -> str:
    """The white space that stood before the piece `at`; a space if there was none."""
    return text[parts[at - 1].end : parts[at].start] or " " if 0 < at < len(parts) else " "


def _without_echo(before: str, phrase: str) -> str:
    """The phrase without its first word where that has just been said ("the The Mill")."""
    last, (first, _, rest) = before.rsplit(None, 1)[-1:], phrase.partition(" ")
    return rest if rest and last and last[0].casefold() == first.casefold() else phrase


def _with_article(before: str, after: str) -> str:
    """ "a" or "an" at the end of `before`, as the next word's first letter wants it."""
    found = re.search(r"\b(a|an)$", before, re.IGNORECASE)
    if not found or not after[:1].isalpha():
        return before
    vowel = re.match(r"[aeio]|u(?!ni|s|k)", after, re.IGNORECASE) is not None
    article = found.group()[0] + ("n" if vowel else "")
    return before[: found.start()] + article


def _uncapitalised(text: str) -> str:
    """Lower-case the first letter, but not of "I" and words in capitals."""
    return text[:1].lower() + text[1:] if re.match(r"[A-Z][a-z]", text) else text


def uncapitalised_phrase(phrase: str, first: Piece) -> str:
    """A phrase as it stands inside a sentence: a value keeps its capital."""
    return phrase if first.values else _uncapitalised(phrase)


@lru_cache(maxsize=4)
def phrases_of(lexicon: SlotLexicon) -> Phrases:
    """The phrases of a lexicon's texts; made once for the modes that need them."""
    return Phrases(lexicon)
