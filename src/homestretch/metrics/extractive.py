"""How much of a completion is copied from its source. Descriptive: more copying is neither good nor bad as such."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.ops.words import ngrams, words
from homestretch.types import Completion, Example, Metric


def fragment_lengths(source: Sequence[str], text: Sequence[str]) -> list[int]:
    """Lengths of the extractive fragments F(A, S) of Grusky et al. 2018 (arXiv 1804.11283).

    Going through `text` from the left: the longest run of words that starts here and also occurs in `source` is a
    fragment; a word that does not occur in `source` belongs to none.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    for i, word in enumerate(source):
        positions[word].append(i)
    lengths: list[int] = []
    start = 0
    while start < len(text):
        longest = max((_run_length(source, i, text, start) for i in positions.get(text[start], ())), default=0)
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths


def coverage(context: MetricContext) -> Metric:
    """Share of the completion's words that lie in a fragment copied from the source; NaN without a word."""
    return _fragment_metric("coverage", lambda lengths: sum(lengths))


def density(context: MetricContext) -> Metric:
    """Sum of squared fragment lengths over the number of words: the mean length of the copy a word is in."""
    return _fragment_metric("density", lambda lengths: sum(length**2 for length in lengths))


def novel_bigrams(context: MetricContext) -> Metric:
    """Share of the completion's word bigrams that do not occur in the source (See et al. 2017); NaN without one."""

    def score(example: Example, completion: Completion) -> float:
        bigrams = ngrams(words(completion.text), 2)
        known = set(ngrams(words(example.source), 2))
        return sum(bigram not in known for bigram in bigrams) / len(bigrams) if bigrams else math.nan

    return per_example("novel_bigrams", score, None)


def _fragment_metric(name: str, total: Callable[[Sequence[int]], float]) -> Metric:
    def score(example: Example, completion: Completion) -> float:
        num_words, lengths = _fragments(example.source, completion.text)
        return total(lengths) / num_words if num_words else math.nan

    return per_example(name, score, None)


@lru_cache(maxsize=16384)
def _fragments(source: str, text: str) -> tuple[int, tuple[int, ...]]:
    """The text's number of words and its fragments' lengths, shared by coverage and density."""
    text_words = words(text)
    return len(text_words), tuple(fragment_lengths(words(source), text_words))


def _run_length(source: Sequence[str], i: int, text: Sequence[str], j: int) -> int:
    length = 0
    while i + length < len(source) and j + length < len(text) and source[i + length] == text[j + length]:
        length += 1
    return length
