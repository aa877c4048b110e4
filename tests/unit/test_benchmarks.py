"""The benchmarks' arithmetic; nothing here is timed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, floor, rl_throughput
from benchmarks.protocol import Job, Worker, WorkerError
from benchmarks.report import markdown, throughput_rows
from benchmarks.rl_throughput import WORKLOADS, shares, summary
from benchmarks.scaling import linear_fit
from benchmarks.settings import SETTINGS, SIZES, hazard, result_key
from homestretch.rundir import read_json, write_json

SHAPE = floor.Shape(
    prompts=3, completions_per_prompt=2, prompt_tokens=5, new_tokens=4, num_passes=2, tokens_per_microbatch=30, slots=6,
    **floor.model_fields(SIZES["4m"]),
)  # fmt: skip


def result(settings, date="2026-01-01"):
    return {"environment": {"date": date}, "settings": settings}


def test_merging_replaces_what_was_measured_again_and_keeps_the_rest():
    old = common.merged({}, result({"short": {"a": {"x": 1}, "b": {"x": 2}}, "long": {"a": {"x": 3}}}))
    new = common.merged(old, result({"short": {"a": {"x": 9}}}, "2026-02-02"))
    assert new["settings"] == {"short": {"a": {"x": 9}, "b": {"x": 2}}, "long": {"a": {"x": 3}}}
    assert new["environment"]["date"] == new["runs"]["short"]["date"] == "2026-02-02"
    assert new["runs"]["long"]["date"] == "2026-01-01"


def test_medians_are_over_numbers_that_every_round_has():
    rows = [{"s": 1.0, "n": 4, "name": "a", "ok": True}, {"s": 9.0, "n": 4}, {"s": 2.0, "n": 4, "extra": 1}]
    assert common.medians(rows) == {"s": 2.0, "n": 4}


def test_rounds_are_interleaved_and_a_failure_ends_only_its_contender():
    order = []

    def contender(name, fail_at=None):
        def run():
            order.append(name)
            if order.count(name) == fail_at:
                raise WorkerError("broken")
            return {"call": order.count(name)}

        return run

    contenders = {"a": contender("a"), "b": contender("b", fail_at=2), "c": contender("c")}
    records, failures = common.interleaved(contenders, rounds=2, warmup=1)
    assert "".join(order) == "abcabcac"
    assert records == {"a": [{"call": 2}, {"call": 3}], "c": [{"call": 2}, {"call": 3}]}
    assert failures == {"b": "broken"}


class FakeWorker:
    """A contender whose first update fails, or whose start does, by its name."""

    def __init__(self, name):
        if name == "trl_1_12_ppo":
            raise WorkerError("no such algorithm")
        self.name = name

    def answer(self):
        return {}

    def update(self):
        if self.name == "ours_grpo":
            raise WorkerError("out of memory")
        return {"seconds": 2.0, "cpu_seconds": 2.0, "completions": 64, "optimizer_steps": 2,
                "mean_completion_tokens": 16.0}  # fmt: skip

    def peak_rss_mb(self):
        return 500.0

    def stop(self):
        pass


@pytest.mark.parametrize("contenders", [["ours_ppo", "ours_grpo", "trl_1_12_ppo"], ["ours_grpo"]])
def test_a_contender_that_fails_keeps_its_earlier_figures_and_is_told(contenders, tmp_path, monkeypatch):
    job = Job("ppo", "", "", "", 8, 8, 64, 32, 2, False, 8, 2048, "cpu", None, False, 1)
    earlier = {"ours_ppo": {"seconds_per_update": 9.0}, "ours_grpo": {"seconds_per_update": 7.0}}
    path = tmp_path / "results" / "rl_throughput.json"
    write_json(path, result({"last-mile": earlier}))
    monkeypatch.setattr(common, "FOLDER", tmp_path)
    monkeypatch.setattr(common, "RESULTS", path.parent)
    monkeypatch.setattr(common, "environment", lambda device, threads: {"date": "2026-02-02"})
    monkeypatch.setattr(rl_throughput.envs, "trl_python", lambda name: name)
    monkeypatch.setattr(rl_throughput.envs, "versions", lambda python: {})
    monkeypatch.setattr(rl_throughput, "job_for", lambda *args: job)
    monkeypatch.setattr(rl_throughput, "started", lambda name, *args: FakeWorker(name))
    monkeypatch.setattr("sys.argv", ["rl_throughput", "--setting", "last-mile", "--contenders", *contenders])
    with pytest.raises(SystemExit) as ended:
        rl_throughput.main()
    reasons = {"ours_grpo": "out of memory", "trl_1_12_ppo": "no such algorithm"}
    told = {f"last-mile: {name}: {reason}" for name, reason in reasons.items() if name in contenders}
    assert set(str(ended.value).splitlines()) == told
    saved = read_json(path)
    assert saved["settings"]["last-mile"]["ours_grpo"] == earlier["ours_grpo"]
    is_measured = "ours_ppo" in contenders
    assert saved["settings"]["last-mile"]["ours_ppo"]["seconds_per_update"] == (2.0 if is_measured else 9.0)
    assert ("runs" in saved) == is_measured
    assert "trl_1_12_ppo" not in saved["settings"]["last-mile"]


def test_a_worker_that_ends_is_told_in_one_line(tmp_path):
    job = Job("ppo", "", "", "", 8, 8, 64, 32, 2, False, 8, 2048, "cpu", None, False, 1)
    worker = Worker("ours", Path(sys.executable), "no_such_module", job, tmp_path, {})
    with pytest.raises(WorkerError) as caught:
        worker.answer()
    worker.stop()
    assert "No module named" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_two_rounds_are_kept_however_little_time_there_is():
    records, _ = common.interleaved({"a": lambda: {}}, rounds=9, warmup=1, max_seconds=1e-9)
    assert len(records["a"]) == 2


def test_the_floor_counts_the_layers_weights_once_per_token():
    rows = 17
    size = SIZES["4m"].config
    weights = size["num_hidden_layers"] * (4 * size["hidden_size"] ** 2 + 3 * 256 * size["intermediate_size"])
    assert floor.flops(floor.linears(SHAPE, rows)) == 2 * rows * weights


def test_the_floor_of_a_pass_does_not_depend_on_the_microbatches_but_its_shapes_do():
    whole = floor.Shape(**{**{n: getattr(SHAPE, n) for n in floor.Shape.__slots__}, "tokens_per_microbatch": 10_000})
    assert floor.flops(floor.forward(SHAPE, logits=True)) == floor.flops(floor.forward(whole, logits=True))
    assert {p.rows for p in floor.linears(SHAPE, 26)} != {p.rows for p in floor.forward(whole, logits=False)}


def test_the_floor_of_a_pass_is_weights_attention_and_logits():
    prompts, k, p, r, d = 3, 2, 5, 4, 256
    tokens = prompts * (p + k * r)
    looked_at = prompts * (p * p + k * r * p + k * r * r)
    expected = floor.flops(floor.linears(SHAPE, tokens)) + 4 * 4 * d * looked_at + 2 * prompts * k * r * d * 4096
    assert floor.flops(floor.forward(SHAPE, logits=True)) == expected


def test_training_costs_three_forwards_a_pass_and_the_rollout_computes_every_token_once():
    parts = floor.update_products(SHAPE)
    scored = floor.flops(floor.forward(SHAPE, logits=True))
    assert floor.flops(parts["training"]) == 2 * 3 * scored
    assert floor.flops(parts["log_probs"]) == 2 * scored
    in_layers = 3 * 5 + 3 * 2 * 3  # the prompts, and every sampled token but the last, which is fed to nobody
    weights = floor.flops(floor.linears(SHAPE, 1))
    counted = sum(q.flops for q in floor.rollout(SHAPE) if q.batch == 1 and q.columns != 4096)
    assert counted == in_layers * weights


def test_a_plane_is_fitted_exactly_and_noise_is_not():
    x, y = [1.0, 2.0, 3.0, 5.0], [1.0, 4.0, 2.0, 7.0]
    fit = linear_fit([x, y], [2 + 3 * a - b for a, b in zip(x, y, strict=True)])
    assert fit["constant"] == pytest.approx(2)
    assert fit["slopes"] == pytest.approx([3, -1])
    assert fit["r_squared"] == pytest.approx(1)
    assert linear_fit([x], [1.0, -1.0, -1.0, 1.0])["r_squared"] < 0.3


@pytest.mark.parametrize("cap", [32, 48])
def test_natural_lengths_are_half_of_the_cap_on_average(cap):
    lengths = np.minimum(np.random.default_rng(0).geometric(hazard(cap), 20_000), cap)
    assert lengths.mean() == pytest.approx(cap / 2, rel=0.03)


def test_workloads_share_the_minutes_and_have_their_own_keys():
    assert sum(shares(WORKLOADS, 24).values()) == pytest.approx(24 * 60)
    assert result_key("last-mile", "natural", size="4m", lora=False) == "last-mile"
    assert result_key("last-mile", "forced", size="0.5b", lora=True) == "last-mile-forced-lora-0.5b"
    for setting in SETTINGS.values():
        assert all(setting.num_rollouts % k == 0 for k in setting.completions_per_prompt.values())
        assert setting.num_rollouts % setting.sequences_per_microbatch == 0


def test_the_table_compares_with_the_fastest_of_the_others():
    def entry(seconds, peak):
        rows = [{"seconds": seconds, "cpu_seconds": seconds, "completions": 64, "optimizer_steps": 2,
                 "mean_completion_tokens": 16.0}]  # fmt: skip
        return summary(rows, {"peak_rss_mb": peak, "built_rss_mb": 1.0})

    columns, rows = throughput_rows(
        {"ours_ppo": entry(2.0, 500.0), "trl_a": entry(8.0, 900.0), "trl_b": entry(4.0, 1000.0)}
    )
    table = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert (table["ours_ppo"]["speed x"], table["ours_ppo"]["memory x"]) == ("2.00", "0.50")
    assert table["ours_ppo"]["completions/s"] == "32.0"
    assert markdown(["a", "b"], [["1", "2"]]).splitlines()[1:] == ["| --- | ---: |", "| 1 | 2 |"]


def test_rounding_keeps_significant_digits():
    assert common.rounded({"a": [0.000123456, 12345.678], "b": 3, "c": "x"}) == {
        "a": [0.0001235, 12350.0],
        "b": 3,
        "c": "x",
    }
