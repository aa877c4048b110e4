"""The general mode behind missing_slot, hallucinated_slot and wrong_slot: one lexicon, one detector, one count each.

The kinds of slot error are those of Dušek, Howcroft and Rieser 2019 ("Semantic Noise Matters for Neural Natural
Language Generation"): missing, added, wrong value.
"""

from __future__ import annotations

from abc import abstractmethod

from homestretch.failures.base import lower_like, make_edit
from homestretch.failures.phrases import Change
from homestretch.ops.slots import SlotErrors, slot_lexicon
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode


class SlotMode(FailureMode):
    """A failure of data-to-text: where the document is no meaning representation, nothing is made and nothing judged.

    Severity is 0 without such an error, else 0.5 and half the share of the document's values that it concerns: one
    wrong value of eight is a failure, too.
    """

    def fit(self, corpus: Corpus) -> None:
        self._lexicon = slot_lexicon(corpus.examples, corpus.seed)

    def detect(self, example: Example, completion: Completion) -> float | None:
        errors = self._lexicon.errors(example.source, completion.text)
        if errors is None:
            return None
        found = self.values_at_fault(errors)
        return 0.5 + 0.5 * min(1.0, len(found) / errors.num_values) if found else 0.0

    @staticmethod
    @abstractmethod
    def values_at_fault(errors: SlotErrors) -> tuple[str, ...]:
        """The errors of this mode's kind."""

    def said(self, example: Example, *texts: str) -> set[str]:
        """Keys of the values that the texts say."""
        return {key for text in texts for m in self._lexicon.matches(example.source, text) for key in m.values}

    @staticmethod
    def edit(example: Example, reference: str, change: Change, note: str) -> Edit | None:
        """The change of the reference as an edit, in lower case where the reference is."""
        return make_edit(example, lower_like(change.text, reference), change.span, note)
