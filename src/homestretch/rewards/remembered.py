"""A scorer that calibration and audit ask for the same completions again and again, and that scores them once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from homestretch.types import Completion, Example, Scorer


class Remembered:
    """The same scores as `scorer`'s, none of them computed twice. Examples go by their id, completions by their text
    and end. Ask for what belongs together in one call: scorers share prompts within a call."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._known: dict[tuple[str, str, bool], float] = {}

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        keys = [(e.id, c.text, c.terminated) for e, c in zip(examples, completions, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self._known}
        if new:
            scores = self._scorer([examples[i] for i in new.values()], [completions[i] for i in new.values()])
            self._known.update(zip(new, map(float, scores), strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float64)
