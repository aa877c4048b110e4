"""ops/drawing.py: some of many, in their order."""

from __future__ import annotations

import numpy as np

from homestretch.ops.drawing import drawn, evenly


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_drawn_follows_the_seed_and_keeps_the_order() -> None:
    chosen = drawn(range(60), 10, rng())
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen) == drawn(range(60), 10, rng())
    assert chosen != list(range(10))
    assert chosen != drawn(range(60), 10, rng(1))


def test_drawn_gives_all_where_that_is_no_more() -> None:
    untouched = rng()
    assert drawn("abc", 3, untouched) == drawn("abc", None, untouched) == ["a", "b", "c"]
    assert untouched.random() == rng().random()


def test_evenly_reaches_over_the_whole_length() -> None:
    assert evenly(range(10), 3) == [0, 3, 6]
    assert evenly(range(2), 3) == [0, 1]
    assert evenly([], 3) == []
