"""A study of a small recipe, and a `homestretch` that trains nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.studies import runs
from homestretch.recipe import load_recipe
from homestretch.rundir import STAGES, RunDir
from homestretch.validation import changed_recipe
from study_helpers import begun, evaluated

RECIPE = """
data: {task: chats, sizes: {train: 50, prompts: 20, validation: 10, test: 10}}
model: {new: {model_type: llama}}
sft: {num_epochs: 4, batch_size: 8}
reward: {num_epochs: 1, max_steps: 10, prompts_per_batch: 4}
"""
LIFTS = {"full": 0.2, "paper": 0.1}


@pytest.fixture
def study(tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return runs.Study(recipe, (), (0, 1), tmp_path / "out" / "small", (), tmp_path / "result.json")


@pytest.fixture
def homestretch(study, monkeypatch):
    """`homestretch VERB` as a list of (verb, run), which leaves what the verb would."""
    called = []

    def process(command, **kwargs):
        assert command[1:3] == ["-m", "homestretch"]
        verb, overrides = command[3], command[5:]
        config = load_recipe(Path(command[4]), overrides)
        variant, _, seed = config.name.rpartition("-")
        called.append((verb, config.name))
        assert verb != "run" or changed_recipe(config) == [], "the real one would refuse this folder"
        if config.name == "broken-1":
            kwargs["stdout"].write("error: the disk is full\n")
            return subprocess.CompletedProcess(command, 2)
        rundir = RunDir(config.run_dir)
        left = [stage for stage in STAGES if stage != "baselines" and not rundir.is_done(stage)]
        begun(study, runs.Variant(variant, tuple(o for o in overrides if "." in o.partition("=")[0])), int(seed),
              left if verb == "run" else [verb])  # fmt: skip
        gain = LIFTS.get(variant, 0.3) + 0.01 * int(seed)
        evaluated(rundir, {"sft/raw": 0.0, "sft/post": 0.0, "rl/raw": gain, "rl/post": gain}, seed=int(seed))
        return subprocess.CompletedProcess(command, 0)

    here = {"cpu": "a processor", "device": "cpu", "git_commit": "abcdefgh", "date": "2026-01-01"}
    command = ["study.py", "--set", "data.path=/home/me/samsum"]
    monkeypatch.setattr(runs, "environment", lambda device, threads: here | {"threads": 2, "command": command})
    monkeypatch.setattr(runs, "subprocess", SimpleNamespace(run=process, STDOUT=subprocess.STDOUT))
    return called
