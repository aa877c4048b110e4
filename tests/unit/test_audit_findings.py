"""The audit in words: what is warned of, on either side of every threshold."""

from __future__ import annotations

from typing import Any

import pytest

from homestretch.audit_findings import CONTENT_MODES, FORM_MODES, class_findings, other_findings
from homestretch.failures import FAILURE_MODES
from homestretch.rewards.judged import ON_POLICY


def of_class(auc: float | None, low: float | None = 0.55) -> dict[str, Any]:
    return {"classes": {"negation": {"auc": auc, "low": low, "high": 1.0, "n": 9}}}


def of_probe(**probes: Any) -> dict[str, Any]:
    return {"probes": probes}


def of_ranks(low: float | None, high: float | None) -> dict[str, Any]:
    tau = None if low is None or high is None else (low + high) / 2
    return {"within_prompt_rank_correlation": {"rouge_l": {"tau": tau, "low": low, "high": high, "n": 9}}}


@pytest.mark.parametrize(
    ("audit", "warning"),
    [
        (of_class(0.64), "cannot see this failure"),
        (of_class(0.65), None),
        (of_class(0.8, low=0.5), "too few examples"),
        (of_class(0.8, low=None), None),
        (of_class(None, low=None), None),
        (of_class(0.991), "almost perfectly"),
        (of_class(0.99), None),
        (of_probe(length_only=0.61), "length alone gives the negatives away"),
        (of_probe(length_only=0.6), None),
        (of_probe(source_blind={"negation": 0.61}), "leave a fingerprint"),
        (of_probe(source_blind={"negation": 0.6, "shuffled": 1.0, "echo": None}), None),
        (of_probe(edited_reference=0.71), "the reward sees the editing"),
        (of_probe(edited_reference=0.7), None),
        (of_ranks(-0.2, -0.1), "RL would lower it"),
        (of_ranks(0.0, 0.3), "not shown to rank"),
        (of_ranks(0.01, 0.3), None),
        (of_ranks(None, None), None),
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


def test_a_class_of_the_users_own_is_told_both_readings() -> None:
    (own,) = other_findings({"probes": {"source_blind": {"invalid_json": 0.9}}})
    (ours,) = other_findings({"probes": {"source_blind": {"negation": 0.9}}})
    assert own.is_bad
    assert ours.is_bad
    assert own.meaning.startswith(ours.meaning)
    assert "failure of form" in own.meaning
