"""Rewards against people's labels."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.studies import human_labels, runs
from homestretch.rundir import RunDir, read_jsonl, write_json
from homestretch.types import UserError


def write_set(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_a_labelled_set_is_read_without_references_and_empty_rows(tmp_path):
    path = tmp_path / "faceval_samsum.jsonl.gz"
    row = {"document": "Ann: Hi.", "document_id": "7", "summary": "Ann says hi.", "label": 1, "system": "bart"}
    write_set(path, [row, row | {"system": "human_ref"}, row | {"label": None}, row | {"document": None},
                     row | {"label": 0, "reference": "Ann greets."}])  # fmt: skip
    kept, num_left_out = human_labels.labelled_rows("faceval_samsum", path)
    shared = {"document": "Ann: Hi.", "summary": "Ann says hi.", "group": "7"}
    assert kept == [shared | {"label": 1}, shared | {"label": 0, "reference": "Ann greets."}]
    assert num_left_out == 3
    write_set(path, [{"document": "d", "summary": "s", "label": 1, "system": "x"}])
    with pytest.raises(UserError, match="no column 'document_id'"):
        human_labels.labelled_rows("faceval_samsum", path)


def agreement(auc, low, **more):
    return {"auc": auc, "low": low, "high": 0.9, "spearman": 0.3, "spearman_low": 0.2, "spearman_high": 0.4,
            "within_document_tau": {"tau": 0.2, "low": 0.1, "high": 0.3, "n": 3, "left_out": 1}} | more  # fmt: skip


def check(*, difference_low):
    baselines = {"shorter": agreement(0.5, 0.4, difference=0.2, difference_low=0.1, difference_high=0.3),
                 "copied_bigrams": agreement(0.6, 0.5, difference=0.1, difference_low=difference_low,
                                             difference_high=0.3),
                 "sft_logprob": agreement(0.8, 0.7, difference=-0.1, difference_low=-0.2, difference_high=0.0),
                 }  # fmt: skip
    return agreement(0.7, 0.6, n=10, n_documents=5, baselines=baselines, notes=["3 of 10 documents are cut"])


def test_the_best_lexical_baseline_is_named_and_all_must_be_beaten():
    for low, beats in ((0.01, True), (-0.01, False)):
        found = human_labels.measured(check(difference_low=low), "dialsummeval", "dialogue")
        assert found["best_lexical"] == "copied_bigrams"
        assert found["beats_every_lexical"] is beats
        assert found["in_domain"]
    setting = {"run": "x/full-0", "data": "chats", "domain": "news", "sets": {
        "dialsummeval": human_labels.measured(check(difference_low=0.01), "dialsummeval", "news")}}  # fmt: skip
    text = human_labels.section(setting)
    assert "| dialsummeval | no | 10 (5) | 0.700 [0.600, 0.900] |" in text
    assert "| sft_logprob | 0.80 / 0.30 / 0.20 |" in text
    assert "(DialSummEval); 3 of 10 documents are cut." in text


def test_pairs_that_a_score_does_not_tell_apart_count_as_half_right():
    found = human_labels.measured(check(difference_low=0.01), "falke_sentence_pairs", "news")
    assert found["within_document_tau"] == pytest.approx(
        {"tau": 0.15, "low": 0.075, "high": 0.225, "n": 3, "left_out": 1}
    )
    assert found["baselines"]["shorter"]["within_document_tau"]["tau"] == pytest.approx(0.15)
    plain = human_labels.measured(check(difference_low=0.01), "dialsummeval", "news")
    assert plain["within_document_tau"]["tau"] == 0.2


def test_a_check_is_not_repeated_until_the_reward_is_trained_again(tmp_path, monkeypatch):
    path = tmp_path / "entfa_xsum.jsonl.gz"
    write_set(path, [{"document": "d", "summary": "s", "label": i} for i in (0, 1)])
    run, asked = RunDir(tmp_path / "run"), []
    run.mark_done("reward", {})

    def process(command, **kwargs):
        assert command[3] == "reward-check"
        asked.append(read_jsonl(Path(command[5])))
        write_json(Path(command[command.index("--json") + 1]), check(difference_low=0.0))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(human_labels, "subprocess", SimpleNamespace(run=process))
    result = tmp_path / "out" / "entfa_xsum.json"
    for _ in range(2):
        assert human_labels.checked(run, "entfa_xsum", path, result)["n_left_out"] == 0
    assert len(asked) == 1
    assert asked[0][1] == {"document": "d", "summary": "s", "label": 1, "group": "d"}
    marker = run.path / ".done" / "reward.json"
    os.utime(marker, (result.stat().st_mtime + 5,) * 2)
    human_labels.checked(run, "entfa_xsum", path, result)
    assert len(asked) == 2


def test_a_run_is_given_with_the_kind_of_its_documents(study, homestretch):
    rundir = runs.finish(study, runs.FULL, 0)
    assert human_labels.given_runs([f"dialogue={rundir.path}"]) == {rundir.path: "dialogue"}
    for wrong in (str(rundir.path), f"poems={rundir.path}"):
        with pytest.raises(UserError, match="say what the run's documents are"):
            human_labels.given_runs([wrong])
