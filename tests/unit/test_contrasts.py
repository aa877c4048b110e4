"""scores.json: its structure, its numbers recomputed by hand, and what happens where something is undefined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from homestretch.config import EvaluateConfig, RunConfig
from homestretch.metrics.contrasts import CONTRASTS, Evaluation, primary_names, score_arms
from homestretch.metrics.scoring import per_example
from homestretch.ops.significance import holm
from homestretch.rundir import RunDir
from homestretch.stages import evaluate
from homestretch.types import Completion, Example, FailureMode, Metric, UserError

NUM_EXAMPLES = 40
CONFIG = EvaluateConfig(num_resamples=500, primary_metrics=("quality",))


class Marked(FailureMode):
    """Flags a "!" and cannot judge a text without letters."""

    name: ClassVar[str] = "marked"

    def detect(self, example: Example, completion: Completion) -> float | None:
        return None if completion.text == "?" else float("!" in completion.text)

    def repair(self, example: Example, completion: Completion) -> Completion:
        return Completion(completion.text.replace("!", ""), completion.terminated)


class Corrupting(FailureMode):
    """Has no detector."""

    name: ClassVar[str] = "corrupting"


def value(example: Example, completion: Completion) -> float:
    digits = "".join(character for character in completion.text if character in "0123456789.")
    return float(digits) if digits else float("nan")


def against_references(examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
    return np.array([value(e, c) if e.references else np.nan for e, c in zip(examples, completions, strict=True)])


METRICS = [
    per_example("quality", value),
    per_example("badness", lambda _, completion: float("!" in completion.text), False),
    per_example("size", lambda _, completion: float(len(completion.text)), None),
    Metric("overlap", against_references),
]
EXAMPLES = [Example(f"e{i}", f"source {i}", "", references=("0.9", "0.5")) for i in range(NUM_EXAMPLES)]


def texts(seed: int, shift: float) -> list[str]:
    rng = np.random.default_rng(seed)
    drawn = np.clip(rng.uniform(0, 0.5, NUM_EXAMPLES) + shift, 0, 1)
    return [f"{x:.4f}{'!' if rng.random() < 0.3 else ''}" for x in drawn]


def arm(written: Sequence[str]) -> list[Completion]:
    return [Completion(text, terminated=i % 4 != 0) for i, text in enumerate(written)]


ARMS = {
    "sft/raw": arm(texts(1, 0.0)),
    "sft/post": arm([text.replace("!", "") for text in texts(1, 0.0)]),
    "rl/raw": arm(texts(2, 0.2)),
    "rl/post": arm([text.replace("!", "") for text in texts(2, 0.2)]),
}


def evaluation(
    arms: dict[str, list[Completion]] = ARMS,
    metrics: Sequence[Metric] = METRICS,
    examples: Sequence[Example] = EXAMPLES,
    config: EvaluateConfig = CONFIG,
) -> Evaluation:
    modes = [Marked(), Corrupting()]
    return score_arms(examples, arms, metrics, modes, config=config, rng=np.random.default_rng(0))


RESULT = evaluation()


def contrast(result: Evaluation, name: str, metric: str) -> dict[str, Any]:
    (row,) = [row for row in result.scores["contrasts"] if (row["name"], row["metric"]) == (name, metric)]
    return dict(row)


def test_the_interface() -> None:
    scores = RESULT.scores
    assert (scores["schema"], scores["split"], scores["num_examples"]) == (1, "test", NUM_EXAMPLES)
    assert list(scores["arms"]) == list(ARMS)
    for values in scores["arms"].values():
        assert set(values["metrics"]) == {"quality", "badness", "size", "overlap"}
        for entry in values["metrics"].values():
            assert {"mean", "low", "high", "higher_is_better", "n"} <= set(entry)
        assert set(values["failures"]) == {"marked"}
        assert {"rate", "low", "high", "n"} <= set(values["failures"]["marked"])
        assert values["num_unterminated"] == NUM_EXAMPLES // 4
    for row in scores["contrasts"]:
        assert {"name", "a", "b", "metric", "difference", "low", "high", "p", "p_holm", "primary", "n"} <= set(row)
    json.dumps(scores, allow_nan=False)
    json.dumps(RESULT.samples, allow_nan=False)


def test_contrasts_are_the_methods_for_every_metric_with_a_direction() -> None:
    rows = [(row["name"], row["a"], row["b"], row["metric"]) for row in RESULT.scores["contrasts"]]
    assert rows == [(*names, metric) for names in CONTRASTS for metric in ("quality", "badness", "overlap")]
    assert {row["metric"] for row in RESULT.scores["contrasts"] if row["primary"]} == {"quality"}


def test_a_difference_is_a_minus_b() -> None:
    row = contrast(RESULT, "C1", "quality")
    a, b = (np.array([value(EXAMPLES[0], c) for c in ARMS[name]]) for name in ("rl/raw", "sft/raw"))
    assert row["difference"] == pytest.approx((a - b).mean())
    assert row["difference"] > 0.1
    assert row["low"] < row["difference"] < row["high"]
    assert row["p"] < 0.01 < row["p_equivalence"]
    assert row["effect_size"] == pytest.approx((a - b).mean() / (a - b).std(ddof=1))


def test_means_and_their_intervals() -> None:
    entry = RESULT.scores["arms"]["rl/raw"]["metrics"]["quality"]
    scores = np.array([value(EXAMPLES[0], c) for c in ARMS["rl/raw"]])
    assert entry["mean"] == pytest.approx(scores.mean())
    half = stats.t.ppf(0.975, NUM_EXAMPLES - 1) * scores.std(ddof=1) / np.sqrt(NUM_EXAMPLES)
    assert entry["low"] == pytest.approx(scores.mean() - half, abs=0.2 * half)
    assert entry["high"] == pytest.approx(scores.mean() + half, abs=0.2 * half)


def test_holm_runs_within_the_primaries_and_within_the_others() -> None:
    for is_primary in (True, False):
        family = [row for row in RESULT.scores["contrasts"] if row["primary"] is is_primary]
        assert len(family) == 3 * (1 if is_primary else 2)
        assert [row["p_holm"] for row in family] == holm([row["p"] for row in family])


def test_equal_arms_do_not_differ() -> None:
    same = evaluation({name: ARMS["sft/raw"] for name in ARMS})
    for row in same.scores["contrasts"]:
        assert (row["difference"], row["low"], row["high"], row["p"], row["p_holm"]) == (0, 0, 0, 1, 1)
        assert row["p_equivalence"] == 0
    for row in same.scores["failure_contrasts"]:
        assert (row["difference"], row["p"], row["p_holm"]) == (0, 1, 1)


def test_undefined_scores_leave_the_mean_and_the_pairing() -> None:
    arms = dict(ARMS)
    arms["rl/raw"] = [Completion("none") for _ in range(5)] + ARMS["rl/raw"][5:]
    result = evaluation(arms)
    entry = result.scores["arms"]["rl/raw"]["metrics"]["quality"]
    assert entry["n"] == NUM_EXAMPLES - 5
    assert entry["mean"] == pytest.approx(np.mean([value(EXAMPLES[0], c) for c in ARMS["rl/raw"][5:]]))
    assert contrast(result, "C1", "quality")["n"] == NUM_EXAMPLES - 5
    assert contrast(result, "C3", "quality")["n"] == NUM_EXAMPLES
    assert result.samples[0]["arms"]["rl/raw"]["metrics"]["quality"] is None


def test_a_metric_that_is_nowhere_defined_is_null_and_not_compared() -> None:
    arms = {name: [Completion("none")] * NUM_EXAMPLES for name in ARMS}
    result = evaluation(arms)
    assert result.scores["arms"]["rl/raw"]["metrics"]["quality"] == {
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
        "higher_is_better": True,
    }
    assert {row["metric"] for row in result.scores["contrasts"]} == {"badness"}
    json.dumps(result.scores, allow_nan=False)


def test_failure_rates_count_what_was_judged() -> None:
    arms = dict(ARMS)
    arms["sft/raw"] = [Completion("?")] * 10 + [Completion("bad!")] * 6 + [Completion("good")] * (NUM_EXAMPLES - 16)
    failures = evaluation(arms).scores["arms"]["sft/raw"]["failures"]["marked"]
    wilson = stats.binomtest(6, 30).proportion_ci(method="wilson")
    assert failures["n"] == 30
    assert failures["rate"] == pytest.approx(6 / 30)
    assert (failures["low"], failures["high"]) == pytest.approx((wilson.low, wilson.high))


def test_a_severity_counts_from_the_threshold_on() -> None:
    class Graded(Marked):
        def detect(self, example: Example, completion: Completion) -> float | None:
            return float(example.id[1:]) / NUM_EXAMPLES

    for threshold, rate in ((0.5, 0.5), (0.75, 0.25)):
        config = EvaluateConfig(num_resamples=100, primary_metrics=("quality",), flag_threshold=threshold)
        result = score_arms(EXAMPLES, ARMS, METRICS, [Graded()], config=config, rng=np.random.default_rng(0))
        assert result.scores["arms"]["rl/raw"]["failures"]["marked"]["rate"] == rate


def test_failure_contrasts_are_mcnemars_on_the_examples_judged_in_both() -> None:
    arms = {name: [Completion("good")] * NUM_EXAMPLES for name in ARMS}
    arms["sft/raw"] = [Completion("bad!")] * 8 + [Completion("good")] * 22 + [Completion("?")] * 10
    arms["rl/raw"] = [Completion("good")] * 7 + [Completion("bad!")] * 2 + [Completion("good")] * (NUM_EXAMPLES - 9)
    rows = evaluation(arms).scores["failure_contrasts"]
    row = next(row for row in rows if row["name"] == "C1")
    assert (row["mode"], row["n"], row["only_a"], row["only_b"]) == ("marked", 30, 1, 7)
    assert row["difference"] == pytest.approx((2 - 8) / 30)
    assert row["low"] < row["difference"] < row["high"]
    assert row["p"] == pytest.approx(stats.binomtest(1, 8).pvalue)
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])


def test_the_references_are_the_ceiling_of_what_needs_no_reference() -> None:
    references = RESULT.scores["references"]
    assert references["metrics"]["quality"]["mean"] == pytest.approx(0.9)
    assert references["metrics"]["badness"]["mean"] == 0
    assert "overlap" not in references["metrics"]
    assert references["failures"]["marked"]["rate"] == 0


def test_examples_without_references_are_scored_without_a_ceiling() -> None:
    unlabelled = [Example(example.id, example.source, "") for example in EXAMPLES]
    scores = evaluation(examples=unlabelled).scores
    assert scores["references"]["metrics"] == {}
    assert scores["arms"]["rl/raw"]["metrics"]["overlap"]["n"] == 0
    assert scores["arms"]["rl/raw"]["metrics"]["quality"]["n"] == NUM_EXAMPLES


def test_samples_hold_every_arm_of_every_example() -> None:
    assert [row["id"] for row in RESULT.samples] == [example.id for example in EXAMPLES]
    row = RESULT.samples[3]
    assert (row["source"], row["references"]) == ("source 3", ["0.9", "0.5"])
    assert list(row["arms"]) == list(ARMS)
    sample = row["arms"]["rl/raw"]
    assert sample["text"] == ARMS["rl/raw"][3].text
    assert sample["terminated"] is True
    assert RESULT.samples[4]["arms"]["rl/raw"]["terminated"] is False
    assert sample["metrics"]["quality"] == pytest.approx(value(EXAMPLES[3], ARMS["rl/raw"][3]))
    assert sample["flags"] == {"marked": float("!" in sample["text"])}


def test_a_mode_that_could_not_judge_has_no_flag() -> None:
    arms = dict(ARMS) | {"rl/raw": [Completion("?")] * NUM_EXAMPLES}
    result = evaluation(arms)
    assert result.samples[0]["arms"]["rl/raw"]["flags"] == {}
    assert result.scores["arms"]["rl/raw"]["failures"]["marked"]["rate"] is None
    assert {row["name"] for row in result.scores["failure_contrasts"]} == {"C3"}


def test_arms_that_are_not_there_are_not_compared_and_base_is_shown() -> None:
    arms = {"base/raw": ARMS["sft/raw"], "sft/raw": ARMS["sft/raw"], "rl/raw": ARMS["rl/raw"]}
    scores = evaluation(arms).scores
    assert list(scores["arms"]) == list(arms)
    assert {row["name"] for row in scores["contrasts"]} == {"C1"}


def test_alternatives_are_a_family_of_their_own_and_change_nothing_else() -> None:
    more = dict(ARMS) | {
        "dpo/raw": arm(texts(3, 0.1)),
        "dpo/post": ARMS["sft/post"],
        "best_of_n/raw": arm(texts(4, 0.2)),
    }
    scores = evaluation(more).scores
    for key in ("contrasts", "failure_contrasts", "references"):
        assert scores[key] == RESULT.scores[key]
    assert {name: scores["arms"][name] for name in ARMS} == RESULT.scores["arms"]
    assert list(scores["arms"]) == list(more)
    rows = scores["baseline_contrasts"]
    assert [(row["name"], row["a"], row["b"], row["metric"]) for row in rows] == [
        ("C4", "rl/raw", "dpo/raw", "quality"), ("C4", "rl/raw", "best_of_n/raw", "quality"),
    ]  # fmt: skip
    assert [row["p_holm"] for row in rows] == pytest.approx(list(holm([row["p"] for row in rows])))
    means = [scores["arms"][name]["metrics"]["quality"]["mean"] for name in ("rl/raw", "dpo/raw")]
    assert rows[0]["difference"] == pytest.approx(means[0] - means[1])
    assert RESULT.scores["baseline_contrasts"] == []


def test_the_same_seed_gives_the_same_scores() -> None:
    assert evaluation() == RESULT


def test_an_arm_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="39 completions for 40 examples"):
        evaluation(dict(ARMS) | {"rl/raw": ARMS["rl/raw"][1:]})


def test_primary_names() -> None:
    named = [Metric(name, against_references) for name in ("rouge_l", "entity_precision", "fact_f1")]
    assert primary_names(named, None) == ("rouge_l", "fact_f1")
    assert primary_names(named[:2], None) == ("rouge_l", "entity_precision")
    assert primary_names(named, ("fact_f1", "fact_f1")) == ("fact_f1",)
    with pytest.raises(UserError, match=r"primary_metrics.*'blue'"):
        primary_names(named, ("blue",))
    with pytest.raises(UserError, match=r"primary_metrics.*descriptive"):
        primary_names(METRICS, ("size",))


# --- the stage ----------------------------------------------------------------


def recipe(**sections: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate({"data": {"path": "x"}, "model": {"path": "base-model"}, **sections})


def test_model_paths(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.sft_dir.mkdir()
    with pytest.raises(UserError, match="run `homestretch rl`"):
        evaluate.model_paths(recipe(), rundir)
    rundir.policy_dir.mkdir()
    assert evaluate.model_paths(recipe(), rundir) == {
        "base": "base-model",
        "sft": rundir.sft_dir,
        "rl": rundir.policy_dir,
    }
    made = {"model": {"new": {}}}
    assert list(evaluate.model_paths(recipe(**made), rundir)) == ["sft", "rl"]
    assert list(evaluate.model_paths(recipe(evaluate={"include_base": False}), rundir)) == ["sft", "rl"]
    arms = recipe(**made, baselines={"arms": ("best_of_n", "dpo")})
    with pytest.raises(UserError, match="run `homestretch baselines`"):
        evaluate.model_paths(arms, rundir)
    (rundir.baselines_dir / "dpo").mkdir(parents=True)
    assert list(evaluate.model_paths(arms, rundir)) == ["sft", "rl", "dpo"]
    with_base = recipe(**made, evaluate={"include_base": True})
    assert evaluate.model_paths(with_base, rundir)["base"] == rundir.base_dir


def test_a_paper_run_is_judged_by_every_mode() -> None:
    full = evaluate.judging_modes(recipe().negatives, EXAMPLES)
    paper = evaluate.judging_modes(
        recipe(negatives={"preset": "paper", "exclude": ("repetition",)}).negatives, EXAMPLES
    )
    assert set(full) == set(paper)
    assert "truncation" in paper
    own = evaluate.judging_modes(recipe(negatives={"include": ("my.module:Mode",)}).negatives, EXAMPLES)
    assert set(own) == {*full, "my.module:Mode"}


def test_the_printed_tables_show_arms_and_primary_contrasts(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.print_scores(RESULT.scores, ("quality",))
    printed = capsys.readouterr().out
    assert f"{RESULT.scores['arms']['rl/raw']['metrics']['quality']['mean']:.3f}" in printed
    assert "C3: rl/post - sft/post" in printed
    assert "references" in printed
    assert "95 % interval" in printed


def test_the_summary_holds_the_primary_contrasts() -> None:
    summary = evaluate.summarize(RESULT.scores)
    assert summary["num_examples"] == NUM_EXAMPLES
    assert [(row["name"], row["metric"]) for row in summary["primary"]] == [(n, "quality") for n in ("C1", "C2", "C3")]
    json.dumps(summary, allow_nan=False)


def test_the_stage_writes_what_the_scores_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole stage on the built-in task, with the decoding of the two models replaced by written answers."""
    sizes = {"train": 60, "prompts": 0, "validation": 5, "test": 12}
    config = recipe(
        data={"task": "chats", "sizes": sizes}, model={"new": {}}, evaluate={"num_resamples": 200, "max_examples": 10}
    )
    rundir = RunDir(tmp_path)
    rundir.sft_dir.mkdir()
    rundir.policy_dir.mkdir()

    def written(path: Path, config: RunConfig, examples: Sequence[Example], name: str) -> list[Completion]:
        if name == "rl":
            return [Completion(example.reference) for example in examples]
        return [Completion(" ".join([example.reference] * 3), terminated=False) for example in examples]

    monkeypatch.setattr(evaluate, "decode", written)
    summary = evaluate.run(config, rundir)
    scores = json.loads(rundir.scores_path.read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in rundir.samples_path.read_text(encoding="utf-8").splitlines()]
    assert list(scores["arms"]) == ["sft/raw", "sft/post", "rl/raw", "rl/post"]
    assert scores["num_examples"] == len(rows) == summary["num_examples"] == 10
    assert scores["arms"]["rl/raw"]["metrics"]["rouge_l"]["mean"] == pytest.approx(1.0)
    assert scores["arms"]["sft/raw"]["num_unterminated"] == 10
    assert scores["arms"]["sft/raw"]["failures"]["repetition"]["rate"] == 1.0
    assert scores["arms"]["sft/post"]["failures"]["repetition"]["rate"] < 1.0
    assert scores["references"]["metrics"]["fact_f1"]["mean"] == pytest.approx(1.0)
    assert {row["metric"] for row in summary["primary"]} == {"rouge_l", "fact_f1"}
    differences = {(row["name"], row["metric"]): row["difference"] for row in summary["primary"]}
    assert differences["C1", "rouge_l"] > 0.4 > differences["C2", "rouge_l"]
    assert differences["C1", "fact_f1"] == 0.0
