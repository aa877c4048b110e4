"""Reward and truth over the updates of RL."""

from __future__ import annotations

import json

import pytest

from benchmarks.studies import over_optimisation
from homestretch.rundir import RunDir


def hacked(rundir, truths, *, kept, alarms=()):
    """RL whose reward rises by 1 a validation, every 2 updates, at a KL of the update."""
    for i, truth in enumerate(truths):
        for update in (2 * i - 1, 2 * i) if i else ():
            rundir.log_metrics("rl", update, {"rl/kl": float(update), "rl/score": 0.1 * update})
        row = {"validation/score": 0.5 + i, "validation/selection": 0.6, "validation/term/fact_f1": truth}
        rundir.log_metrics("rl", 2 * i, row)
    rundir.log_metrics("sft", 1, {"sft/loss": 1.0})
    rundir.mark_done("rl", {"updates": 8, "kept_update": kept, "stopped": "x", "alarms": list(alarms), "seconds": 1.0})
    return rundir


@pytest.fixture
def curves(tmp_path):
    alarm = {"update": 4, "kind": "divergence", "sentence": "...", "action": "stopped"}
    return {
        seed: {
            "guard": hacked(RunDir(tmp_path / f"g{seed}"), [0.7, 0.8, 0.75], kept=2, alarms=[alarm]),
            "no_guard": hacked(RunDir(tmp_path / f"n{seed}"), [0.7, 0.8, 0.6, 0.5 - 0.1 * seed], kept=2),
        }
        for seed in (0, 1)
    }


def test_a_curve_is_read_at_the_validations(curves):
    one = over_optimisation.curve(curves[0]["no_guard"])
    assert one["update"] == [0, 2, 4, 6]
    assert one["kl"] == [0.0, 1.5, 3.5, 5.5]
    assert one["reward"] == pytest.approx([0.15, 0.15, 0.35, 0.55])
    assert one["greedy"] == [0.5, 1.5, 2.5, 3.5]
    found = over_optimisation.outcome(one)
    assert found == pytest.approx({"updates": 6, "kl": 5.5, "reward": 0.4, "greedy": 3.0, "truth": -0.2,
                                   "best_truth": 0.1, "shipped_truth": 0.1, "alarms": 0})  # fmt: skip


def test_what_the_guard_saves_is_what_it_ships_against_the_end_without_it(curves, tmp_path):
    measured = over_optimisation.measure(curves) | {"seeds": [0, 1]}
    assert measured["saved"].keys() == {"guard"}
    assert measured["saved"]["guard"]["mean"] == pytest.approx((0.3 + 0.4) / 2)
    assert measured["outcomes"]["guard"]["alarms"]["mean"] == 1
    json.dumps(measured, allow_nan=False)
    assert (
        "| no_guard | 6.0 | 5.50 | +0.400 [+0.400, +0.400] | +3.000 [+3.000, +3.000] | -0.250"
        in over_optimisation.section(measured)
    )
    for name in ("a.svg", "b.svg"):
        over_optimisation.draw(measured, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert b"no_guard" in drawn


def test_the_variants_share_the_reward_and_end_after_rl(study):
    configs = {v.name: study.config(v, 0) for v in over_optimisation.variants(12)}
    assert all(v.shares == "reward" and v.until == "rl" for v in over_optimisation.variants(12))
    assert configs["guard"].rl.kl.beta > 0
    assert configs["guard_no_kl"].rl.kl.beta == configs["no_guard"].rl.kl.beta == 0
    assert configs["guard_no_kl"].rl.guard == configs["guard"].rl.guard
    assert configs["no_guard"].rl.guard.max_alarms == 0
    assert {config.rl.num_updates for config in configs.values()} == {12}
