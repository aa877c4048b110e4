"""Overlap with the references: ROUGE, a length-adjusted ROUGE-L, chrF. NaN for an example without references."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.types import Completion, Example, Metric


class RougeScores(NamedTuple):
    """ROUGE F1 of one text against one reference, each 0..1."""

    rouge_1: float
    rouge_2: float
    rouge_l: float
    length_ratio: float
    """The text's ROUGE tokens over the reference's; infinite for a reference without any."""


@lru_cache(maxsize=65536)
def rouge_scores(reference: str, text: str) -> RougeScores:
    """All ROUGE types in one pass (Lin 2004; rouge-score with the Porter stemmer)."""
    scores = _rouge_scorer().score(reference, text)
    num_reference = len(_tokenizer().tokenize(reference))
    ratio = len(_tokenizer().tokenize(text)) / num_reference if num_reference else math.inf
    rouge_1, rouge_2, rouge_l = (float(scores[kind].fmeasure) for kind in ("rouge1", "rouge2", "rougeL"))
    return RougeScores(rouge_1, rouge_2, rouge_l, ratio)


def rouge_precision(source: str, text: str) -> tuple[float, float, float]:
    """Share of the text's words, word pairs and longest common subsequence that the source has: ROUGE-1, -2 and -L."""
    scores = _rouge_scorer().score(source, text)
    return float(scores["rouge1"].precision), float(scores["rouge2"].precision), float(scores["rougeL"].precision)


def length_adjusted(f1: float, ratio: float) -> float:
    """F1 * exp(1 - max(ratio, 1/ratio)): full at the reference's length, falling on both sides of it."""
    if ratio <= 0 or math.isinf(ratio):
        return 0.0
    return f1 * math.exp(1 - max(ratio, 1 / ratio))


def rouge_1(context: MetricContext) -> Metric:
    """Unigram F1, the best over the references."""
    return per_example("rouge_1", lambda example, completion: _best_rouge(example, completion, "rouge_1"))


def rouge_2(context: MetricContext) -> Metric:
    """Bigram F1, the best over the references."""
    return per_example("rouge_2", lambda example, completion: _best_rouge(example, completion, "rouge_2"))


def rouge_l(context: MetricContext) -> Metric:
    """F1 of the longest common subsequence, the best over the references."""
    return per_example("rouge_l", lambda example, completion: _best_rouge(example, completion, "rouge_l"))


def rouge_l_length_adjusted(context: MetricContext) -> Metric:
    """ROUGE-L F1 * exp(1 - max(rho, 1/rho)), rho the length ratio in ROUGE tokens, the best over the references."""

    def score(example: Example, completion: Completion) -> float:
        scores = [rouge_scores(reference, completion.text) for reference in example.references]
        return max((length_adjusted(s.rouge_l, s.length_ratio) for s in scores), default=math.nan)

    return per_example("rouge_l_length_adjusted", score)


def chrf(context: MetricContext) -> Metric:
    """Sentence chrF2 (Popovic 2015; sacrebleu), 0..1, the best over the references."""

    def score(example: Example, completion: Completion) -> float:
        return _chrf(example.references, completion.text) if example.references else math.nan

    return per_example("chrf", score)


def _best_rouge(example: Example, completion: Completion, kind: str) -> float:
    scores = [rouge_scores(reference, completion.text) for reference in example.references]
    return max((float(getattr(s, kind)) for s in scores), default=math.nan)


@lru_cache(maxsize=65536)
def _chrf(references: tuple[str, ...], text: str) -> float:
    return float(_chrf_scorer().sentence_score(text, list(references)).score) / 100


@lru_cache(maxsize=1)
def _chrf_scorer() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


class _CachedTokenizer:
    """rouge-score's own tokens; a word is stemmed once, and a text split once, since that is most of the cost."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import porter

        self.stem = lru_cache(maxsize=65536)(porter.PorterStemmer().stem)
        self.tokenize = lru_cache(maxsize=16384)(self._tokenize)

    def _tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return list(tokenize(text, self))


@lru_cache(maxsize=1)
def _tokenizer() -> _CachedTokenizer:
    return _CachedTokenizer()


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_tokenizer())
