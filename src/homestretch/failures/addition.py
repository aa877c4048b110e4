"""addition: something that the source does not say is put in."""

from __future__ import annotations

import numpy as np

from homestretch.failures.base import capitalise_like, ends_complete, excerpt, fit_sample, make_edit, pick_reference
from homestretch.failures.grounding import Grounding
from homestretch.failures.neighbours import Neighbours
from homestretch.ops.words import sentences
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_CANDIDATES = 16


class Addition(FailureMode):
    """Add a fluent sentence from a neighbour's reference that mentions what the source does not have.

    Detects by precision: mentions of any kind without support in the source, against what references have.
    """

    name = "addition"

    def fit(self, corpus: Corpus) -> None:
        examples = fit_sample(corpus)
        self._neighbours = Neighbours(examples)
        self._grounding = Grounding(("number", "money", "date", "time", "name"), corpus)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        others = self._neighbours.nearest(example, _CANDIDATES)
        others = [others[i] for i in rng.permutation(len(others))] or self._neighbours.random(example, _CANDIDATES, rng)
        for other in others:
            text = pick_reference(other, rng) or ""
            foreign = [s.strip() for s in sentences(text) if self._grounding.unsupported(example, s)]
            foreign = [s for s in foreign if not any(s in own for own in example.references)]
            if foreign:
                return _insert(example, reference, foreign[int(rng.integers(len(foreign)))], rng)
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        return self._grounding.severity(example, completion.text)


def _insert(example: Example, reference: str, sentence: str, rng: np.random.Generator) -> Edit | None:
    """Put the sentence before the reference's last sentence or at its end, with equal odds."""
    parts = sentences(reference.rstrip())
    at = len(reference.rstrip()) if len(parts) == 1 or rng.random() < 0.5 else len(reference.rstrip()) - len(parts[-1])
    before, after = reference[:at].rstrip(), reference[at:].strip()
    if before and not ends_complete(before):
        before += "."
    added = capitalise_like(sentence, reference)
    start = len(before) + 1 if before else 0
    text = " ".join(part for part in (before, added, after) if part)
    return make_edit(example, text, (start, start + len(added)), f"+ {excerpt(added)!r}")
