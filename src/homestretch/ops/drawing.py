"""Some of many, in their order: at random, or evenly spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def drawn(items: Sequence[T], most: int | None, rng: np.random.Generator) -> list[T]:
    """At most `most` of the items, drawn without replacement, in their order. None: all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(rng.choice(len(items), size=most, replace=False))]


def evenly(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items from over the whole length, always the same ones."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
