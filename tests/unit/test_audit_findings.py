"""The audit in words: what is warned of, on either side of every threshold."""

from __future__ import annotations

from typing import Any

import pytest

from homestretch.audit_findings import (
    CONTENT_MODES,
    FORM_MODES,
    SELECTION,
    UNSEEN,
    class_findings,
    gate,
    gate_line,
    other_findings,
)
from homestretch.config import GateConfig
from homestretch.failures import FAILURE_MODES
from homestretch.rewards.judged import ON_POLICY


def of_class(auc: float | None, low: float | None = 0.55) -> dict[str, Any]:
    return {"classes": {"negation": {"auc": auc, "low": low, "high": 1.0, "n": 9}}}


def of_probe(**probes: Any) -> dict[str, Any]:
    return {"probes": probes}


def of_ranks(
    low: float | None, high: float | None, metric: str = "rouge_l", tau: float | None = None
) -> dict[str, Any]:
    tau = (low + high) / 2 if low is not None and high is not None else tau
    return {"within_prompt_rank_correlation": {metric: {"tau": tau, "low": low, "high": high, "n": 9}}}


@pytest.mark.parametrize(
    ("audit", "warning"),
    [
        (of_class(0.64), "cannot see statements turned into their opposite"),
        (of_class(0.65), None),
        (of_class(0.8, low=0.5), "too few examples"),
        (of_class(0.8, low=None), None),
        (of_class(None, low=None), None),
        (of_class(0.991), "almost perfectly"),
        (of_class(0.99), None),
        (of_probe(length_only=0.61), "length alone gives the negatives away"),
        (of_probe(length_only=0.6), None),
        (of_probe(bag_of_words=0.91), "counting words does the reward's job"),
        (of_probe(bag_of_words=0.9), None),
        ({"classes": {"echo": {"auc": 0.9, "leave_one_out_auc": 0.49}}}, "was not trained on this failure"),
        ({"classes": {"echo": {"auc": 0.9, "leave_one_out_auc": 0.5}}}, None),
        (of_probe(source_blind={"negation": 0.61}), "leave a fingerprint"),
        (of_probe(source_blind={"negation": 0.6, "shuffled": 1.0, "echo": None}), None),
        (of_probe(edited_reference=0.71), "the reward sees the editing"),
        (of_probe(edited_reference=0.7), None),
        (of_ranks(-0.2, -0.1), "RL would lower it"),
        (of_ranks(0.0, 0.3), "not shown to rank"),
        (of_ranks(0.01, 0.3), None),
        (of_ranks(None, None), None),
        (of_ranks(None, None, SELECTION), "nothing is known of how the reward ranks"),
        (of_ranks(None, None, SELECTION, tau=-0.4), "too few prompts to tell"),
        ({"reward_spread": {"within_prompt_sd": 0.25, "between_prompt_sd": 1.0}}, "saturated"),
        ({"reward_spread": {"within_prompt_sd": 0.26, "between_prompt_sd": 1.0}}, None),
        ({"reward_spread": {"within_prompt_sd": 0.26, "between_prompt_sd": None}}, None),
        ({"length": {"tau": -0.51}}, "shorter samples of a prompt win"),
        ({"length": {"tau": 0.5}}, None),
        ({"calibration": {"ece": 0.11, "temperature": 2.0}}, "poorly calibrated"),
        ({"calibration": {"ece": 0.1, "temperature": 2.0}}, None),
        ({"terminator": {"drop": 0.0}}, "not punished"),
        ({"terminator": {"drop": 0.01, "share": 0.5}}, None),
        ({}, None),
    ],
)
def test_each_threshold_warns_on_its_side_only(audit: dict[str, Any], warning: str | None) -> None:
    bad = [finding.meaning for finding in (*class_findings(audit), *other_findings(audit)) if finding.is_bad]
    assert len(bad) == (warning is not None)
    assert warning is None or warning in bad[0]


def test_classes_come_worst_first_and_the_unmeasured_last() -> None:
    classes = {mode: {"auc": auc} for mode, auc in {"a": None, "b": 0.9, "c": 0.6, "d": 0.6}.items()}
    assert [finding.name for finding in class_findings({"classes": classes})] == ["c", "d", "b", "a"]


def test_every_class_of_ours_is_of_form_or_of_content() -> None:
    assert {*FAILURE_MODES, ON_POLICY} == FORM_MODES | CONTENT_MODES
    assert not FORM_MODES & CONTENT_MODES
    assert set(UNSEEN) == FORM_MODES | CONTENT_MODES


