"""Do stated probabilities come true? Bins of equal mass, their plot's points, and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Completions with like probabilities."""

    predicted: float
    """Mean probability."""
    observed: float
    """Share that is good."""
    count: int
    weight: float
    """Its share of the whole weight."""


def reliability_bins(
    probability: Floats, label: Floats, weight: Floats | None = None, *, num_bins: int = NUM_BINS
) -> list[Bin]:
    """Bins of equal mass (Nixon et al. 2019), by rising probability; equal probabilities always share a bin.

    Arrays have shape (n,), n > 0. Means are weighted; a bin that nothing falls into is left out.
    """
    weight = np.ones_like(probability) if weight is None else weight
    edges = np.quantile(probability, np.arange(1, num_bins) / num_bins, weights=weight, method="inverted_cdf")
    index = np.searchsorted(edges, probability, side="left")
    bins: list[Bin] = []
    for i in np.unique(index):
        inside = index == i
        mass = weight[inside].sum()
        bins.append(
            Bin(
                predicted=float(weight[inside] @ probability[inside] / mass),
                observed=float(weight[inside] @ label[inside] / mass),
                count=int(inside.sum()),
                weight=float(mass / weight.sum()),
            )
        )
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the weighted mean over bins of |mean probability - share that is good|."""
    return sum(item.weight * abs(item.predicted - item.observed) for item in bins)
