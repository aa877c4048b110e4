"""When RL stops early, and which checkpoint it ships. Held-out metrics decide, never the reward."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from homestretch.config import GuardConfig


class Guard:
    """Keeps the best held-out scores so far. The first observation is the SFT model's, which RL must beat."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self.best_update = 0
        self.best_scores: NDArray[np.float64] | None = None
        self._waited = 0

    def observe(self, update: int, scores: NDArray[np.float64], kl: float) -> str | None:
        """Take in the held-out scores (n,) of the validation examples and the mean KL in nats per completion.

        Returns why RL should stop, in words, or None to go on. `best_update` is then the checkpoint to ship.
        """
        if self.best_scores is None or scores.mean() > self.best_scores.mean():
            self.best_update, self.best_scores, self._waited = update, scores, 0
            return None
        self._waited += 1
        drop = self.best_scores - scores
        standard_error = float(drop.std(ddof=1) / math.sqrt(len(drop))) if len(drop) > 1 else 0.0
        if standard_error > 0 and drop.mean() > self.config.max_drop_se * standard_error:
            in_se = drop.mean() / standard_error
            return f"the held-out score fell {drop.mean():.4f}, {in_se:.1f} standard errors, below its best"
        if kl > self.config.max_kl:
            return (
                f"the KL to the SFT model, {kl:.1f} nats per completion, passed rl.guard.max_kl={self.config.max_kl:g}"
            )
        if self._waited >= self.config.patience:
            return f"{self._waited} validations in a row without a better held-out score"
        return None
