"""What the studies compare, and with what: seeds, arms, full and paper."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import report
from benchmarks.studies import arms, full_vs_paper, runs, seeds
from homestretch.rundir import RunDir, read_json
from homestretch.types import UserError
from study_helpers import N, evaluated


def test_outputs_know_what_is_undefined_and_what_is_flagged(tmp_path):
    rundir = RunDir(tmp_path / "run")
    evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.2})
    outputs = seeds.read_outputs(rundir)
    assert outputs.primaries == ("fact_f1", "rouge_l")
    assert np.isnan(outputs.arms["rl/raw"]["entity_precision"]).tolist() == [True] + [False] * (N - 1)
    assert outputs.arms["sft/raw"]["wrong_speaker"].tolist() == [1.0] * N
    assert outputs.arms["rl/raw"]["wrong_speaker"].tolist() == [0.0] * N
    assert np.nan_to_num(outputs.arms["rl/raw"]["omission"], nan=9).tolist() == [9.0, 1.0] * (N // 2)
    assert outputs.higher_is_better["omission"] is False


def test_full_against_paper_is_paired_by_seed(study, homestretch):
    runs.conduct("full_vs_paper", study, lambda seed: (runs.FULL, full_vs_paper.PAPER), full_vs_paper.measure)
    result = read_json(study.json)
    rows = {(row["a"], row["metric"]): row for row in result["settings"]["small"]["contrasts"]}
    row = rows["full rl/raw", "fact_f1"]
    assert [seed["difference"] for seed in row["seeds"]] == pytest.approx([0.1, 0.1])
    assert [seed["n"] for seed in row["seeds"]] == [N, N]
    assert row["mean"] == pytest.approx(0.1)
    assert rows["full rl/post", "rouge_l"]["mean"] == pytest.approx(0.05)
    assert rows["full rl/raw", "entity_precision"]["seeds"][0]["n"] == N - 1
    assert rows["full rl/raw", "wrong_speaker"]["higher_is_better"] is False
    primary = {key for key, row in rows.items() if row["primary"]}
    assert primary == {(f"full {arm}", m) for arm in ("rl/raw", "rl/post") for m in ("fact_f1", "rouge_l")}
    levels = result["settings"]["small"]["levels"]
    assert levels["paper rl/raw"]["rouge_l"] == pytest.approx([0.45, 0.455])
    text = report.study_section("full_vs_paper", result)
    assert "| C5: full rl/raw - paper rl/raw | fact_f1 | +0.100 +0.100 | +0.100" in text
    assert "RL shipped update: full-0 4 of 8" in text
    assert "The recipe with" not in text
    result["settings"]["small"]["set"] = ["dtype=bfloat16", "rl.num_updates=8"]
    assert "The recipe with `dtype=bfloat16 rl.num_updates=8`." in report.study_section("full_vs_paper", result)


def test_runs_with_two_sft_models_are_no_pair(study, homestretch):
    found, _ = runs.finish_all(study, lambda seed: (runs.FULL, full_vs_paper.PAPER))
    assert full_vs_paper.measure(found)["sft_outputs_agree"] == [1.0, 1.0]
    evaluated(found[1]["paper"], {"sft/raw": 0.0, "sft/post": 0.0, "rl/raw": 0.1, "rl/post": 0.1}, seed=1,
              sft_text="other")  # fmt: skip
    measured = full_vs_paper.measure(found)
    assert measured["sft_outputs_agree"] == [1.0, 0.0]  # one model, but other arithmetic
    assert "alike in both runs on 0.0% of the examples" in full_vs_paper.section(measured | {"runs": {}})
    (found[1]["paper"].sft_dir / "model.safetensors").write_text("another model")
    with pytest.raises(UserError, match="SFT models are not the same"):
        full_vs_paper.measure(found)
    with pytest.raises(UserError, match="no seed has both runs"):
        full_vs_paper.measure({0: {"full": found[0]["full"]}})


def test_runs_on_other_examples_are_not_compared(tmp_path):
    outputs = []
    for seed in (0, 1):
        rundir = RunDir(tmp_path / str(seed))
        evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.1}, seed=seed)
        outputs.append(seeds.read_outputs(rundir))
    with pytest.raises(UserError, match="other examples"):
        seeds.difference(outputs[0], "rl/raw", outputs[1], "rl/raw", "fact_f1")


def test_holm_is_within_the_primaries_and_within_the_others():
    def row(p, is_primary):
        return {"p": p, "primary": is_primary, "these_models": {"p": 0.01}}

    rows = [row(0.01, True), row(0.04, True), row(0.03, False), row(None, False)]
    seeds.add_holm(rows)
    assert [r["p_holm"] for r in rows] == [0.02, 0.04, 0.03, None]
    assert [r["these_models"]["p_holm"] for r in rows] == [0.02] * 4


def test_rl_is_compared_with_each_arm_and_costs_are_means(tmp_path):
    found = {}
    for seed in (0, 1):
        rundir = RunDir(tmp_path / str(seed))
        costs = {arm: dict.fromkeys(arms.COSTS.values(), 10 * seed) for arm in ("sft", "rl", "dpo")}
        costs["rl"]["trained_tokens"] = None
        evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.2, "dpo/raw": 0.05, "dpo/post": 0.1}, seed=seed,
                  more={"costs": costs})  # fmt: skip
        found[seed] = {"arms": rundir}
    measured = arms.measure(found)
    rows = {(row["name"], row["b"], row["metric"]): row for row in measured["contrasts"]}
    assert set(rows) == {(n, b, m) for n, b in (("C1", "sft/raw"), ("C4", "dpo/raw")) for m in ("fact_f1", "rouge_l")}
    assert rows["C4", "dpo/raw", "fact_f1"]["mean"] == pytest.approx(0.15)
    assert measured["costs"]["rl"]["training_seconds"] == 5
    assert measured["costs"]["rl"]["trained_tokens"] is None
    assert "| dpo | 5 |" in arms.section(measured | {"runs": {}})


def test_fewer_arms_are_another_run():
    assert arms.variant(arms.ARMS).name == "arms"
    assert arms.variant(("dpo", "best_of_n")) == runs.Variant(
        "arms-dpo-best_of_n", ("baselines.arms=[dpo, best_of_n]",), shares="rl"
    )
