"""A scorer that remembers gives the scorer's own scores and asks it once."""

import numpy as np

from homestretch.rewards.remembered import Remembered
from homestretch.types import Completion, Example


def example(name):
    return Example(id=name, source=name, prompt=name, document_span=(0, 1), references=("r",))


def test_nothing_is_scored_twice_and_nothing_is_mixed_up():
    asked = []

    def scorer(examples, completions):
        asked.append(len(completions))
        return np.array(
            [len(e.id) * 10 + len(c.text) + 0.5 * c.terminated for e, c in zip(examples, completions, strict=True)]
        )

    remembered, a, bb = Remembered(scorer), example("a"), example("bb")
    texts = [Completion("x"), Completion("x", terminated=False), Completion("x"), Completion("xyz")]
    for examples in ([a, a, bb, a], [bb, a, a, bb]):
        assert remembered(examples, texts).tolist() == [
            len(e.id) * 10 + len(c.text) + 0.5 * c.terminated for e, c in zip(examples, texts, strict=True)
        ]
    assert asked == [4, 1], "of the second call only (bb, xyz) is new"
    assert remembered([a, a], [Completion("new")] * 2).tolist() == [13.5, 13.5]
    assert asked[2:] == [1], "the same one twice in a call is scored once"
    assert remembered([], []).shape == (0,)
