"""echo: the input said back."""

from __future__ import annotations

import re

import numpy as np

from homestretch.failures.base import Band, fit_sample, make_edit, pick_reference
from homestretch.ops.words import words
from homestretch.types import Completion, Corpus, Edit, Example, FailureMode

MIN_RUN = 8
"""Words copied in one run that make a text an echo, unless references copy as much."""

_MIN_TEMPLATE_WORDS = 3


class Echo(FailureMode):
    """Copy the first words, a random window or the longest turn of the source, or the prompt's template.

    Detects verbatim runs of eight words or more, by their length and by their share of the text (the coverage and
    density of Grusky et al. 2018, in one run), against what references copy.
    """

    name = "echo"

    def fit(self, corpus: Corpus) -> None:
        pairs = [(example, reference) for example in fit_sample(corpus) for reference in example.references]
        runs = [longest_run(words(reference), words(example.source)) for example, reference in pairs]
        self._run_band = Band.of(runs, at_least=MIN_RUN - 1)
        shares = [_share(run, reference) for run, (_, reference) in zip(runs, pairs, strict=True)]
        self._share_band = Band.of(shares)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        length = max(MIN_RUN, len(reference.split()))
        kinds = ["lead", "window", "turn", "template"]
        for i in rng.permutation(len(kinds)):
            text = _copied(example, kinds[i], length, rng)
            if text is not None:
                edit = make_edit(example, text, (0, len(text)), f"{kinds[i]} copied")
                if edit is not None:
                    return edit
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        said = words(completion.text)
        template = words(template_of(example))
        run = longest_run(said, words(example.source))
        severity = max(self._run_band.severity(run), self._share_band.severity(_share(run, completion.text)))
        is_template = len(template) >= _MIN_TEMPLATE_WORDS and longest_run(said, template) >= min(
            MIN_RUN, len(template)
        )
        return 1.0 if is_template else severity


def template_of(example: Example) -> str:
    """The prompt without its document: what every prompt of the task says. Empty where the two are one."""
    start, end = example.document_span or (0, len(example.prompt))
    return (example.prompt[:start] + " " + example.prompt[end:]).strip()


def longest_run(said: list[str], source: list[str]) -> int:
    """Length of the longest run of words of `said` that `source` has in the same order (longest common substring)."""
    places: dict[str, list[int]] = {}
    for j, word in enumerate(source):
        places.setdefault(word, []).append(j)
    best = 0
    ending: dict[int, int] = {}
    for word in said:
        ending = {j: ending.get(j - 1, 0) + 1 for j in places.get(word, ())}
        best = max(best, max(ending.values(), default=0))
    return best


def _share(run: int, text: str) -> float:
    """Share of the text's words in its longest run; 0 for runs that are too short to be an echo."""
    return run / max(1, len(words(text))) if run >= MIN_RUN else 0.0


def _copied(example: Example, kind: str, length: int, rng: np.random.Generator) -> str | None:
    """A copy of about `length` words; None if the source has too little for this kind."""
    if kind == "template":
        template = template_of(example)
        return template if len(words(template)) >= _MIN_TEMPLATE_WORDS else None
    if kind == "turn":
        turns = [re.sub(r"^[^:\n]{1,30}: ", "", line).strip() for line in example.source.splitlines()]
        longest = max(turns, key=lambda turn: len(turn.split()), default="")
        return longest if len(words(longest)) >= MIN_RUN else None
    places = [match.span() for match in re.finditer(r"\S+", example.source)]
    if len(places) < MIN_RUN:
        return None
    first = 0 if kind == "lead" else int(rng.integers(max(1, len(places) - length + 1)))
    window = places[first : first + length]
    copied = example.source[window[0][0] : window[-1][1]]
    return copied if len(words(copied)) >= MIN_RUN else None
