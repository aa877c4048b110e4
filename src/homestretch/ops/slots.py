"""Which slots of a meaning representation a text says, which it lacks, and which it makes up.

Values are looked up word by word, so only a value that people write as it stands can be checked. Which these are is
measured on the training references, value by value: no list of synonyms, no model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from homestretch.ops.drawing import drawn, evenly
from homestretch.ops.meaning import Slot, Token, normal_words, slots, surfaces, tokens
from homestretch.ops.words import ngrams
from homestretch.types import Example

MAX_FIT_EXAMPLES = 4000
MIN_LITERAL = 0.9
"""A value is checked if at least this share of the references of documents that have it say it literally."""
MIN_USED = 0.5
"""A slot is used at all if its values are said literally at least this often."""
MIN_TELLING = 0.9
"""A value that is found in a text counts as said if its document has it in at least this share of references."""
MAX_COMPATIBLE = 0.005
"""Two values exclude each other if at most this share of the references for one says the other."""
_PRIOR = 10.0
"""A rate over n references counts as n + 10, of which 10 have the rate of the slot, or of all slots."""
_MAX_GAP = 3
_DATA_TO_TEXT = 0.5
_TRIED = 200


@dataclass(frozen=True, slots=True)
class Match:
    """A value found in a text."""

    values: frozenset[str]
    """The values that these words may stand for, by key (`SlotLexicon.key`)."""
    words: tuple[str, ...]
    first: int
    last: int
    """Half-open range of `tokens(text)`."""
    start: int
    end: int
    """Half-open range of characters."""


@dataclass(frozen=True, slots=True)
class SlotErrors:
    """What a text gets wrong of its meaning representation. Every error counts once."""

    missing: tuple[str, ...]
    """Keys of checkable values that the text does not say."""
    hallucinated: tuple[str, ...]
    """Keys of values that the text says and the document does not have."""
    wrong: tuple[str, ...]
    """Keys of values said in the place of another value of the same slot."""
    num_values: int
    """Distinct values of the document; at least 1."""

    @property
    def rate(self) -> float:
        """Slot error rate: all errors over the document's values, at most 1."""
        return min(1.0, (len(self.missing) + len(self.hallucinated) + len(self.wrong)) / self.num_values)


class _Rates:
    """Shares per item, shrunk towards the share of the item's group, that towards the share over all."""

    def __init__(self) -> None:
        self._hits: Counter[tuple[str, ...]] = Counter()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, group: str, item: str, hit: bool) -> None:
        for key in ((), (group,), (group, item)):
            self._counts[key] += 1
            self._hits[key] += hit

    def count(self, *key: str) -> int:
        return self._counts[key]

    def rate(self, group: str, item: str = "") -> float:
        """Of the item; of the group where there is no item."""
        estimate = self._hits[()] / max(1, self._counts[()])
        for key in ((group,), (group, item)) if item else ((group,),):
            estimate = (self._hits[key] + _PRIOR * estimate) / (self._counts[key] + _PRIOR)
        return estimate


