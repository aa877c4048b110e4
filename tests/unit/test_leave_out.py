"""Classes left out of reward training: how they are parted, trained without, and read."""

from __future__ import annotations

import numpy as np
import pytest

from audit_helpers import (
    audit_of,
    make_examples,
    oracle,
    other_day,
    run_audit,
    warnings_of,
    with_class,
)
from homestretch.rewards import leave_out
from homestretch.rewards.audit import (
    LEAVE_OUT_IS_OFF,
    class_aucs,
)
from homestretch.rewards.leave_out import partition, with_left_out
from homestretch.rewards.training import RewardData
from homestretch.types import Completion, Judged
from tiny import tiny_config


def test_every_class_is_left_out_once_and_like_classes_apart():
    swaps = ("wrong_entity", "wrong_number", "wrong_date", "wrong_speaker")
    modes = [*swaps, "shuffled", "my_own", "on_policy", "truncation"]
    folds = partition(modes, 4)
    assert sorted(mode for fold in folds for mode in fold) == sorted(modes)
    assert all(len(set(fold) & set(swaps)) == 1 for fold in folds)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert sorted(partition(modes, 99)) == sorted((mode,) for mode in modes)
    assert partition([], 4) == []


def test_class_aucs_are_those_of_the_audit():
    examples = make_examples(30)
    rows = with_class(examples, "wrong_day", other_day)
    scores = np.random.default_rng(2).normal(size=len(rows))
    scores[0] = np.nan
    result = audit_of(lambda e, c: scores if len(c) == len(rows) else np.zeros(len(c)), examples, rows, rows)
    assert class_aucs(rows, scores)["wrong_day"] == pytest.approx(result["classes"]["wrong_day"]["auc"])


def test_nothing_of_a_left_out_class_is_trained_on(monkeypatch, tmp_path):
    examples = make_examples(8)
    modes = ("truncation", "on_policy", "on_policy_positive", "edited_reference")
    rows = [
        Judged(e.id, Completion(f"{mode} {e.id}"), mode, float(mode not in ("truncation", "on_policy")))
        for e in examples
        for mode in ("reference", *modes)
    ]
    seen = []

    class Constant:
        def raw(self, _, completions):
            return np.array([float("reference" in c.text) for c in completions])

    def train_reward(config, data, **options):
        seen.append([{row.mode for row in part} for part in (data.train, data.validation)])
        assert options["max_steps"] == 5
        return Constant(), 5

    monkeypatch.setattr(leave_out, "train_reward", train_reward)
    config = tiny_config(reward={"audit": {"leave_out": {"folds": 9, "max_steps": 5}}})
    data = RewardData(examples, rows, examples, rows)
    places = {"sft_dir": tmp_path, "best": tmp_path / "best"}
    matrix = leave_out.leave_out_matrix(config, data, Constant().raw, **places)
    assert [row["left_out"] for row in matrix] == [[], ["truncation"], ["on_policy"]]
    assert seen[0] == [{"reference", "edited_reference", "on_policy", "on_policy_positive"}] * 2
    assert seen[1] == [{"reference", "edited_reference", "truncation"}] * 2, (
        "the good among own samples goes with the bad"
    )
    assert matrix[1]["auc"] == {"on_policy": 1.0, "truncation": 1.0}, "every class is asked, also the one left out"
    only = RewardData(examples, [row for row in rows if row.mode != "on_policy"], examples, rows)
    assert leave_out.leave_out_matrix(config, only, Constant().raw, **places) == []


def test_what_was_left_out_is_read_off_its_own_row():
    result = run_audit(oracle)
    matrix = [{"left_out": [], "auc": {"wrong_day": 0.9}}, {"left_out": ["wrong_day"], "auc": {"wrong_day": 0.3}}]
    found = with_left_out(result, matrix)
    assert found["classes"]["wrong_day"]["leave_one_out_auc"] == 0.3
    assert found["leave_one_out"] == matrix
    assert not [note for note in found["notes"] if "leave-one-out" in note]
    assert LEAVE_OUT_IS_OFF in result["notes"]
    assert any("Left out of training, wrong_day" in line for line in warnings_of(found))
    assert with_left_out(result, [])["notes"][-1] == "leave-one-out: only one class was trained on"
