"""omission: something that matters is left out."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from homestretch.failures.base import (
    capitalise_like,
    clause_spans,
    excerpt,
    fit_finder,
    make_edit,
    pick,
    pick_reference,
)
from homestretch.ops.entities import Mention, is_supported
from homestretch.ops.words import sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_MIN_WORDS = 3
_WEIGHT = 1.5
_PREPOSITION = re.compile(
    r" (?:on|at|in|for|from|with|to|about|by|before|after|until|around)(?: the| a| an| his| her| their)? $",
    re.IGNORECASE,
)


class Omission(FailureMode):
    """Drop the clause or sentence with the most entities that the rest does not mention; in a text of one clause, a
    prepositional phrase or two ("on Friday at 5 pm").

    Detects by recall: severity is 1.5 times the share of the reference's mentions that are missing, so a third missing
    reaches 0.5. With several references the best recall counts. None where no reference mentions anything.
    """

    name = "omission"

    def fit(self, corpus: Corpus) -> None:
        self._finder = fit_finder(corpus)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        for ranges in ({*clause_spans(reference), *_sentence_spans(reference)}, self._phrases(example, reference)):
            lost = {span: self._num_lost(example, reference, span) for span in sorted(ranges)}
            most = max(lost.values(), default=0)
            if most:
                start, end = pick([span for span, count in lost.items() if count == most], rng)
                text, at = _without(reference, start, end)
                return make_edit(example, text, (at, at), f"- {excerpt(reference[start:end])!r}")
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        recalls = [self._recall(example, reference, completion.text) for reference in example.references]
        known = [recall for recall in recalls if recall is not None]
        return min(1.0, _WEIGHT * (1 - max(known))) if known else None

    def _mentions(self, example: Example, text: str) -> list[Mention]:
        return list({m.value: m for m in self._finder.mentions_for(example, text)}.values())

    def _phrases(self, example: Example, text: str) -> set[tuple[int, int]]:
        """Prepositional phrases that end in a mention ("on Friday"), and runs of them ("on Friday at 5 pm")."""
        phrases = []
        for mention in self._finder.mentions_for(example, text):
            opening = _PREPOSITION.search(text[: mention.start])
            if opening:
                phrases.append((opening.start(), mention.end))
        runs = set(phrases)
        for (start, end), (next_start, next_end) in pairwise(phrases):
            if not text[end:next_start].strip():
                runs.add((start, next_end))
        return runs

    def _recall(self, example: Example, reference: str, text: str) -> float | None:
        wanted = self._mentions(example, reference)
        return sum(is_supported(m, text) for m in wanted) / len(wanted) if wanted else None

    def _num_lost(self, example: Example, reference: str, span: tuple[int, int]) -> int:
        """Mentions that go with the span; 0 if what is left is too little to be a text."""
        rest, _ = _without(reference, *span)
        if len(words(rest)) < _MIN_WORDS:
            return 0
        return sum(not is_supported(m, rest) for m in self._mentions(example, reference))


def _sentence_spans(text: str) -> list[tuple[int, int]]:
    ends = np.cumsum([0, *(len(sentence) for sentence in sentences(text))]).tolist()
    return list(pairwise(ends))


def _without(text: str, start: int, end: int) -> tuple[str, int]:
    """The text without the range, its capitals and final punctuation put right, and where the range was."""
    before, removed, after = text[:start], text[start:end], text[end:]
    if not before.strip():
        after = re.sub(r"^(?:and|but|so|because|while)\s+", "", after.lstrip(" ,;"), flags=re.IGNORECASE)
        return capitalise_like(after, removed), 0
    closing = re.search(r"[.!?…]+\s*$", removed)
    if closing and not re.search(r"[.!?…]\s*$", before):
        before = before.rstrip(" ,;:") + closing.group()
    if not after:
        before = before.rstrip()
    return before + after, len(before)
