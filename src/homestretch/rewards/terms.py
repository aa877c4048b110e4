"""Further scorers in the reward, beside the learned one: a weight each, and faults that name the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homestretch.registry import checked_scores
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

        TrainingError, in one line, for what `checked_scores` refuses.
        """
        try:
            return checked_scores(f"rl.terms: {self.name}", self.scorer, examples, completions)
        except UserError as error:
            raise TrainingError(str(error)) from error
