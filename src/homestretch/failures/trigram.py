"""A small trigram language model of the task's references: how expected a text is, and how natural its word order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from homestretch.failures.base import Band
from homestretch.ops.words import sentences, words
from homestretch.types import Example

END = "</s>"
_DOCUMENT_WEIGHT = 0.4
_UNSEEN_VOCABULARY = 50_000
_MAX_EXPECTED = 50.0
_LEAST_SCALE = (0.02, 0.2)
_SHRINKAGE = 4
"""A mean over n words is multiplied by n / (n + 4): over a handful of words it says less, so it counts less."""


def tokens(text: str) -> list[str]:
    """Lower-cased words, with a marker where a sentence ends."""
    return [token for sentence in sentences(text) for token in [*words(sentence), END] if words(sentence)]


class TrigramModel:
    """Witten-Bell interpolated trigrams, mixed with the words of the document at hand.

    p(w | h) = (c(hw) + T(h) p(w | h')) / (c(h) + T(h)), with T(h) the number of distinct words seen after h and h' the
    shorter history (Witten and Bell 1991).
    """

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        """Count the texts, each a list from `tokens`."""
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._totals: Counter[tuple[str, ...]] = Counter()
        self._types: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            padded = [END, END, *text]
            for i in range(2, len(padded)):
                for order in range(3):
                    self._add(tuple(padded[i - order : i]), padded[i])

    def _add(self, history: tuple[str, ...], token: str) -> None:
        gram = (*history, token)
        self._types[history] += gram not in self._counts
        self._counts[gram] += 1
        self._totals[history] += 1

    def probability(self, token: str, history: tuple[str, ...]) -> float:
        """p(token | at most two tokens before it), without the document."""
        estimate = 1.0 / _UNSEEN_VOCABULARY
        for order in range(len(history) + 1):
            context = history[len(history) - order :]
            total = self._totals[context]
            if total:
                types = self._types[context]
                estimate = (self._counts[(*context, token)] + types * estimate) / (total + types)
        return estimate

    def bits(self, text: Sequence[str], document: frozenset[str]) -> float:
        """-log2 p per token, over the tokens that the model or the document has; the document's words share 0.4 of the
        mass, or every name would be a surprise. Shrunk towards 0 for short texts; 0 for none.
        """
        padded = [END, END, *text]
        from_document = _DOCUMENT_WEIGHT / len(document) if document else 0.0
        found: list[float] = []
        for i in range(2, len(padded)):
            token = padded[i]
            if token in document or self._counts[(token,)]:
                probability = (1 - _DOCUMENT_WEIGHT) * self.probability(token, tuple(padded[i - 2 : i]))
                found.append(-math.log2(probability + (from_document if token in document else 0.0)))
        return sum(found) / (len(found) + _SHRINKAGE)

    def gain(self, text: Sequence[str]) -> float:
        """Bits per known token that the two tokens before it save: large for prose, about 0 for random order."""
        padded = [END, END, *text]
        saved = [
            math.log2(self.probability(padded[i], tuple(padded[i - 2 : i])) / self.probability(padded[i], ()))
            for i in range(2, len(padded))
            if self._counts[(padded[i],)]
        ]
        return sum(saved) / (len(saved) + _SHRINKAGE)

    def misfit(self, text: Sequence[str]) -> float:
        """How many neighbours do not go together, per token: pairs of common words never seen side by side, each
        counted as the root of how often chance would have put them so ("of the" is common, "the of" never happens).
        """
        total = max(1, self._totals[()])
        found = 0.0
        for a, b in pairwise([END, *text]):
            if not self._counts[(a, b)]:
                found += math.sqrt(min(_MAX_EXPECTED, self._counts[(a,)] * self._counts[(b,)] / total))
        return found / (len(text) + _SHRINKAGE)


def fit_held_out(
    examples: Sequence[Example], score: Callable[[TrigramModel, Example, str], Sequence[float]]
) -> tuple[TrigramModel, list[Sequence[float]]]:
    """The model of all references, and each reference's scores under a model that has not seen its half of the corpus.

    A band of scores on seen text would flag every new reference.
    """
    texts = [[tokens(reference) for reference in example.references] for example in examples]
    halves = [TrigramModel(text for i in range(1 - half, len(texts), 2) for text in texts[i]) for half in (0, 1)]
    scores = [
        score(halves[i % 2], example, reference)
        for i, example in enumerate(examples)
        for reference in example.references
    ]
    return TrigramModel(text for group in texts for text in group), scores


class WordOrder:
    """Whether a text's words stand in an order that the task's references could have.

    Two statistics and their bands: `misfit`, and the sum of standardised `misfit` and negated `gain`, which finds more
    in long texts.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        """Learn from labelled examples. Raises UserError if there are none."""
        self._model, scores = fit_held_out(examples, lambda model, _, text: _order_scores(model, text))
        table = np.asarray(scores, dtype=np.float64).reshape(-1, 2)
        self._misfit_band = Band.of(table[:, 0].tolist(), slack=0.05)
        self._centre, self._scale = table.mean(axis=0), np.maximum(table.std(axis=0), _LEAST_SCALE)
        self._sum_band = Band.of([self._sum(row) for row in table], slack=1.0)

    def severity(self, text: str) -> float:
        """0 for usual order, 0.5 and more beyond what references have."""
        scores = np.asarray(_order_scores(self._model, text))
        return max(self._misfit_band.severity(float(scores[0])), self._sum_band.severity(self._sum(scores)))

    def _sum(self, scores: np.ndarray) -> float:
        return float(((scores - self._centre) / self._scale).sum())


def _order_scores(model: TrigramModel, text: str) -> tuple[float, float]:
    found = tokens(text)
    return model.misfit(found), -model.gain(found)
