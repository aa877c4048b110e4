"""Further scorers in the reward, beside the learned one: a weight each, and faults that name the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homestretch.registry import blaming
from homestretch.training import TrainingError
from homestretch.types import Completion, Example, Scorer, UserError


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One entry of `rl.terms`."""

    name: str
    """As the recipe has it."""
    scorer: Scorer
    weight: float

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        """The scorer's values before the weight, shape (n,); NaN where it is undefined.

        TrainingError, one line with the scorer's name and the first example's id that is at fault where there is one,
        if the scorer raises, gives another shape than (n,), no numbers, or an infinite one.
        """
        values = self._called(examples, completions)
        if values.shape != (len(examples),):
            raise TrainingError(
                f"rl.terms: {self.name} returned shape {values.shape} for {len(examples)} completions; a scorer "
                "returns one number per completion"
            )
        if np.isinf(values).any():
            bad = examples[int(np.flatnonzero(np.isinf(values))[0])].id
            raise TrainingError(
                f"rl.terms: {self.name} is infinite (example {bad!r}); return NaN where it is undefined"
            )
        return values

    def _called(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        try:
            with blaming(f"rl.terms: {self.name} failed"):
                return np.asarray(self.scorer(examples, completions), dtype=np.float64)
        except UserError as error:
            raise TrainingError(f"{error}{self._culprit(examples, completions)}") from error

    def _culprit(self, examples: Sequence[Example], completions: Sequence[Completion]) -> str:
        """The first example that fails alone as well, in words; nothing if there is none."""
        for example, completion in zip(examples, completions, strict=True):
            try:
                np.asarray(self.scorer([example], [completion]), dtype=np.float64)
            except Exception:  # noqa: BLE001 - the error itself was caught before; this only finds its place
                return f" (example {example.id!r})"
        return ""
