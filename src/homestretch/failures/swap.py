"""The general swap behind wrong_entity, wrong_number and wrong_date: a value becomes another of the same kind."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from homestretch.failures.base import capitalise_like, lower_like, make_edit, pick, pick_reference, splice
from homestretch.failures.grounding import Grounding
from homestretch.ops.entities import Kind, Mention, is_supported
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_MAX_DRAWN = 200


class SwapMode(FailureMode):
    """Swap one mention for another of its kind: from the same source if it has one, else from the corpus.

    A value that stands in any reference is never swapped in, since the text might then still be true.
    """

    kinds: ClassVar[tuple[Kind, ...]]
    """The kinds of mention this mode is about."""

    def fit(self, corpus: Corpus) -> None:
        self._grounding = Grounding(self.kinds, corpus)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        targets = [m for m in self._grounding.mentions(example, reference) if _stands_alone(m, reference)]
        for i in rng.permutation(len(targets)):
            target = targets[i]
            candidates = self._candidates(example, target, rng)
            if candidates:
                written = lower_like(_case_like(pick(candidates, rng), target), reference)
                text, span = splice(reference, target.start, target.end, written)
                return make_edit(example, text, span, f"{target.text} -> {written}")
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        return self._grounding.severity(example, completion.text)

    def _candidates(self, example: Example, target: Mention, rng: np.random.Generator) -> list[Mention]:
        """What may replace the target."""
        taken = [m for text in example.references for m in self._grounding.mentions(example, text)]
        own = [m for m in self._grounding.finder.mentions(example.source) if _stands_alone(m, example.source)]
        found = self._fitting(own, target, taken)
        pool = self._grounding.pool[target.kind]
        if found or not pool:
            return found
        drawn = [pool[i] for i in rng.permutation(len(pool))[:_MAX_DRAWN]]
        return self._fitting([m for m in drawn if not is_supported(m, example.source)], target, taken)

    def _fitting(self, candidates: list[Mention], target: Mention, taken: list[Mention]) -> list[Mention]:
        alike = [m for m in candidates if m.kind == target.kind and self.shape(m) == self.shape(target)]
        return [m for m in alike if not any(self.may_agree(m, other) for other in (target, *taken))]

    @classmethod
    def shape(cls, mention: Mention) -> str:
        """Mentions are swapped within a shape, so that the text stays fluent."""
        return ""

    @classmethod
    def may_agree(cls, a: Mention, b: Mention) -> bool:
        """Whether the two could stand for the same thing; such a swap might leave the text true."""
        return a.value == b.value


def _case_like(mention: Mention, target: Mention) -> str:
    """The mention as written, its first letter in the target's case, so that chat spelling ("rachel") does not show."""
    text = mention.text
    if target.text[0].isupper():
        return capitalise_like(text, target.text)
    return text if mention.kind == "name" or not target.text[0].islower() else text[0].lower() + text[1:]


def _stands_alone(mention: Mention, text: str) -> bool:
    """False inside a larger word ("2" of "2nd"), where a swap would leave a fragment."""
    around = text[max(0, mention.start - 1) : mention.start] + text[mention.end : mention.end + 1]
    return not any(character.isalnum() or character == "_" for character in around)
