"""wrong_slot: a value becomes another value of the same slot."""

from __future__ import annotations

import numpy as np

from homestretch.failures.base import lower_like, pick, pick_reference
from homestretch.failures.phrases import Change, Piece, pieces, replaced
from homestretch.failures.slot_mode import SlotMode
from homestretch.ops.meaning import Slot, slots, surfaces, written
from homestretch.ops.slots import SlotErrors, in_document
from homestretch.types import Edit, Example


class WrongSlot(SlotMode):
    """Put another value of the slot, from the corpus, wherever a reference says one. Detects such exchanges.

    The other value stands neither in the document nor in a reference, and people never write it for the value it
    replaces ("low" for "1 out of 5").
    """

    name = "wrong_slot"

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        taken = self.said(example, *example.references)
        parts = pieces(self._lexicon, example.source, reference)
        found = [slot for slot in slots(example.source) if self._can_go(slot) and self._places(parts, slot)]
        for i in rng.permutation(len(found)).tolist():
            others = self._others(example, found[i], taken)
            if others:
                new = pick(others, rng)
                change = _exchanged(reference, parts, self._places(parts, found[i]), lower_like(new, reference))
                return self.edit(example, reference, change, f"{found[i].name}: {written(found[i].value)} -> {new}")
        return None

    @staticmethod
    def values_at_fault(errors: SlotErrors) -> tuple[str, ...]:
        return errors.wrong

    def _can_go(self, slot: Slot) -> bool:
        return self._lexicon.is_used(slot.name) and self._lexicon.is_telling(self._lexicon.key(slot.value))

    def _places(self, parts: list[Piece], slot: Slot) -> list[int]:
        return [i for i, part in enumerate(parts) if part.values == {self._lexicon.key(slot.value)}]

    def _others(self, example: Example, slot: Slot, taken: set[str]) -> list[str]:
        """The values, as written in a sentence, that may stand in its place."""
        lexicon = self._lexicon
        fitting = [
            value
            for key, value in lexicon.values[slot.name].items()
            if key not in taken and lexicon.is_telling(key) and lexicon.excludes(slot, key)
        ]
        return [written(value) for value in fitting if not any(in_document(w, example.source) for w in surfaces(value))]


def _exchanged(text: str, parts: list[Piece], places: list[int], new: str) -> Change:
    """The new value at every place; the span runs from the first to the last."""
    head, tail, num_after = text, "", len(text) - parts[places[-1]].end
    for i in reversed(places):
        tail = head[parts[i].end :] + tail
        changed = replaced(head[: parts[i].end], parts[: i + 1], i, i + 1, new)
        head, tail = changed.text[: changed.span[0]], changed.text[changed.span[0] :] + tail
    return Change(head + tail, (len(head), len(head + tail) - num_after))