class SlotLexicon:
    """The slot values of a task, and how people write them."""

    def __init__(self, texts: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Learn from meaning representations and their references."""
        self.texts = texts
        self.values: dict[str, dict[str, str]] = defaultdict(dict)
        """Slot name -> key -> the value as a document writes it."""
        self._index: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for slot in (slot for document, _ in texts for slot in slots(document)):
            self.values[slot.name].setdefault(self.key(slot.value), slot.value)
        for value in {key: value for values in self.values.values() for key, value in values.items()}.values():
            for words in surfaces(value):
                self._index[words[0]].append((words, self.key(value)))
        self._slots_of: dict[str, set[str]] = defaultdict(set)
        for name, values in self.values.items():
            for key in values:
                self._slots_of[key].add(name)
        self._literal, self._telling = _Rates(), _Rates()
        self._said_for: Counter[tuple[str, str, str]] = Counter()
        for document, references in texts:
            for reference in references:
                self._learn(document, reference)

    def _learn(self, document: str, reference: str) -> None:
        own = self.keys(document)
        found = self.matches(document, reference)
        said = {key for match in found for key in match.values}
        for slot in slots(document):
            self._literal.add(slot.name, self.key(slot.value), self.key(slot.value) in said)
        for key in said:
            self._telling.add("", key, key in own)
        for slot in slots(document):
            for key in self.values[slot.name].keys() & (said - own):
                self._said_for[slot.name, self.key(slot.value), key] += 1

    @staticmethod
    def key(value: str) -> str:
        """Values that differ in case, accents, underscores or the form of a number are one."""
        return " ".join(surfaces(value)[0]) if surfaces(value) else value

    def keys(self, document: str) -> set[str]:
        """The keys of the document's values."""
        return {self.key(slot.value) for slot in slots(document)}

    def is_used(self, name: str) -> bool:
        """Whether the slot's values are literal often enough to say anything of it."""
        return self._literal.count(name) > 0 and self._literal.rate(name) >= MIN_USED

    def is_checkable(self, slot: Slot) -> bool:
        """Whether people write this value literally, nearly always: where it is not found, it is missing."""
        if not self.is_used(slot.name) or not surfaces(slot.value):
            return False
        return self._literal.rate(slot.name, self.key(slot.value)) >= MIN_LITERAL

    def is_telling(self, key: str) -> bool:
        """Whether a text that has these words nearly always has them from its document."""
        return self._telling.rate("", key) >= MIN_TELLING

    def checkable(self, document: str) -> list[str]:
        """Keys of the document's values that can be checked, each once."""
        return list(dict.fromkeys(self.key(slot.value) for slot in slots(document) if self.is_checkable(slot)))

    def excludes(self, slot: Slot, key: str) -> bool:
        """Whether a text that says `key` in place of the slot's value is wrong: people never say one for the other."""
        said = self._said_for[slot.name, self.key(slot.value), key]
        return said <= MAX_COMPATIBLE * self._literal.count(slot.name, self.key(slot.value))

    def unchecked(self) -> tuple[list[str], list[str]]:
        """Names of the slots that are not used, and of those mostly said in other words: not checked for omission."""
        unused = sorted(name for name in self.values if not self.is_used(name))
        reworded = []
        for name in sorted(self.values.keys() - set(unused)):
            counts = {value: self._literal.count(name, key) for key, value in self.values[name].items()}
            checked = sum(n for value, n in counts.items() if self.is_checkable(Slot(name, value, "")))
            if checked < 0.5 * sum(counts.values()):
                reworded.append(name)
        return unused, reworded

    def matches(self, document: str, text: str) -> list[Match]:
        """The task's and the document's values in the text, from left to right, the longest first where they overlap.

        So "Palace" is not found in "The Golden Palace" where that is a value too.
        """
        own: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for slot in slots(document):
            for words in surfaces(slot.value):
                own[words[0]].append((words, self.key(slot.value)))
        all_tokens = tokens(text)
        places = [i for i, token in enumerate(all_tokens) if token.is_word]
        found: list[Match] = []
        at = 0
        while at < len(places):
            match = self._longest(all_tokens, places[at:], own, text)
            if match is not None:
                found.append(match)
            at += len(match.words) if match is not None else 1
        return found

    def _longest(
        self,
        all_tokens: Sequence[Token],
        places: Sequence[int],
        own: dict[str, list[tuple[tuple[str, ...], str]]],
        text: str,
    ) -> Match | None:
        first = all_tokens[places[0]].normal
        best: tuple[str, ...] = ()
        values: set[str] = set()
        for words, key in (*self._index.get(first, ()), *own.get(first, ())):
            if len(words) < len(best) or len(words) > len(places):
                continue
            if words == best:
                values.add(key)
            elif len(words) > len(best) and _stands(words, all_tokens, places, text):
                best, values = words, {key}
        if not best:
            return None
        last = places[len(best) - 1]
        start, end = all_tokens[places[0]].start, all_tokens[last].end
        return Match(frozenset(values), best, places[0], last + 1, start, end)

    def errors(self, document: str, text: str) -> SlotErrors | None:
        """What the text gets wrong; None for a document without a value that can be checked."""
        wanted = self.checkable(document)
        if not wanted:
            return None
        own = self.keys(document)
        found = self.matches(document, text)
        said = {key for match in found for key in match.values}
        wrong: list[str] = []
        hallucinated: list[str] = []
        replaced: set[str] = set()
        for match in self._foreign(document, found):
            names = {name for key in match.values for name in self._slots_of[key] if self.is_used(name)}
            rivals = [slot for slot in slots(document) if slot.name in names]
            if not names or any(not self.excludes(slot, key) for slot in rivals for key in match.values):
                continue
            unsaid = {self.key(slot.value) for slot in rivals} - said - replaced
            (wrong if unsaid else hallucinated).append(min(match.values))
            replaced |= {min(unsaid)} if unsaid else set()
        missing = [key for key in wanted if key not in said | replaced]
        return SlotErrors(tuple(missing), tuple(hallucinated), tuple(wrong), len(own))

    def _foreign(self, document: str, found: Sequence[Match]) -> list[Match]:
        """The first match of each value that the document does not have, not even inside a longer one."""
        own = self.keys(document)
        foreign: dict[str, Match] = {}
        for match in found:
            is_said = any(self.is_telling(key) for key in match.values)
            if is_said and not match.values & own and not in_document(match.words, document):
                foreign.setdefault(min(match.values), match)
        return list(foreign.values())


def _stands(words: Sequence[str], all_tokens: Sequence[Token], places: Sequence[int], text: str) -> bool:
    """Whether these words stand at the places, with nothing but a little punctuation between them."""
    here = [all_tokens[place] for place in places[: len(words)]]
    return all(token.normal == word for token, word in zip(here, words, strict=True)) and all(
        b.start - a.end <= _MAX_GAP and not set(text[a.end : b.start]) & set("!?\n") for a, b in pairwise(here)
    )


def in_document(words: Sequence[str], document: str) -> bool:
    """Whether the words stand in the document in this order, inside a longer value, say."""
    return tuple(words) in ngrams(_document_words(document), len(words))


@lru_cache(maxsize=8192)
def _document_words(document: str) -> tuple[str, ...]:
    return normal_words(document.replace("_", " "))


def is_data_to_text(examples: Sequence[Example]) -> bool:
    """Whether more than half of the documents (of 200 at most) are meaning representations."""
    tried = evenly(examples, _TRIED)
    return sum(bool(slots(example.source)) for example in tried) > _DATA_TO_TEXT * len(tried)


def slot_lexicon(examples: Sequence[Example], seed: int) -> SlotLexicon:
    """The lexicon of a task's training examples (at most 4000, drawn with the seed). Modes and metric share it."""
    labelled = [example for example in examples if any(text.strip() for text in example.references)]
    sample = drawn(labelled, MAX_FIT_EXAMPLES, np.random.default_rng(seed))
    return _slot_lexicon(tuple((example.source, example.references) for example in sample if slots(example.source)))


@lru_cache(maxsize=4)
def _slot_lexicon(texts: tuple[tuple[str, tuple[str, ...]], ...]) -> SlotLexicon:
    return SlotLexicon(texts)
