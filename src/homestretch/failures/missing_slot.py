"""missing_slot: a value of the meaning representation is left out."""

from __future__ import annotations

from itertools import product

import numpy as np

from homestretch.failures.base import excerpt, pick_reference
from homestretch.failures.phrases import LENGTHS, phrases_of, pieces, without
from homestretch.failures.slot_mode import SlotMode
from homestretch.ops.slots import SlotErrors
from homestretch.types import Corpus, Edit, Example


class MissingSlot(SlotMode):
    """Take the phrase with a value out of a reference that says it once. Detects values that are not said.

    Only values that people write literally are taken, so the rest does not say it in other words.
    """

    name = "missing_slot"

    def fit(self, corpus: Corpus) -> None:
        super().fit(corpus)
        self._phrases = phrases_of(self._lexicon)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        wanted = set(self._lexicon.checkable(example.source))
        parts = pieces(self._lexicon, example.source, reference)
        places = [i for i, part in enumerate(parts) if part.values and part.values <= wanted]
        for n, i in product(LENGTHS, rng.permutation(places).tolist()):
            for left, right in self._phrases.removable(parts, i, n):
                change = without(reference, parts, left, right)
                if not parts[i].values & self.said(example, change.text):
                    removed = reference[parts[left].start : parts[right - 1].end]
                    return self.edit(example, reference, change, f"- {excerpt(removed)!r}")
        return None

    @staticmethod
    def values_at_fault(errors: SlotErrors) -> tuple[str, ...]:
        return errors.missing
