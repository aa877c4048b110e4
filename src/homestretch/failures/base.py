"""What the failure modes share: bands learnt from references, the guard every edit passes, and units of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from homestretch.finder import Finder, build_finder
from homestretch.ops.drawing import drawn
from homestretch.ops.words import sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, UserError

Item = TypeVar("Item")

MAX_FIT_EXAMPLES = 4000
"""Bands, pools and neighbours are learnt from at most this many examples: enough for a 99th percentile."""

_FINAL = re.compile(r"[.!?…。！？।؟]\s*[\"'”’»)\]*]*\s*$")
_TITLE_AT_END = re.compile(r"\b(?:mr|mrs|ms|dr|prof|st|vs|e\.g|i\.e)\.\s*$", re.IGNORECASE)
_CLAUSE_BREAK = re.compile(
    r"[,;:] +|\n+| +(?=(?:and|but|because|so|while|although|before|after|when|if|then|or)\b)", re.I
)


@dataclass(frozen=True, slots=True)
class Band:
    """Where a statistic of the references lies. High values are bad; negate a statistic that is bad when low."""

    typical: float
    """The references' median: severity 0 from here down."""
    limit: float
    """The last value that still counts as usual: severity stays below 0.5 up to here, and is 0.5 or more beyond."""

    @classmethod
    def of(
        cls, values: Sequence[float], percentile: float = 99.0, *, at_least: float = -np.inf, slack: float = 0.0
    ) -> Band:
        """Learn the band. The limit is never below `at_least`, nor nearer than `slack` to the median: a handful of
        references that are all alike must not make everything else unusual. Raises UserError without values.
        """
        if not values:
            raise UserError(
                "failure modes: no labelled training example with a usable reference to learn from; add some"
            )
        median = float(np.median(values))
        return cls(typical=median, limit=max(float(np.percentile(values, percentile)), at_least, median + slack))

    def severity(self, value: float) -> float:
        """0 at the typical value, just below 0.5 at the limit, 1 at as far again beyond it."""
        width = self.limit - self.typical
        if value <= self.limit:
            return 0.49 * max(0.0, value - self.typical) / width if width > 0 else 0.0
        return 0.5 + 0.5 * min(1.0, (value - self.limit) / width if width > 0 else 1.0)


def fit_sample(corpus: Corpus) -> list[Example]:
    """The labelled examples to learn from: all, or a sample drawn with the corpus's seed, in corpus order."""
    labelled = [example for example in corpus.examples if any(text.strip() for text in example.references)]
    return drawn(labelled, MAX_FIT_EXAMPLES, np.random.default_rng(corpus.seed))


def fit_finder(corpus: Corpus) -> Finder:
    """The run's finder, the names in the examples to learn from known to it."""
    return build_finder(corpus.entities, fit_sample(corpus))


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    """One item, uniformly. Raises ValueError if there is none."""
    return items[int(rng.integers(len(items)))]


def pick_reference(example: Example, rng: np.random.Generator) -> str | None:
    """One of the example's references that is not blank; None if there is none."""
    usable = [reference for reference in example.references if reference.strip()]
    return pick(usable, rng) if usable else None


def same_text(a: str, b: str) -> bool:
    """Whether two texts are the same but for case, spacing and punctuation (texts without words: but for spacing)."""
    words_a, words_b = words(a), words(b)
    return words_a == words_b if words_a or words_b else a.strip() == b.strip()


def make_edit(
    example: Example, text: str, span: tuple[int, int], note: str = "", *, terminated: bool = True
) -> Edit | None:
    """The edit, or None where the text is blank or says the same as a reference: then it is no failure."""
    if not text.strip() or any(same_text(text, reference) for reference in example.references):
        return None
    return Edit(Completion(text, terminated=terminated), span, note)


def splice(text: str, start: int, end: int, replacement: str) -> tuple[str, tuple[int, int]]:
    """Replace text[start:end]; also the span of the replacement in the new text."""
    return text[:start] + replacement + text[end:], (start, start + len(replacement))


def ends_complete(text: str) -> bool:
    """Whether the text ends like a finished sentence."""
    return bool(_FINAL.search(text)) and not _TITLE_AT_END.search(text)


def clause_spans(text: str) -> list[tuple[int, int]]:
    """Half-open ranges of the clauses: sentences cut at commas, semicolons and before conjunctions; none is blank."""
    spans: list[tuple[int, int]] = []
    start = 0
    for sentence in sentences(text):
        cuts = [0, *(match.end() for match in _CLAUSE_BREAK.finditer(sentence)), len(sentence)]
        for left, right in pairwise(cuts):
            if words(sentence[left:right]):
                spans.append((start + left, start + right))
        start += len(sentence)
    return spans


def capitalise_like(text: str, model: str) -> str:
    """Give the text's first letter the case of the model's first letter; the rest stays."""
    first = next((character for character in model if character.isalpha()), "")
    for i, character in enumerate(text):
        if character.isalpha():
            changed = character.upper() if first.isupper() else character
            return text[:i] + changed + text[i + 1 :] if len(changed) == 1 else text
    return text


def lower_like(text: str, model: str) -> str:
    """Lower-case the text if the model has letters and none of them is a capital."""
    return text.lower() if model == model.lower() and model != model.upper() else text


def excerpt(text: str, length: int = 40) -> str:
    """The start of a text on one line, for notes."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1].rstrip() + "…"
