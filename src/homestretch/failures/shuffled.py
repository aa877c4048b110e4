"""shuffled: the reference's words, clauses or sentences out of order."""

from __future__ import annotations

from collections import Counter

import numpy as np

from homestretch.failures.base import Band, capitalise_like, clause_spans, fit_sample, make_edit, pick, pick_reference
from homestretch.failures.trigram import WordOrder
from homestretch.ops.words import sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_UNITS = ("words", "clauses", "sentences")
_UNIT_SHARES = (0.6, 0.25, 0.15)
_PUNCTUATION = ".,;:!?…"
# Counts below about this many say nothing: a name that opened two sentences may well open a text.
_PRIOR = 5
_LEANING = {"he", "she", "it", "they", "him", "his", "her", "their", "its", "this", "that", "these", "both"} | {
    *("so", "and", "but", "then", "also", "however", "therefore", "afterwards", "later", "instead", "otherwise")
}


class Shuffled(FailureMode):
    """Permute the reference, then restore capitals and punctuation, so that only the order is wrong.

    Detects word order that references do not have, and a first word that belongs to later sentences ("Then").
    """

    name = "shuffled"

    def fit(self, corpus: Corpus) -> None:
        examples = fit_sample(corpus)
        self._order = WordOrder(examples)
        self._first: Counter[str] = Counter()
        self._later: Counter[str] = Counter()
        references = [reference for example in examples for reference in example.references]
        for reference in references:
            opening, *later = _openings(reference) or [""]
            self._first[opening] += 1
            self._later.update(later)
        self._opening_band = Band.of([self._late_opening(reference) for reference in references], at_least=1.0)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        first = str(rng.choice(_UNITS, p=_UNIT_SHARES))
        for unit in dict.fromkeys((first, *_UNITS)):
            text = _shuffle(reference, unit, rng)
            edit = None if text is None else make_edit(example, text, (0, len(text)), f"{unit} shuffled")
            if edit is not None:
                return edit
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        return max(
            self._order.severity(completion.text), self._opening_band.severity(self._late_opening(completion.text))
        )

    def _late_opening(self, text: str) -> float:
        """Log odds that the text's first word opens a later sentence ("Then", "He") and not a text."""
        opening = (_openings(text) or [""])[0]
        late = (self._later[opening] + _PRIOR) / (self._later.total() + 2 * _PRIOR)
        return float(np.log(late) - np.log((self._first[opening] + _PRIOR) / (self._first.total() + 2 * _PRIOR)))


def _openings(text: str) -> list[str]:
    return [words(sentence)[0] for sentence in sentences(text) if words(sentence)]


def _shuffle(text: str, unit: str, rng: np.random.Generator) -> str | None:
    """The text with its units in another order; None if it has fewer than two."""
    if unit == "words":
        return _shuffle_words(text, rng)
    return _shuffle_clauses(text, rng) if unit == "clauses" else _shuffle_sentences(text, rng)


def _shuffle_clauses(text: str, rng: np.random.Generator) -> str | None:
    parts = [text[start:end].strip().rstrip(_PUNCTUATION) for start, end in clause_spans(text)]
    order = _derangement(len(parts), rng)
    if order is None:
        return None
    moved = [parts[i] for i in order]
    inside = [_lower_plain(part) for part in moved[1:]]
    closing = text.rstrip()[-1]
    return ", ".join([capitalise_like(moved[0], text), *inside]) + (closing if closing in _PUNCTUATION else "")


def _shuffle_sentences(text: str, rng: np.random.Generator) -> str | None:
    """A sentence that leans on one before it ("He ...", "Then ...") goes first; without one any order may be fine."""
    parts = [sentence.strip() for sentence in sentences(text)]
    leaning = [i for i, part in enumerate(parts) if i and words(part)[:1] and words(part)[0] in _LEANING]
    if not leaning:
        return None
    first = pick(leaning, rng)
    return " ".join([parts[first], *(parts[i] for i in rng.permutation(len(parts)) if i != first)])


def _shuffle_words(text: str, rng: np.random.Generator) -> str | None:
    """Permute all words; each place keeps its punctuation, and a word that opened a sentence loses its capital."""
    tokens_ = text.split()
    bare = [token.rstrip(_PUNCTUATION) for token in tokens_]
    order = _derangement(len(tokens_), rng)
    if order is None:
        return None
    openers = {0} | {i + 1 for i, token in enumerate(tokens_) if token[-1] in ".!?…"}
    inside = {word for i, word in enumerate(bare) if i not in openers}
    # A capital that only marks the start of a sentence must not travel; a name's capital must.
    plain = [w.lower() if i in openers and (w.lower() in inside or _is_plain(w)) else w for i, w in enumerate(bare)]
    moved = [capitalise_like(plain[j], bare[i]) if i in openers else plain[j] for i, j in enumerate(order)]
    return " ".join(word + token[len(token.rstrip(_PUNCTUATION)) :] for word, token in zip(moved, tokens_, strict=True))


def _is_plain(word: str) -> bool:
    return word.lower() in _LEANING or word.lower() in {"a", "an", "the", "we", "you", "there"}


def _lower_plain(text: str) -> str:
    """Without the capital of an ordinary word that opened a sentence."""
    return text[0].lower() + text[1:] if text and _is_plain(text.split()[0]) else text


def _derangement(count: int, rng: np.random.Generator) -> list[int] | None:
    """An order of `count` things that is not the given one; None for fewer than two."""
    if count < 2:
        return None
    order = [int(i) for i in rng.permutation(count)]
    return order if order != sorted(order) else [*order[1:], order[0]]
