"""wrong_speaker: what one person said or did is given to another."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np

from homestretch.failures.base import (
    capitalise_like,
    fit_finder,
    lower_like,
    make_edit,
    pick,
    pick_reference,
)
from homestretch.ops.names import fold, speakers
from homestretch.types import Corpus, Edit, Example, FailureMode

_MUTUAL = re.compile(
    r"\b(?:meet|talk|chat|discuss|dat(?:e|es|ing)\b|marr|agree|argu|together|each other|friends|siblings|roommates"
    r"|colleagues|see each|catch up|speak|exchange|go(?:es|ing)? out with|hang)",
    re.IGNORECASE,
)


class WrongSpeaker(FailureMode):
    """Swap two speakers of a dialogue in the reference, or give one speaker's part to one whom it does not name.

    Refused where the swap may leave the text true: names joined by "and" or "or", and mutual verbs ("Ann meets Bob").
    There is no `detect`: both names are in the source, so only a task with exact facts can check the roles.
    """

    name = "wrong_speaker"

    def fit(self, corpus: Corpus) -> None:
        self._finder = fit_finder(corpus)

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        names = speakers(example.source)
        if reference is None or len(names) < 2:
            return None
        placed = {name: self._places(reference, name) for name in names}
        named = [name for name in names if placed[name]]
        unnamed = [n for n in names if not any(self._places(text, n) for text in example.references)]
        pairs = [(a, b) for a, b in combinations(named, 2) if not _is_symmetric(reference, placed[a], placed[b])]
        if not pairs:
            # One speaker's part can still go to somebody whom the reference leaves out, if that one does it alone.
            pairs = [(a, b) for a in named for b in unnamed if len(named) == 1 and not _MUTUAL.search(reference)]
        if not pairs:
            return None
        a, b = pick(pairs, rng)
        text, span = _exchange(reference, {**dict.fromkeys(placed[a], b), **dict.fromkeys(placed[b], a)})
        return make_edit(example, text, span, f"{a} <-> {b}" if placed[b] else f"{a} -> {b}")

    def _places(self, text: str, name: str) -> list[tuple[int, int]]:
        """Where the text names this speaker, by the whole name or its first word."""
        whole = fold(name)
        found = (m for m in self._finder.mentions(text, also=frozenset(whole.split())) if m.kind == "name")
        return [(m.start, m.end) for m in found if m.value in {whole, whole.split(" ")[0]}]


def _is_symmetric(text: str, a: list[tuple[int, int]], b: list[tuple[int, int]]) -> bool:
    """Whether the two names play one role wherever both are: joined ("A and B"), or with a mutual verb."""
    if _MUTUAL.search(text):
        return True
    joined = [(x, y) for x in a for y in b if _are_joined(text, *sorted((x, y)))]
    return len({x for x, _ in joined}) == len(a) and len({y for _, y in joined}) == len(b)


def _are_joined(text: str, first: tuple[int, int], second: tuple[int, int]) -> bool:
    between = text[first[1] : second[0]]
    return re.fullmatch(r"\s*(?:,|and|or|&|with|,\s*[\w ,]+,?)\s*(?:and|or|&)?\s*", between, re.IGNORECASE) is not None


def _exchange(text: str, replacements: dict[tuple[int, int], str]) -> tuple[str, tuple[int, int]]:
    """Put a name at each place; also the span from the first replacement to the end of the last."""
    parts: list[str] = []
    done, first = 0, 0
    for i, ((start, end), name) in enumerate(sorted(replacements.items())):
        parts += [text[done:start], lower_like(capitalise_like(name, text[start:end]), text)]
        first = start if i == 0 else first
        done = end
    changed = "".join(parts)
    return changed + text[done:], (first, len(changed))
