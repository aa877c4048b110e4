"""hallucinated_slot: a value that the meaning representation does not have is put in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from homestretch.failures.base import excerpt, fit_sample, pick, pick_reference
from homestretch.failures.neighbours import Neighbours
from homestretch.failures.phrases import LENGTHS, Piece, phrases_of, pieces, replaced, uncapitalised_phrase
from homestretch.failures.slot_mode import SlotMode
from homestretch.ops.meaning import slots, surfaces
from homestretch.ops.slots import SlotErrors, in_document
from homestretch.types import Corpus, Edit, Example

_NEAREST = 24
_NEAR = 400
"""Where the nearest have nothing to add (they tend to have the same slots), as many are drawn from so many."""


class HallucinatedSlot(SlotMode):
    """Put in a phrase from a neighbour's reference, with a value of a slot that the document does not have.

    Detects values of the task that the document does not have and that are not exchanged for one it has.
    """

    name = "hallucinated_slot"

    def fit(self, corpus: Corpus) -> None:
        super().fit(corpus)
        self._phrases = phrases_of(self._lexicon)
        self._neighbours = Neighbours([example for example in fit_sample(corpus) if slots(example.source)])

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None or not self._lexicon.checkable(example.source):
            return None
        taken = self.said(example, *example.references)
        parts = pieces(self._lexicon, example.source, reference)
        if not parts:
            return None
        labels = [part.label for part in parts]
        near = self._neighbours.nearest(example, _NEAR)
        nearest, further = near[:_NEAREST], near[_NEAREST:]
        others = [nearest[i] for i in rng.permutation(len(nearest))]
        others += [further[i] for i in rng.permutation(len(further))[:_NEAREST]]
        for n, other in product(LENGTHS, others):
            theirs = pick_reference(other, rng) or ""
            source = pieces(self._lexicon, other.source, theirs)
            for i, (left, right) in self._foreign_phrases(example, other, source, taken, n):
                places = self._phrases.places(labels, [part.label for part in source[left:right]], n)
                if places:
                    at = pick(places, rng)
                    text = uncapitalised_phrase(theirs[source[left].start : source[right - 1].end], source[left])
                    change = replaced(reference, parts, at, at, text)
                    if source[i].values & self.said(example, change.text):
                        return self.edit(example, reference, change, f"+ {excerpt(text)!r}")
        return None

    @staticmethod
    def values_at_fault(errors: SlotErrors) -> tuple[str, ...]:
        return errors.hallucinated

    def _foreign_phrases(
        self, example: Example, other: Example, parts: list[Piece], taken: set[str], n: int
    ) -> Iterator[tuple[int, tuple[int, int]]]:
        """Pieces of the other's reference that the example must not say, each with the phrase around it."""
        lexicon = self._lexicon
        own, names = lexicon.keys(example.source), {slot.name for slot in slots(example.source)}
        foreign = {
            lexicon.key(slot.value)
            for slot in slots(other.source)
            if slot.name not in names and slot.role != "subject" and lexicon.is_used(slot.name)
            and lexicon.is_telling(lexicon.key(slot.value))
            and not any(in_document(words, example.source) for words in surfaces(slot.value))
        } - own - taken  # fmt: skip
        for i, part in enumerate(parts):
            if part.values and part.values <= foreign:
                for left, right in self._phrases.removable(parts, i, n):
                    if all(p.values <= own | part.values for p in parts[left:right]):
                        yield i, (left, right)
                        break
