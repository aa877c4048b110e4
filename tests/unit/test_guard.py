"""When RL stops, and which checkpoint it ships."""

from __future__ import annotations

import numpy as np

from homestretch.algorithms.guard import Guard
from homestretch.config import GuardConfig

BASE = np.random.default_rng(0).random(50)


def test_the_best_held_out_score_is_shipped_and_ties_stay_with_the_earlier():
    guard = Guard(GuardConfig())
    assert guard.observe(0, BASE, 0.0) is None
    assert guard.observe(5, BASE + 0.1, 1.0) is None
    assert guard.observe(10, BASE + 0.1, 1.0) is None
    assert guard.best_update == 5


def test_a_significant_fall_stops():
    guard = Guard(GuardConfig())
    guard.observe(0, BASE, 0.0)
    reason = guard.observe(5, BASE - 0.1 - 0.01 * BASE, 1.0)
    assert reason is not None
    assert "standard errors" in reason
    assert guard.best_update == 0


def test_noise_does_not_stop():
    guard = Guard(GuardConfig())
    guard.observe(0, BASE, 0.0)
    assert guard.observe(5, BASE + np.random.default_rng(1).normal(-0.001, 0.2, 50), 1.0) is None


def test_too_much_kl_stops():
    guard = Guard(GuardConfig(max_kl=5))
    guard.observe(0, BASE, 0.0)
    reason = guard.observe(5, BASE, 6.0)
    assert reason is not None
    assert "rl.guard.max_kl=5" in reason


def test_patience_runs_out():
    guard = Guard(GuardConfig(patience=2))
    guard.observe(0, BASE, 0.0)
    assert guard.observe(5, BASE, 1.0) is None
    assert "2 validations" in (guard.observe(10, BASE, 1.0) or "")
