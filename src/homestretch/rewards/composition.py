"""What RL is paid: the learned reward, shaped, with the length penalty, and the floor where the text did not end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from homestretch.config import LengthConfig
from homestretch.rewards.length import LengthModel, length_penalty, word_counts
from homestretch.training import TrainingError
from homestretch.types import Completion, Example, ScoredCompletions, Scorer

Array = NDArray[np.float64]
Shaping = Literal["none", "log_sigmoid", "sigmoid"]


@dataclass(frozen=True, slots=True)
class RewardComposition:
    """Everything that is added up for one completion. The KL term is per token and not here."""

    reward: Scorer
    floor: float
    """Replaces the whole score of a completion without a terminator."""
    length_model: LengthModel
    length: LengthConfig
    shaping: Shaping

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        """Score completions. ValueError if the reward has the wrong shape, TrainingError if it is not finite."""
        learned = checked(self.reward(examples, completions), len(examples))
        shaped = self._shaped(learned, examples)
        penalty = length_penalty(
            word_counts(completions), self.length_model.expected(examples),
            coefficient=self.length.coefficient, tolerance=self.length.tolerance,
        )  # fmt: skip
        terminated = np.array([c.terminated for c in completions])
        scores = np.where(terminated, shaped + penalty, self.floor)
        return ScoredCompletions(scores, {"reward_model": learned, "shaped": shaped, "length_penalty": penalty})

    def _shaped(self, learned: Array, examples: Sequence[Example]) -> Array:
        """log sigmoid(r - r_ref) (Wang et al. 2024, arXiv 2402.00742) or sigmoid(r - r_ref) (PAR, arXiv 2502.18770).

        References have a calibrated mean of 0, which stands in for r_ref where an example has none.
        """
        if self.shaping == "none":
            return learned
        margin = learned - self._reference_rewards(examples)
        log_sigmoid = -np.logaddexp(0.0, -margin)
        return log_sigmoid if self.shaping == "log_sigmoid" else np.exp(log_sigmoid)

    def _reference_rewards(self, examples: Sequence[Example]) -> Array:
        labelled = {example.id: example for example in examples if example.references}
        rewards = self.reward(list(labelled.values()), [Completion(e.reference) for e in labelled.values()])
        by_id = dict(zip(labelled, rewards, strict=True))
        return np.array([by_id.get(example.id, 0.0) for example in examples])


def checked(rewards: Array, count: int) -> Array:
    """The rewards as given; ValueError if they are not `count` numbers, TrainingError if one is not finite."""
    if rewards.shape != (count,):
        raise ValueError(f"the reward returned shape {rewards.shape} for {count} completions")
    if not np.isfinite(rewards).all():
        bad = int((~np.isfinite(rewards)).sum())
        raise TrainingError(f"rl/reward_model is not finite for {bad} of {count} completions; nothing was applied")
    return rewards