def test_a_class_of_the_users_own_is_told_both_readings() -> None:
    (own,) = other_findings({"probes": {"source_blind": {"invalid_json": 0.9}}})
    (ours,) = other_findings({"probes": {"source_blind": {"negation": 0.9}}})
    assert own.is_bad
    assert ours.is_bad
    assert own.meaning.startswith(ours.meaning)
    assert "failure of form" in own.meaning


# --- the gate ---

BLIND = {"classes": {"truncation": {"auc": 0.55, "low": 0.5, "high": 0.6}, "echo": {"auc": 0.9, "low": 0.8}}}
POOR = BLIND | {"calibration": {"ece": 0.2}, "probes": {"length_only": 0.7}}
SENTENCE = "truncation at 0.55: the reward cannot see missing endings (below 0.65); RL will not unlearn it"


def test_the_gate_says_why() -> None:
    decided = gate(BLIND, GateConfig(action="stop"))
    assert (decided["decision"], decided["reasons"]) == ("stop", [SENTENCE])
    assert gate_line(decided) == f"reward gate: stop: {SENTENCE}"


def test_a_stop_names_what_stops_and_a_warning_all_that_is_bad() -> None:
    assert gate(POOR, GateConfig(action="stop"))["reasons"] == [SENTENCE]
    warned = gate(POOR, GateConfig())
    assert warned["decision"] == "warn"
    assert warned["reasons"][0] == SENTENCE
    assert len(warned["reasons"]) == 3
    assert gate_line(warned) == f"reward gate: warn: {SENTENCE}; and 2 more"


def test_what_does_no_harm_in_rl_only_warns() -> None:
    audit = {"calibration": {"ece": 0.2}, "probes": {"length_only": 0.7}} | of_ranks(-0.2, -0.1)
    assert gate(audit, GateConfig(action="stop"))["decision"] == "warn"
    selection = {"within_prompt_rank_correlation": {"selection": {"tau": 0.0, "low": -0.1, "high": 0.1}}}
    assert gate(selection, GateConfig(action="stop"))["decision"] == "stop"


def test_no_gate_and_nothing_bad_both_go_on() -> None:
    assert gate(POOR, GateConfig(action="off"))["decision"] == "go"
    assert gate_line(gate(of_class(0.8), GateConfig(action="stop"))) == "reward gate: go"


def test_the_recipe_moves_the_thresholds_and_the_audit_remembers_them() -> None:
    lenient = gate(BLIND, GateConfig(action="stop", min_class_auc=0.5))
    assert lenient["decision"] == "warn", "the interval reaches 0.5, which is not for the recipe to say"
    strict = gate(of_class(0.8), GateConfig(action="stop", min_class_auc=0.85))
    assert strict["decision"] == "stop"
    judged = of_class(0.8) | {"gate": strict}
    assert [finding.is_bad for finding in class_findings(judged)] == [True]
    assert [finding.is_bad for finding in class_findings(of_class(0.8))] == [False]


def test_a_class_that_is_only_told_by_its_editing_is_said_to_be() -> None:
    entry = {"auc": 0.9, "low": 0.8, "high": 1.0, "n": 40}
    few, edits = ({"auc": 0.5, "low": low, "high": high, "n": 12} for low, high in ((0.3, 0.7), (0.4, 0.6)))
    (found,) = class_findings({"classes": {"wrong_date": entry | {"over_edits": edits}}})
    assert "hardly from an edit of it that is still true (0.50, 95 % 0.40 to 0.60, n = 12)" in found.meaning
    assert not found.is_bad
    (found,) = class_findings({"classes": {"wrong_date": entry | {"over_edits": few}}})
    assert found.meaning == "told apart well."


def test_best_of_n_says_little_where_samples_are_poor() -> None:
    means = {"greedy": 0.4, "best": 0.38, "difference": -0.02, "low": -0.07, "high": 0.03, "n": 80}
    poor, fair = means | {"mean": 0.25, "oracle": 0.42}, means | {"mean": 0.35, "oracle": 0.6}
    for entry, is_bad in ((poor, False), (fair, True), (fair | {"low": 0.01}, False)):
        (found,) = other_findings({"best_of_n": entry, "samples_per_prompt": 8})
        assert found.is_bad == is_bad
        assert ("says little" in found.meaning) == (entry is poor)


def test_what_was_not_measured_warns_and_does_not_stop() -> None:
    decided = gate(of_ranks(None, None, SELECTION), GateConfig(action="stop"))
    assert decided["decision"] == "warn"
    assert decided["reasons"][0].startswith("Rank correlation with the selection score: could not be measured")
