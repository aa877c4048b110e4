"""What RL is paid: the learned reward, shaped, the length penalty, further terms, and a floor where nothing ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from homestretch.config import LengthConfig
from homestretch.rewards.length import LengthModel, length_penalty, word_counts
from homestretch.rewards.terms import RewardTerm
from homestretch.training import TrainingError
from homestretch.types import Completion, Example, ScoredCompletions, Scorer

Array = NDArray[np.float64]
Shaping = Literal["none", "log_sigmoid", "sigmoid"]


@runtime_checkable
class ScorerWithTerms(Scorer, Protocol):
    """A scorer that can say what its scores were made of."""

    def scored(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        """The same scores with their terms."""
        ...


@dataclass(frozen=True, slots=True)
class RewardComposition:
    """Everything that is added up for one completion. The KL term is per token and not here.

    score = weight * shaped + length penalty + sum of each term's weight * value, undefined counting as 0. Without a
    terminator it is max(1, weight) * floor instead, plus what the terms take off, or what it would be with one if that
    is less, so that not ending never pays.
    """

    reward: Scorer
    """The learned reward. What it is made of, if it says so (`ScorerWithTerms`), is logged beside it."""
    floor: float
    """Replaces the whole score of a completion without a terminator."""
    length_model: LengthModel
    length: LengthConfig
    shaping: Shaping
    weight: float = 1.0
    """Of the learned reward, shaped. At 0 it is still computed, as a monitor."""
    terms: tuple[RewardTerm, ...] = ()

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        """Score completions; each part is in `terms` before its weight, those of `rl.terms` as "term/NAME", NaN where
        undefined.

        ValueError if the learned reward has the wrong shape, TrainingError if it is not finite or a term fails.
        """
        scored = self._learned(examples, completions)
        learned = checked(scored.scores, len(examples))
        shaped = self._shaped(learned, examples)
        penalty = length_penalty(
            word_counts(completions), self.length_model.expected(examples),
            coefficient=self.length.coefficient, tolerance=self.length.tolerance,
        )  # fmt: skip
        terminated = np.array([c.terminated for c in completions])
        values = {term.name: term(examples, completions) for term in self.terms}
        paid = (term.weight * np.nan_to_num(values[term.name]) for term in self.terms)
        added = sum(paid, start=np.zeros(len(examples)))
        floor = max(1.0, self.weight) * self.floor + np.minimum(added, 0.0)
        total = self.weight * shaped + penalty + added
        scores = np.where(terminated, total, np.minimum(floor, total))
        parts = {"reward_model": learned, **scored.terms, "shaped": shaped, "length_penalty": penalty}
        return ScoredCompletions(scores, parts | {f"term/{name}": value for name, value in values.items()})

    def _learned(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        if isinstance(self.reward, ScorerWithTerms):
            return self.reward.scored(examples, completions)
        return ScoredCompletions(self.reward(examples, completions), {})

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


def checked(rewards: Array, count: int, name: str = "rl/reward_model") -> Array:
    """The rewards as given; ValueError if they are not `count` numbers, TrainingError if one is not finite."""
    if rewards.shape != (count,):
        raise ValueError(f"the reward returned shape {rewards.shape} for {count} completions")
    if not np.isfinite(rewards).all():
        bad = int((~np.isfinite(rewards)).sum())
        raise TrainingError(f"{name} is not finite for {bad} of {count} completions; nothing was applied")
    return rewards
