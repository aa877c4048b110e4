"""The reward audit as a whole, on rewards and classes that cheat."""

from __future__ import annotations

import json

import numpy as np
import pytest

from audit_helpers import (
    array,
    audit_of,
    make_examples,
    oracle,
    other_day,
    run_audit,
    warnings_of,
    with_class,
)
from homestretch.audit_findings import audit_lines
from homestretch.rewards.audit import (
    LEAVE_OUT_IS_OFF,
)
from homestretch.rewards.extremes import extremes
from homestretch.types import Completion, Judged, Metric, UserError


def test_a_perfect_reward_passes_without_a_warning():
    truth = Metric("day_is_right", oracle)
    result = run_audit(oracle, metrics=[truth], logits=lambda e, c: 8 * oracle(e, c) - 4)
    assert result["classes"]["wrong_day"]["auc"] == 1.0
    assert result["within_prompt_rank_correlation"]["day_is_right"]["tau"] == pytest.approx(1.0)
    assert result["terminator"]["drop"] == 1.0
    assert result["calibration"]["ece"] < 0.05
    assert result["notes"] == ["edited references: none among the validation rows", LEAVE_OUT_IS_OFF]
    easy = ("almost perfectly", "counting words")  # the other day is not in the source
    assert [line for line in warnings_of(result) if not any(words in line for words in easy)] == []


def test_a_random_reward_is_told_so():
    draws = np.random.default_rng(1)
    result = run_audit(lambda e, c: draws.normal(size=len(c)), metrics=[Metric("day_is_right", oracle)])
    assert abs(result["classes"]["wrong_day"]["auc"] - 0.5) < 0.15
    assert any("wrong_day" in line and "cannot see this failure" in line for line in warnings_of(result))
    assert any("day_is_right" in line and "not shown to rank" in line for line in warnings_of(result))


def test_a_reward_that_is_length_is_caught():
    samples = [[Completion(" ".join(["word"] * k)) for k in (3, 9, 5, 12)] for _ in range(20)]
    result = run_audit(lambda _, c: np.array([float(len(x.text)) for x in c]), samples=samples)
    assert result["length"]["tau"] == pytest.approx(1.0)
    assert any("follows length: longer" in line for line in warnings_of(result))
    assert any("missing terminator is not punished" in line for line in warnings_of(result))


def test_a_saturated_reward_is_told_so():
    samples = [[Completion("a b"), Completion("c d")] for _ in range(20)]

    def by_document(examples, completions):
        return np.array(
            [float(e.id[1:]) + 0.01 * (c.text == "a b") for e, c in zip(examples, completions, strict=True)]
        )

    assert any("saturated" in line for line in warnings_of(run_audit(by_document, samples=samples)))


def test_a_class_with_a_fingerprint_is_warned_of_unless_it_is_about_form():
    def marked(example):
        return other_day(example).replace(" on ", " reportedly on ")

    fact, form = run_audit(oracle, edit=marked), run_audit(oracle, edit=marked, mode="shuffled")
    assert any("leave a fingerprint" in line for line in warnings_of(fact))
    assert not any("leave a fingerprint" in line for line in warnings_of(form))


def test_a_metric_where_less_is_better_is_turned_round_and_one_without_direction_left_out():
    worse = Metric("errors", lambda e, c: -oracle(e, c), higher_is_better=False)
    neutral = Metric("length_ratio", oracle, higher_is_better=None)
    result = run_audit(oracle, metrics=[worse, neutral])
    assert result["within_prompt_rank_correlation"]["errors"]["tau"] == pytest.approx(1.0)
    assert set(result["within_prompt_rank_correlation"]) == {"errors"}


def test_a_reward_that_ranks_against_a_metric_is_told_so():
    result = run_audit(lambda e, c: -oracle(e, c), metrics=[Metric("day_is_right", oracle)])
    assert any("day_is_right" in line and "ranks against" in line for line in warnings_of(result))


def test_being_edited_is_measured_apart_from_being_wrong():
    examples = make_examples(30)
    rows = with_class(examples, "wrong_day", other_day)
    rows += [Judged(e.id, Completion(e.reference.replace(" and ", " & ")), "edited_reference", 1.0) for e in examples]
    result = audit_of(lambda _, c: np.array([float("&" not in x.text) for x in c]), examples, rows, rows)
    assert "edited_reference" not in result["classes"]
    assert result["probes"]["edited_reference"] == 1.0
    assert any("the reward sees the editing" in line for line in warnings_of(result))


def test_what_is_undefined_is_null_with_a_reason_and_never_nan():
    def broken(examples, completions):
        return np.array(
            [np.nan if e.id == "d0" else float(len(c.text)) for e, c in zip(examples, completions, strict=True)]
        )

    nowhere = Metric("undefined", lambda e, c: np.full(len(c), np.nan))
    result = run_audit(broken, metrics=[nowhere], n=6, samples=[[Completion("a")], [Completion("b")]])
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    assert result["within_prompt_rank_correlation"]["undefined"]["tau"] is None
    assert any("rank correlation with undefined" in note for note in result["notes"])
    assert any("no finite reward" in note for note in result["notes"])
    assert all("nan" not in line.lower().split() for line in audit_lines(result))


