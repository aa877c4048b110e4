"""repetition: a word, phrase, clause or sentence over and over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from homestretch.failures.base import (
    Band,
    capitalise_like,
    clause_spans,
    ends_complete,
    excerpt,
    fit_sample,
    make_edit,
    pick_reference,
)
from homestretch.ops.words import WORD_PATTERN, ngrams, sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_MAX_PERIOD = 24
_MIN_SENTENCE_WORDS = 3
_REP_N = 4


class Repetition(FailureMode):
    """Repeat a unit of the reference two to eight times.

    Half of the edits run on to the cap (no terminator), half have a reference's length and end properly. A loop is a
    run of words said at least twice in a row; one or two words must come three times, since "very very" and "Baden
    Baden" are fine.
    """

    name = "repetition"

    def fit(self, corpus: Corpus) -> None:
        references = [reference for example in fit_sample(corpus) for reference in example.references]
        self._repeated_band = Band.of([_repeated_share(reference) for reference in references])
        self._rep_n_band = Band.of([_rep_n(reference) for reference in references], at_least=0.1)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        start, end = _pick_unit(reference, rng)
        unit = reference[start:end].strip()
        if not words(unit):
            return None
        least = 3 if len(words(unit)) <= 2 else 2
        is_cut_off = bool(rng.random() < 0.5)
        most = 8 if is_cut_off else max(least, min(8, len(reference) // len(unit)))
        count = int(rng.integers(least, most + 1))
        loop = " ".join([unit] * count)
        before, after = reference[:start], ""
        if not is_cut_off:
            before, after = _room_for_loop(reference, start, end, len(unit) * (count - 1))
            loop = capitalise_like(loop, reference) if not before else loop
            after = "" if ends_complete(loop) and not words(after) else after
        span = (len(before), len(before) + len(loop))
        note = f"{excerpt(unit)!r} x {count}"
        return make_edit(example, before + loop + after, span, note, terminated=not is_cut_off)

    def detect(self, example: Example, completion: Completion) -> float | None:
        repeated = self._repeated_band.severity(_repeated_share(completion.text))
        return max(repeated, self._rep_n_band.severity(_rep_n(completion.text)))

    def repair(self, example: Example, completion: Completion) -> Completion:
        """Drop repeated sentences and all but one copy in a loop, where the text repeats more than references do."""
        if self._repeated_band.severity(_repeated_share(completion.text)) < 0.5:
            return completion
        text = drop_loops(drop_repeated_sentences(completion.text))
        is_ended = completion.terminated or ends_complete(text)
        return completion if text == completion.text else replace(completion, text=text, terminated=is_ended, ids=())


def _pick_unit(text: str, rng: np.random.Generator) -> tuple[int, int]:
    """The range of a word, a phrase of two to five words, a clause or a sentence."""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    kind = int(rng.integers(4))
    if kind <= 1:
        length = 1 if kind == 0 else min(int(rng.integers(2, 6)), len(places))
        first = int(rng.integers(len(places) - length + 1))
        return places[first][0], places[first + length - 1][1]
    if kind == 2:
        spans = clause_spans(text)
    else:
        lengths = [len(sentence) for sentence in sentences(text)]
        spans = [(sum(lengths[:i]), sum(lengths[: i + 1])) for i in range(len(lengths))]
    return spans[int(rng.integers(len(spans)))] if spans else places[0]


def _room_for_loop(text: str, start: int, end: int, extra: int) -> tuple[str, str]:
    """What stays before and after the loop when `extra` characters must be given up to keep the length."""
    before, after = text[:start], text[end:]
    closing = re.search(r"[.!?…]*\s*$", text)
    final = closing.group() if closing else ""
    if extra < len(after):
        kept = after[extra:]
        return before, " " + kept[kept.find(" ") + 1 :].lstrip() if " " in kept else final
    surplus = extra - len(after)
    kept = before[: max(0, len(before) - surplus)]
    return kept[: kept.rfind(" ") + 1], final


# --- what counts as repeated ------------------------------------------------------------


def find_loops(items: Sequence[str]) -> list[tuple[int, int, int]]:
    """Loops as (start, period, count): `count` copies of `period` items from `start` on, the shortest period first.

    One or two items count from three copies on, longer runs from two.
    """
    loops: list[tuple[int, int, int]] = []
    i = 0
    while i < len(items):
        found = _loop_at(items, i)
        if found is None:
            i += 1
        else:
            loops.append((i, *found))
            i += found[0] * found[1]
    return loops


def _loop_at(items: Sequence[str], i: int) -> tuple[int, int] | None:
    for period in range(1, min(_MAX_PERIOD, (len(items) - i) // 2) + 1):
        count = 1
        while items[i : i + period] == items[i + count * period : i + (count + 1) * period]:
            count += 1
        if count >= (3 if period <= 2 else 2):
            return period, count
    return None


def _repeated_share(text: str) -> float:
    """Share of the words that a loop or a repeated sentence says again."""
    flat = words(text)
    if not flat:
        return 0.0
    in_loops = sum(period * (count - 1) for _, period, count in find_loops(flat))
    in_sentences = sum(len(words(sentence)) for sentence in _repeated_sentences(text))
    return max(in_loops, in_sentences) / len(flat)


def _rep_n(text: str) -> float:
    """Share of 4-grams that occurred before (rep-4 of Welleck et al. 2020)."""
    grams = ngrams(words(text), _REP_N)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _repeated_sentences(text: str) -> list[str]:
    seen: set[tuple[str, ...]] = set()
    repeated = []
    for sentence in sentences(text):
        key = tuple(words(sentence))
        if key in seen and len(key) >= _MIN_SENTENCE_WORDS:
            repeated.append(sentence)
        seen.add(key)
    return repeated


# --- repair ------------------------------------------------------------


def drop_repeated_sentences(text: str) -> str:
    """The text without sentences of three words or more that it has said before."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for sentence in sentences(text):
        key = tuple(words(sentence))
        if key not in seen or len(key) < _MIN_SENTENCE_WORDS:
            kept.append(sentence)
        seen.add(key)
    joined = "".join(kept)
    return joined if len(joined) == len(text) else joined.rstrip()


def drop_loops(text: str) -> str:
    """The text with each loop said once; a loop's last copy stays, for the punctuation that follows it."""
    while True:
        loops = find_loops(words(text))
        if not loops:
            return text
        first, period, count = loops[0]
        starts = [match.start() for match in WORD_PATTERN.finditer(text)]
        start, last = starts[first], starts[first + period * (count - 1)]
        text = text[:start] + capitalise_start(text[start:last], text[last:])


def capitalise_start(old: str, new: str) -> str:
    """Keep the capital of a sentence whose first copy is dropped."""
    return new[:1].upper() + new[1:] if old[:1].isupper() and new[:1].islower() else new
