"""The command line without models: verbs, exit codes, messages."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from homestretch import __version__
from homestretch.cli import app
from homestretch.recipe import load_recipe
from homestretch.rundir import STAGES, RunDir


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    return int(end.value.code or 0)


def test_every_stage_is_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for verb in (*STAGES, "run", "validate", "generate", "reward-check", "init", "env"):
        assert f" {verb} " in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


def test_init_writes_a_recipe_that_loads_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    assert call("init", str(path)) == 0
    config = load_recipe(path)
    assert (config.name, config.data.path, config.model.path) == ("my-task", "./data", "./models/my-model")
    path.write_text("mine: 1\n")
    assert call("init", str(path)) == 2
    assert capsys.readouterr().err == f"error: {path}: is there already; give another path\n"
    assert path.read_text() == "mine: 1\n"


def test_the_commented_lines_of_init_are_keys_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    call("init", str(path))
    lines = path.read_text().splitlines()
    commented = [line for line in lines if line.startswith("  # ") and ":" in line]
    assert len(commented) >= 6
    for line in commented:
        path.write_text("\n".join(lines).replace(line, line.replace("# ", "", 1)))
        load_recipe(path)


def test_each_mistake_of_a_recipe_is_a_line_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: {task: chats}\nmodel: {path: ./m}\nrl: {kl: {betta: 1}, lr: 1}\n")
    assert call("run", str(path)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(": ")[:3] for line in captured.err.splitlines()] == [
        ["error", str(path), "rl.kl.betta"],
        ["error", str(path), "rl.lr"],
    ]


def test_a_stage_alone_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"output_dir: {tmp_path}/runs\ndata: {{task: chats}}\nmodel: {{path: ./m}}\n")
    RunDir(tmp_path / "runs" / "run").mark_done("sft", {})
    assert call("rl", str(path)) == 2
    assert "rl needs negatives, reward done first" in capsys.readouterr().err


def test_generate_refuses_an_arm_that_the_run_has_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir(tmp_path).config_path.write_text("")
    assert call("generate", str(tmp_path), "--input", "x.txt", "--arm", "dpo") == 2
    assert "no arm 'dpo' in this run; add it to baselines.arms" in capsys.readouterr().err


def test_generate_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("generate", str(tmp_path), "--input", "x.txt") == 2
    assert "not a run's directory" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert call("init", str(tmp_path / "x.yaml")) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    command = [sys.executable, "-m", "homestretch", "init", "x.yaml"]
    done = subprocess.run(command, cwd=tmp_path, preexec_fn=small_files, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the disk is full" in done.stderr
    assert list(tmp_path.iterdir()) == []
