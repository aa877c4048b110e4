"""run_on: the text does not stop where it should."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from homestretch.failures.base import Band, ends_complete, excerpt, fit_sample, make_edit, pick, pick_reference
from homestretch.failures.echo import template_of
from homestretch.ops.names import speakers
from homestretch.ops.words import WORD_PATTERN, sentences, words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode, UserError

_TURN = re.compile(r"\n\s*[^\W\d_][\w.'’\-]*(?: [\w.'’\-]+){0,2} ?:(?=\s|$)")
_UNUSUAL = 0.01
_UNTERMINATED_PERCENTILE = 75.0


class RunOn(FailureMode):
    """Append another reference, or an invented next turn or prompt; no terminator.

    Detects a length beyond what references have for a source of this length (least squares in log-log), a next-speaker
    marker, and the prompt template. A text that was not ended by the model counts as too long sooner.
    """

    name = "run_on"

    def fit(self, corpus: Corpus) -> None:
        self._examples = fit_sample(corpus)
        pairs = [(example, r) for example in self._examples for r in example.references if r.strip()]
        if not pairs:
            raise UserError(
                "failure modes: no labelled training example with a usable reference to learn from; add some"
            )
        source_lengths = np.log1p([len(words(example.source)) for example, _ in pairs])
        lengths = np.log1p([len(words(reference)) for _, reference in pairs])
        spread = float(np.var(source_lengths))
        covariance = float(np.mean((source_lengths - source_lengths.mean()) * (lengths - lengths.mean())))
        self._slope = covariance / spread if spread > 1e-9 else 0.0
        self._intercept = float(lengths.mean() - self._slope * source_lengths.mean())
        excess = [self._excess(example, reference) for example, reference in pairs]
        self._band = Band.of(excess, at_least=0.1)
        self._longest = max(excess)
        self._unterminated_limit = float(np.percentile(excess, _UNTERMINATED_PERCENTILE))
        with_turns = sum(_TURN.search(reference) is not None for _, reference in pairs)
        self._turns_are_marks = with_turns <= _UNUSUAL * len(pairs)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        kind = "turn" if self._turns_are_marks and rng.random() < 0.5 else "reference"
        text = reference.rstrip()
        added = self._next_turn(example, rng) if kind == "turn" else ""
        for _ in range(8):
            if added and (kind == "turn" or self._excess(example, text + added) > self._unterminated_limit):
                break
            other = pick_reference(pick(self._examples, rng), rng)
            added += "" if other is None or other in example.references or other in added else " " + other.strip()
        if not words(added):
            return None
        span = (len(text), len(text) + len(added))
        return make_edit(example, text + added, span, f"+ {excerpt(added)!r}", terminated=False)

    def detect(self, example: Example, completion: Completion) -> float | None:
        if self._marker(example, completion.text) is not None:
            return 1.0
        excess = self._excess(example, completion.text)
        is_long = not completion.terminated and excess > self._unterminated_limit
        return max(self._band.severity(excess), 0.75 if is_long else 0.0)

    def repair(self, example: Example, completion: Completion) -> Completion:
        """Cut before the first marker; then, if the text is longer than any reference would be (or was not ended by the
        model and is longer than three in four), after the last sentence that ends within that length.
        """
        text = completion.text
        marker = self._marker(example, text)
        if marker is not None and words(text[:marker]):
            text = text[:marker].rstrip()
            is_ended = ends_complete(text) or completion.terminated
            completion = replace(completion, text=text, terminated=is_ended, ids=())
        excess = self._excess(example, text)
        limit = self._longest if completion.terminated else self._unterminated_limit
        if excess <= limit:
            return completion
        shorter = _within(text, int(np.expm1(self._expected(example) + limit)))
        return replace(completion, text=shorter, terminated=True, ids=()) if shorter else completion

    def _expected(self, example: Example) -> float:
        return self._intercept + self._slope * float(np.log1p(len(words(example.source))))

    def _excess(self, example: Example, text: str) -> float:
        """Log of the ratio of the text's length in words to the one expected from the source's."""
        return float(np.log1p(len(words(text)))) - self._expected(example)

    def _marker(self, example: Example, text: str) -> int | None:
        """Where a next turn or prompt begins; None if there is none."""
        found = [match.start() for match in [_TURN.search(text)] if match and self._turns_are_marks]
        template = words(template_of(example))
        if len(template) >= 2:
            starts = [match.start() for match in WORD_PATTERN.finditer(text)]
            flat = words(text)
            head = template[: min(len(template), 6)]
            found += [starts[i] for i in range(len(flat) - len(head) + 1) if flat[i : i + len(head)] == head][:1]
        return min(found, default=None)

    def _next_turn(self, example: Example, rng: np.random.Generator) -> str:
        """An invented next turn of the dialogue, or a second prompt."""
        other = pick(self._examples, rng)
        template = template_of(other)
        if template and rng.random() < 0.5:
            start = other.document_span[0] if other.document_span else 0
            return "\n\n" + other.prompt[:start] + excerpt(other.source, 120)
        names = speakers(example.source) or speakers(other.source)
        if not names:
            return "\n\n" + (f"{template}\n" if template else "Summary: ") + excerpt(other.source, 120)
        lines = [line.partition(": ")[2] for line in other.source.splitlines()]
        said = pick([line.strip() for line in lines if words(line)] or [excerpt(other.source, 120)], rng)
        return f"\n{pick(names, rng)}: {said}"


def _within(text: str, num_words: int) -> str:
    """The leading complete sentences of at most `num_words` words; the first complete one if it alone is longer."""
    best, length = "", 0
    for sentence in sentences(text):
        length += len(sentence)
        candidate = text[:length].rstrip()
        if ends_complete(candidate) and (not best or len(words(candidate)) <= num_words):
            best = candidate
    return best
