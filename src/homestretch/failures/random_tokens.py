"""random_tokens: words drawn from the corpus, at a reference's length."""

from __future__ import annotations

import numpy as np

from homestretch.failures.base import Band, fit_sample, make_edit, pick, pick_reference
from homestretch.failures.trigram import TrigramModel, WordOrder, fit_held_out, tokens
from homestretch.ops.words import ngrams, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode


class RandomTokens(FailureMode):
    """Half single words by frequency, half runs of three words, both drawn from the corpus's references.

    Words and not token ids: the reward must not learn that a failure looks like a broken tokenizer. Detects by trigram
    bits per token and by word order, both against the references' bands.
    """

    name = "random_tokens"

    def fit(self, corpus: Corpus) -> None:
        examples = fit_sample(corpus)
        texts = [reference.split() for example in examples for reference in example.references]
        self._words = [word for text in texts for word in text]
        self._runs = [run for text in texts for run in ngrams(text, 3)] or [(word,) for word in self._words]
        self._order = WordOrder(examples)
        self._model, held_out = fit_held_out(examples, lambda *arguments: (_bits(*arguments),))
        self._bits_band = Band.of([bits for (bits,) in held_out], slack=0.5)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        length = len(reference.split())
        drawn: list[str] = []
        is_unigram = bool(rng.random() < 0.5)
        while len(drawn) < length:
            drawn += [pick(self._words, rng)] if is_unigram else pick(self._runs, rng)
        text = " ".join(drawn[:length])
        note = "words drawn by frequency" if is_unigram else "runs of three words drawn from the corpus"
        return make_edit(example, text, (0, len(text)), note)

    def detect(self, example: Example, completion: Completion) -> float | None:
        surprise = self._bits_band.severity(_bits(self._model, example, completion.text))
        return max(surprise, self._order.severity(completion.text))


def _bits(model: TrigramModel, example: Example, text: str) -> float:
    return model.bits(tokens(text), frozenset(words(example.source)))
