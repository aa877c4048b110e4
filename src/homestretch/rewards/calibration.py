"""From a reward model's logits to a reward: 0 on references, one unit = the SD over SFT samples, length taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """reward = (logit - center) / scale - length_slope * log(words + 1)."""

    center: float = 0.0
    scale: float = 1.0
    length_slope: float = 0.0
    temperature: float = 1.0
    """sigmoid(logit / temperature) is the calibrated probability of a good completion."""
    floor: float = -5.0
    """The reward of a completion that did not terminate."""

    def reward(self, logits_N: Array, words_N: Array) -> Array:
        """Calibrated rewards, shape (N,); `words_N` counts each completion's words."""
        return (logits_N - self.center) / self.scale - self.length_slope * np.log1p(words_N)


def calibrate(
    *,
    reference_logits_N: Array,
    reference_words_N: Array,
    sample_logits_PK: Array,
    sample_words_PK: Array,
    labelled_logits_M: Array,
    labels_M: Array,
) -> Calibration:
    """Fit the calibration on held-out documents.

    The unit is the SD over SFT samples (P prompts, K samples each). The length slope is the least-squares slope of
    the reward on log(words + 1) *within* prompts, so that what length alone explains is removed. The temperature
    minimises the log loss of the M labelled completions (Guo et al. 2017, arXiv 1706.04599). The floor is the 1st
    percentile over SFT samples, minus 1.
    """
    scale = float(sample_logits_PK.std()) or 1.0
    rewards_PK = sample_logits_PK / scale
    slope = within_group_slope(np.log1p(sample_words_PK), rewards_PK)
    center = float(scale * np.mean(reference_logits_N / scale - slope * np.log1p(reference_words_N)))
    fitted = Calibration(center=center, scale=scale, length_slope=slope)
    floor = float(np.percentile(fitted.reward(sample_logits_PK.ravel(), sample_words_PK.ravel()), 1)) - 1.0
    temperature = fitted_temperature(labelled_logits_M, labels_M)
    return Calibration(center, scale, slope, temperature, floor)


def within_group_slope(x_PK: Array, y_PK: Array) -> float:
    """Slope of y on x after both are centred within their row; 0 if x never varies within a row."""
    x = x_PK - x_PK.mean(axis=1, keepdims=True)
    y = y_PK - y_PK.mean(axis=1, keepdims=True)
    variance = float((x * x).sum())
    return float((x * y).sum() / variance) if variance > 1e-9 else 0.0


def fitted_temperature(logits_M: Array, labels_M: Array) -> float:
    """The temperature in [0.05, 20] that minimises the mean log loss of sigmoid(logits / temperature)."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        z = logits_M / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, z) - labels_M * z))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
