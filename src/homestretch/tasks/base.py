"""What a built-in task is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from homestretch.types import Example, Metric

SPLITS: tuple[str, ...] = ("train", "validation", "test", "prompts")
"""The splits of every task. `prompts` are inputs without references or facts: RL may use them, training and evaluation
cannot."""


class Task(ABC):
    """A generated task: examples from a seed, and the metrics that its exact facts make possible."""

    name: ClassVar[str]
    """The name in recipes and in example ids."""
    template: ClassVar[str]
    """The prompt template, with {document} where the source goes."""

    @abstractmethod
    def generate(self, split: str, size: int, seed: int) -> list[Example]:
        """`size` distinct examples of a split; the same arguments give the same examples.

        A longer split starts with the shorter one's examples. No two splits share an example, whatever the sizes and
        seeds. Raises ValueError for an unknown split.
        """

    @abstractmethod
    def metrics(self) -> list[Metric]:
        """Metrics computed from `Example.facts`; NaN for examples without facts."""
