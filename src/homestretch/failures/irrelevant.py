"""irrelevant: a fluent text that belongs to another source."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from homestretch.failures.base import Band, fit_finder, fit_sample, make_edit, pick_reference
from homestretch.failures.neighbours import Neighbours
from homestretch.ops.entities import is_supported
from homestretch.ops.words import words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

_CANDIDATES = 12
_MAX_SUPPORTED = 0.5
_STEM = 5


class Irrelevant(FailureMode):
    """Another example's reference: half at random, half from the nearest sources whose entities differ."""

    name = "irrelevant"

    def fit(self, corpus: Corpus) -> None:
        examples = fit_sample(corpus)
        self._finder = fit_finder(corpus)
        self._neighbours = Neighbours(examples)
        stems = [_stems(example.source) for example in examples]
        counts = Counter(stem for document in stems for stem in document)
        self._weights = {stem: math.log(1 + len(examples) / count) for stem, count in counts.items()}
        self._unseen = math.log(1 + len(examples))
        self._band = Band.of([-self._coverage(e, text) for e in examples for text in e.references], at_least=-0.9)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        if pick_reference(example, rng) is None:
            return None
        is_near = bool(rng.random() < 0.5)
        others = self._neighbours.nearest(example, _CANDIDATES) if is_near else []
        others = [others[i] for i in rng.permutation(len(others))] or self._neighbours.random(example, _CANDIDATES, rng)
        for other in others:
            text = pick_reference(other, rng)
            if text is not None and self._is_foreign(example, text):
                kind = "near source" if is_near else "random source"
                return make_edit(example, text, (0, len(text)), f"reference of {other.id} ({kind})")
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        if not words(completion.text):
            return 0.0
        return self._band.severity(-self._coverage(example, completion.text))

    def _is_foreign(self, example: Example, text: str) -> bool:
        """Whether at most half of what the text mentions is in the source; without mentions, half of its words."""
        found = self._finder.mentions(text)
        if found:
            return sum(is_supported(m, example.source) for m in found) <= _MAX_SUPPORTED * len(found)
        return self._coverage(example, text) <= _MAX_SUPPORTED

    def _coverage(self, example: Example, text: str) -> float:
        """Share of the text's distinct words that the source has, rare words counting more (idf). 0 for no words."""
        stems = _stems(text)
        source = _stems(example.source)
        weight = {stem: self._weights.get(stem, self._unseen) for stem in stems}
        return sum(w for stem, w in weight.items() if stem in source) / max(sum(weight.values()), 1e-9)


def _stems(text: str) -> frozenset[str]:
    """The words by their first letters, so that "bake" covers "baked"."""
    return frozenset(word[:_STEM] for word in words(text))
