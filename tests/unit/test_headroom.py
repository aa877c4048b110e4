"""Best of a prompt's samples by the reward, against greedy decoding."""

import numpy as np
import pytest

from homestretch.rewards.headroom import best_of_n


def headroom(reward, score, greedy):
    return best_of_n(
        [np.array(r, dtype=float) for r in reward],
        [np.array(s, dtype=float) for s in score],
        np.array(greedy, dtype=float),
        confidence=0.95,
        num_resamples=500,
        rng=np.random.default_rng(0),
    )


def test_means_by_hand():
    found = headroom([[0, 1, 2], [5, 4, 5]], [[0.1, 0.9, 0.4], [0.2, 1.0, 0.6]], [0.3, 0.5])
    assert found["best"] == pytest.approx((0.4 + (0.2 + 0.6) / 2) / 2)  # equal rewards share the choice
    assert found["oracle"] == pytest.approx((0.9 + 1.0) / 2)
    assert found["mean"] == pytest.approx((1.4 / 3 + 1.8 / 3) / 2)
    assert found["greedy"] == pytest.approx(0.4)
    assert found["difference"] == pytest.approx(found["best"] - found["greedy"])
    assert found["n"] == 2


def test_what_is_not_finite_is_left_out():
    found = headroom([[1, np.nan, 0], [1, 2], [np.inf]], [[np.nan, 1, 0.5], [0, 1], [1]], [0.5, np.nan, 0])
    assert (found["n"], found["best"], found["greedy"]) == (1, 0.5, 0.5)
    assert headroom([[np.nan]], [[1]], [1]) == dict.fromkeys(
        ("greedy", "mean", "best", "oracle", "difference", "low", "high")
    ) | {"n": 0}


def test_a_reward_that_knows_gains_and_one_that_guesses_does_not():
    rng = np.random.default_rng(1)
    score, greedy = rng.random((200, 8)), rng.random(200)
    informed, guess = headroom(score, score, greedy), headroom(rng.random((200, 8)), score, greedy)
    assert informed["low"] > 0.3
    assert informed["best"] == informed["oracle"]
    assert guess["low"] < 0 < guess["high"]