def test_a_class_without_a_held_out_example_is_not_silently_missing():
    examples, train = make_examples(6), make_examples(20, start=1000)
    train_rows = [*with_class(train, "wrong_day", other_day), *with_class(train, "rare", other_day)]
    result = audit_of(oracle, examples, with_class(examples, "wrong_day", other_day), train_rows)
    rare = result["classes"]["rare"]
    assert rare["n"] == 0
    assert {rare[key] for key in ("auc", "low", "high", "pooled_auc", "leave_one_out_auc")} == {None}
    assert "class rare: none of it on the held-out documents" in result["notes"]
    assert "class wrong_day" not in " ".join(result["notes"])


def test_a_row_of_an_unknown_document_is_a_user_error():
    rows = [Judged("elsewhere", Completion("x"), "reference", 1.0)]
    with pytest.raises(UserError, match="elsewhere"):
        audit_of(oracle, make_examples(1), rows, rows)


def test_the_same_seed_gives_the_same_audit():
    metrics = [Metric("day_is_right", oracle)]
    assert run_audit(oracle, metrics=metrics) == run_audit(oracle, metrics=metrics)


# --- where reward and held-out score disagree ---


def texts(*names):
    return [Completion(name) for name in names]


def test_extremes_are_by_rank_within_the_prompt():
    examples = make_examples(3)
    samples = [texts("a", "b", "c"), texts("d", "e", "f"), texts("g", "h", "i")]
    reward = [array(3, 2, 1), array(103, 102, 101), array(1, 2, 3)]
    score = [array(0.1, 0.2, 0.3), array(0.2, 0.3, 0.1), array(0.1, 0.2, 0.3)]
    found = extremes(examples, samples, reward, score)
    assert [row["text"] for row in found["overrated"]] == ["a", "d"], "the third prompt is ranked as it should be"
    assert found["overrated"][0] == {
        "example_id": "d0", "text": "a", "terminated": True, "reward": 3.0, "score": 0.1,
        "reward_rank": 1.0, "score_rank": 3.0, "of": 3,
    }  # fmt: skip
    assert [row["text"] for row in found["underrated"]] == ["c", "e"]


def test_extremes_leave_out_what_has_no_rank_and_count_a_text_once():
    examples = make_examples(3)
    samples = [texts("a", "a", "b"), texts("c", "d"), texts("e", "f", "g")]
    reward = [array(2, 2, 1), array(1, 1), array(3, 2, np.nan)]
    score = [array(0, 0, 1), array(0, 1), array(1, 2, 3)]
    found = extremes(examples, samples, reward, score)
    assert [(row["text"], row["of"]) for row in found["overrated"]] == [("a", 2), ("e", 2)]


def test_at_most_ten_extremes_the_worst_first():
    examples = make_examples(15)
    samples = [texts(*"abcdef"[: 2 + i % 4]) for i in range(15)]
    reward = [np.arange(len(group), dtype=float) for group in samples]
    found = extremes(examples, samples, reward, [-r for r in reward])
    assert [row["of"] for row in found["overrated"]] == [5] * 3 + [4] * 4 + [3] * 3
    assert all(row["reward_rank"] == 1 for row in found["overrated"])


def test_the_audit_names_its_extremes_and_ranks_by_the_selection_score():
    result = run_audit(lambda e, c: -oracle(e, c), selection=oracle)
    assert result["within_prompt_rank_correlation"]["selection"]["tau"] == pytest.approx(-1.0)
    assert len(result["overrated"]) == len(result["underrated"]) == 10
    assert {row["score"] for row in result["underrated"]} == {1.0}
    assert any("selection score" in line and "ranks against" in line for line in warnings_of(result))


def test_a_class_is_told_from_true_edits_as_well():
    """A reward that likes the reference's own words best sees every edit, and no false one more than a true one."""
    examples, train = make_examples(30), make_examples(60, start=1000)
    edits = [Judged(e.id, Completion(e.reference + " Indeed."), "edited_reference", 1.0) for e in examples]
    rows = [*with_class(examples, "wrong_day", other_day), *edits]

    def own_words(asked, answers):
        return np.array([float(c.text == e.reference) for e, c in zip(asked, answers, strict=True)])

    found = audit_of(own_words, examples, rows, with_class(train, "wrong_day", other_day))["classes"]["wrong_day"]
    assert (found["auc"], found["over_edits"]["auc"], found["over_edits"]["n"]) == (1.0, 0.5, 30)
    early = {e.id for e in examples[:20]}
    apart = [r for r in rows if r.mode == "reference" or (r.mode == "wrong_day") == (r.example_id in early)]
    result = audit_of(own_words, examples, apart, with_class(train, "wrong_day", other_day))
    assert result["classes"]["wrong_day"]["over_edits"] == {"auc": None, "low": None, "high": None, "n": 0}
    assert "over edits, wrong_day: no document has both such a failure and an edited reference" in result["notes"]


def test_the_audit_compares_best_of_n_with_greedy_decoding():
    """The samples begin with the reference, and so does greedy decoding here: no sample could be better."""
    good = run_audit(oracle, selection=oracle)
    assert good["best_of_n"] == {
        "greedy": 1.0, "mean": pytest.approx(1 / 3), "best": 1.0, "oracle": 1.0, "difference": 0.0, "low": 0.0,
        "high": 0.0, "n": 60,
    }  # fmt: skip
    assert not any("greedy decoding" in line for line in warnings_of(good))  # says little, either way
    assert run_audit(oracle)["best_of_n"] is None  # no selection score, nothing to compare by
