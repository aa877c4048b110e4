"""truncation: the text stops in the middle."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from homestretch.failures.base import ends_complete, fit_sample, make_edit, pick_reference
from homestretch.ops.words import sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_MIN_WORDS = 3
_SHARE_IN_WORD = 0.25
_NEARLY_ALWAYS = 0.95


class Truncation(FailureMode):
    """Cut at 30-90 % of the characters, inside a sentence, without a terminator.

    Detects a missing terminator, and a terminated text without a sentence's end where references nearly always have it.
    """

    name = "truncation"

    def fit(self, corpus: Corpus) -> None:
        references = [r for example in fit_sample(corpus) for r in example.references if r.strip()]
        complete = sum(ends_complete(reference) for reference in references)
        self._is_punctuated = bool(references) and complete >= _NEARLY_ALWAYS * len(references)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None or len(words(reference)) < _MIN_WORDS:
            return None
        low, high = 0.3 * len(reference), 0.9 * len(reference)
        inside = [m.start() for m in re.finditer(r"(?<=\w)(?=\w)", reference) if low <= m.start() <= high]
        between = [m.start() for m in re.finditer(r"(?<=\w)\b(?!['’])", reference) if low <= m.start() <= high]
        between = [cut for cut in between if not ends_complete(reference[: cut + 1])]
        places = inside if inside and rng.random() < _SHARE_IN_WORD else between or inside
        if not places:
            return None
        cut = places[int(rng.integers(len(places)))]
        note = f"cut after {cut / len(reference):.0%}"
        return make_edit(example, reference[:cut], (cut, cut), note, terminated=False)

    def detect(self, example: Example, completion: Completion) -> float | None:
        if not completion.terminated:
            return 1.0
        is_incomplete = self._is_punctuated and bool(words(completion.text)) and not ends_complete(completion.text)
        return 0.75 if is_incomplete else 0.0

    def repair(self, example: Example, completion: Completion) -> Completion:
        """Cut an unterminated text back to its last complete sentence; without one, or in a task that does not end its
        sentences with punctuation, nothing can be done.
        """
        if completion.terminated or not self._is_punctuated:
            return completion
        text = complete_part(completion.text)
        return replace(completion, text=text, terminated=True, ids=()) if text else completion


def complete_part(text: str) -> str:
    """The text up to the end of its last complete sentence; empty if it has none."""
    parts = sentences(text)
    while parts and not ends_complete(parts[-1]):
        parts.pop()
    return "".join(parts).rstrip()
