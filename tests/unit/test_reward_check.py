"""`homestretch reward-check` through the command line, on a run with a small reward model that nobody trained."""

from __future__ import annotations

import csv
import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homestretch.cli import app
from homestretch.config import RunConfig
from homestretch.labelled import LabelledColumns, load_labelled
from homestretch.metrics.baselines import lexical_baselines
from homestretch.recipe import dump_recipe
from homestretch.reward_check import SFT_LOGPROB, finite_rewards, mean_logprobs
from homestretch.rundir import RunDir, read_json, write_text
from homestretch.types import Completion, Example, UserError
from tiny import SUMMARIES, TEXTS, tiny_config

BASELINES = ["shorter", "longer", "rouge_1_precision", "rouge_2_precision", "rouge_l_precision", "rouge_l_reference",
             "entity_precision", "number_precision", "copied_bigrams"]  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"document": text, "summary": summary, "label": label, "reference": SUMMARIES[i]}
    for i, text in enumerate(TEXTS)
    for summary, label in ((SUMMARIES[i], 5), (SUMMARIES[i - 1], 1), (SUMMARIES[i].split()[0], 3.5))
]


def config() -> RunConfig:
    return tiny_config(reward={"tokens_per_microbatch": 400}, num_threads=1)


@pytest.fixture(scope="module")
def finished(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sft and reward are done, as far as its files say."""
    from homestretch.rewards.reward_model import build_reward_model, save_reward_model

    rundir = RunDir(tmp_path_factory.mktemp("runs") / "tiny")
    write_text(rundir.config_path, dump_recipe(config()))
    shutil.copytree(tiny_folders["llama"], rundir.sft_dir)
    save_reward_model(build_reward_model(config(), rundir.sft_dir), rundir.reward_dir)
    for stage in ("sft", "negatives", "reward"):
        rundir.mark_done(stage, {})
    return rundir.path


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_the_results_are_written_and_said(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, {"document": "x", "summary": "y", "label": None}]
    file, out = jsonl(tmp_path / "labels.jsonl", rows), tmp_path / "out.json"
    assert call("reward-check", finished, file, "--json", out) == 0
    results = read_json(out)
    sizes = {key: results[key] for key in ("schema", "run", "file", "seed", "n", "n_documents", "n_without_label")}
    assert sizes == {
        "schema": 1, "run": "run", "file": "labels.jsonl", "seed": 0, "n": 12, "n_documents": 4, "n_without_label": 1,
    }  # fmt: skip
    assert (results["threshold"], results["n_positive"]) == (5, 4)
    assert list(results["baselines"]) == [*BASELINES, SFT_LOGPROB]
    for found in (results, *results["baselines"].values()):
        assert found["low"] <= found["auc"] <= found["high"]
        assert -1 <= found["spearman"] <= 1
        assert found["within_document_tau"]["n"] + found["within_document_tau"]["left_out"] == 4
    for found in results["baselines"].values():
        assert found["difference"] == pytest.approx(results["auc"] - found["auc"])
    assert str(tmp_path) not in out.read_text()
    printed = capsys.readouterr()
    assert all(name in printed.out for name in (*BASELINES, SFT_LOGPROB))
    assert results["verdict"] in printed.out
    assert "rows without a label, left out: 1" in printed.err
    again = tmp_path / "again.json"
    assert call("reward-check", finished, file, "--json", again) == 0
    assert again.read_bytes() == out.read_bytes()


def test_other_columns_a_threshold_and_no_references(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["chat", "output", "score", "id"])
        writer.writerows([r["document"], r["summary"], r["label"], i // 6] for i, r in enumerate(ROWS))
    out = tmp_path / "out.json"
    columns = ["--document-column", "chat", "--summary-column", "output", "--label-column", "score",
               "--group-column", "id"]  # fmt: skip
    assert call("reward-check", finished, path, "--json", out, "--threshold", "3", *columns) == 0
    results = read_json(out)
    assert (results["n"], results["n_documents"], results["threshold"], results["n_positive"]) == (12, 2, 3, 8)
    assert "rouge_l_reference" not in results["baselines"]
    assert call("reward-check", finished, path, "--threshold", "5.5", *columns) == 2
    assert "--threshold 5.5 leaves no row on one side: the labels go from 1 to 5" in capsys.readouterr().err


def test_the_prompt_is_the_run_s_and_the_reward_the_calibrated_one(finished: Path, tmp_path: Path) -> None:
    from homestretch.rewards.reward_model import load_reward_model

    labelled = load_labelled(jsonl(tmp_path / "x.jsonl", ROWS), LabelledColumns(), config().data)
    assert [e.prompt for e in labelled.examples[::3]] == [f"{text}\nSummary:" for text in TEXTS]
    assert labelled.completions[0] == Completion(SUMMARIES[0], terminated=True)
    model = load_reward_model(finished / "reward", config())
    expected = model([labelled.examples[4]], [Completion(SUMMARIES[0])])
    assert finite_rewards(model, labelled)[4] == pytest.approx(expected[0], abs=1e-5)


def test_a_mean_log_probability_is_that_of_the_tokens_one_by_one(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    import torch

    from homestretch.models import load_language_model

    labelled = load_labelled(jsonl(tmp_path / "x.jsonl", ROWS), LabelledColumns(), config().data)
    lm = load_language_model(tiny_folders["llama"], config())
    found = mean_logprobs(lm, config(), labelled)
    for i in (0, 5, 11):
        prompt = list(lm.codec.encode_prompt(labelled.examples[i]).ids)
        ids = list(lm.codec.encode_completion(labelled.completions[i]))
        with torch.no_grad():
            logprobs = lm.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        own = [float(logprobs[len(prompt) + t - 1, token]) for t, token in enumerate(ids)]
        assert found[i] == pytest.approx(np.mean(own), abs=1e-4)


def test_the_baselines_are_oriented_and_defined() -> None:
    document = "Ann: I sold the bike for 90 dollars.\nBob: good."
    texts = ["I sold the bike for 90 dollars.", "Carl sold the bike for 80 dollars, on Monday.", "good"]
    example = Example("a", document, document)
    found = lexical_baselines(config(), [example] * 3, [Completion(text) for text in texts])
    assert list(found) == [name for name in BASELINES if name != "rouge_l_reference"]
    for name in ("rouge_1_precision", "rouge_2_precision", "rouge_l_precision", "entity_precision",
                 "number_precision", "copied_bigrams"):  # fmt: skip
        assert found[name][0] == 1 > found[name][1], name
    for name in ("entity_precision", "number_precision", "copied_bigrams", "rouge_1_precision"):
        assert found[name][2] == 1, name  # mentions nothing, has no pair: nothing of it is unsupported
    assert (found["shorter"] == -found["longer"]).all()


def without(column: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != column} for row in ROWS]


def with_row(**changes: Any) -> list[dict[str, Any]]:
    return [ROWS[0], ROWS[1] | changes, *ROWS[2:]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (without("label"), "{file}: no column 'label'; its columns are: document, reference, summary; name the right"),
        (without("summary"), "{file}: no column 'summary'; its columns are: document, label, reference; name the"),
        (with_row(label="high"), "{file}:2: label must be a number, is 'high'; leave it empty if there is no label"),
        (with_row(label=math.nan), "{file}:2: label must be a finite number, is nan"),
        (with_row(summary="  "), "{file}:2: summary is empty"),
        (with_row(document=None), "{file}:2: document must be text, is null"),
        ([row | {"label": None} for row in ROWS], "{file}: none of its 12 rows has a label (column 'label')"),
        ([row | {"label": 1} for row in ROWS], "{file}: all 12 labels are 1; a reward is checked on good and bad"),
        ([], "{file}: no rows"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], message: str
) -> None:
    file, out = jsonl(tmp_path / "labels.jsonl", rows), tmp_path / "out.json"
    assert call("reward-check", finished, file, "--json", out) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: " + message.format(file=file))
    assert not out.exists()


def lose_reward(run: Path, file: Path) -> Path:
    RunDir(run).mark_undone("reward")
    return file


def no_run(run: Path, file: Path) -> Path:
    (run / "config.yaml").unlink()
    return file


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_reward, "reward is not done, so there is no reward/ to use"),
        (no_run, "not a run's directory"),
        (lambda run, file: file.with_name("none.jsonl"), "none.jsonl: no such file"),
        (lambda run, file: file.rename(file.with_suffix(".xlsx")), "labels.xlsx: not a file of a known kind"),
        (lambda run, file: file.rename(file.with_suffix(".jsonl.gz")), "not a whole gzip file"),
    ],
)
def test_a_run_or_file_that_is_not_there(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, Path], Path],
    message: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = spoil(run, jsonl(tmp_path / "labels.jsonl", ROWS))
    assert call("reward-check", run, file) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_reward_that_is_not_finite_or_of_another_shape_names_the_row(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    labelled = load_labelled(file, LabelledColumns(), config().data)
    broken = np.arange(12.0)
    broken[[4, 7]] = np.nan
    with pytest.raises(UserError, match=rf"{file.name}:5: the reward is nan \(2 of 12 rows"):
        finite_rewards(lambda examples, completions: broken, labelled)
    with pytest.raises(UserError, match=r"shape \(12, 1\) for 12 rows"):
        finite_rewards(lambda examples, completions: np.zeros((12, 1)), labelled)


def test_what_is_cut_and_what_is_rare_is_said(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [ROWS[0], *[row | {"label": 1} for row in ROWS[1:]]]
    rows[1] = rows[1] | {"document": TEXTS[0] * 9, "summary": "Ann is here. " * 40}
    out = tmp_path / "out.json"
    assert call("reward-check", finished, jsonl(tmp_path / "x.jsonl", rows), "--json", out) == 0
    notes = read_json(out)["notes"]
    assert [note.split(":")[0] for note in notes] == [
        "1 of 12 rows are positive (label >= 5)",
        "1 of 12 documents are cut at data.max_prompt_tokens=128",
        "1 of 12 summaries are longer than data.max_completion_tokens=64",
    ]
    assert [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines()] == notes
