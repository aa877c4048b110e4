"""What every metric is built from: the context a factory is given, and the step from one pair to a scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from homestretch.config import RunConfig
from homestretch.finder import Finder, build_finder
from homestretch.types import Completion, Example, Metric


@dataclass(frozen=True)
class MetricContext:
    """What a metric's factory may use: the recipe, and the labelled training examples to learn statistics from."""

    config: RunConfig
    train: Sequence[Example]

    @cached_property
    def finder(self) -> Finder:
        """Finds names, numbers, dates and times, and knows the names of the training texts in lower case as well."""
        return build_finder(self.config.data.entities, self.train)


MetricFactory = Callable[[MetricContext], Metric]
"""What a name in `METRICS` (or a plug-in's entry point, or `module:function`) stands for."""


def per_example(
    name: str, score: Callable[[Example, Completion], float], higher_is_better: bool | None = True
) -> Metric:
    """A metric from a function of one pair. The function returns NaN where the pair has no defined score."""

    def scorer(examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        pairs = zip(examples, completions, strict=True)
        return np.array([score(example, completion) for example, completion in pairs], dtype=np.float64)

    return Metric(name, scorer, higher_is_better)
