"""Examples whose sources are alike: where hard irrelevant texts and plausible additions come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from homestretch.types import Example


class Neighbours:
    """The corpus indexed by TF-IDF of the sources (scikit-learn's), searched by cosine."""

    def __init__(self, examples: Sequence[Example]) -> None:
        """Index the examples; sources without a single word are found by nothing."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._examples = tuple(examples)
        self._vectorizer = TfidfVectorizer(
            sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\b[^\W_]+\b", dtype=np.float32
        )
        has_words = any(any(character.isalnum() for character in example.source) for example in self._examples)
        self._matrix = self._vectorizer.fit_transform(e.source for e in self._examples) if has_words else None

    def nearest(self, example: Example, count: int) -> list[Example]:
        """The most similar other examples, best first; those of the same source or id are left out."""
        if self._matrix is None:
            return []
        similarity = (self._matrix @ self._vectorizer.transform([example.source]).T).toarray()[:, 0]
        order = np.argsort(-similarity, kind="stable")
        # One spare for each copy of the example itself would be exact; a few are enough.
        best = (self._examples[i] for i in order[: count + 8] if similarity[i] > 0)
        return self._others(best, example)[:count]

    def random(self, example: Example, count: int, rng: np.random.Generator) -> list[Example]:
        """Other examples, drawn uniformly."""
        order = rng.permutation(len(self._examples))[: count + 1]
        return self._others((self._examples[i] for i in order), example)[:count]

    @staticmethod
    def _others(candidates: Iterable[Example], example: Example) -> list[Example]:
        return [other for other in candidates if other.id != example.id and other.source != example.source]
