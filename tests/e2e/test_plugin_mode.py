"""A failure mode of the user's own through the command line: in negatives, audit, failure rates and report."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from example_mode import EXAMPLE, load_example
from homestretch.rundir import RunDir, read_json, read_jsonl

RECIPE = """
name: small
num_threads: 1
data: {path: ./data, template: "{document} JSON: ", max_prompt_tokens: 100, max_completion_tokens: 80}
model:
  new:
    config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16,
             max_position_embeddings: 200}
    tokenizer: {kind: bpe, vocab_size: 300}
sft: {max_steps: 2}
negatives: {preset: paper, include: ["invalid_json:InvalidJSON"], max_validation_examples: 6,
            exclude: [random_tokens, irrelevant, shuffled, repetition, echo], edited_positives: 0}
reward: {max_steps: 2, audit: {num_prompts: 4, samples_per_prompt: 2}}
rl: {num_updates: 1, critic_warmup_updates: 0, prompts_per_update: 2, validate_every: 1, max_validation_examples: 4}
evaluate: {num_resamples: 100}
"""

NEVER = """
from homestretch.types import Completion, Edit, FailureMode

class Never(FailureMode):
    name = "never"

    def corrupt(self, example, rng):
        return Edit(Completion(example.reference), (0, 0))  # a reference is no failure

    def detect(self, example, completion):
        return None
"""


def homestretch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # The console script's way in: unlike `python -m`, it does not put the current folder on the import path.
    command = [sys.executable, "-P", "-m", "homestretch", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's class and rows, and modes to go wrong, in a folder of their own below the one commands run in."""
    folder = tmp_path_factory.mktemp("plugin")
    make_row, rng = load_example("make_data").row, random.Random(0)
    (folder / "data").mkdir()
    for split, size in (("train", 24), ("validation", 6), ("test", 6)):
        rows = "".join(json.dumps(make_row(rng)) + "\n" for _ in range(size))
        (folder / "data" / f"{split}.jsonl").write_text(rows)
    (folder / "mine").mkdir()
    shutil.copy(EXAMPLE / "invalid_json.py", folder / "mine")
    (folder / "mine" / "x.yaml").write_text(RECIPE)
    (folder / "mine" / "never.py").write_text(NEVER)
    raising = "        return 0.0 if completion.terminated else 1.0 / len(completion.text)\n"
    (folder / "mine" / "raising.py").write_text(NEVER.replace("        return None\n", raising))
    return folder


@pytest.fixture(scope="module")
def finished(project: Path) -> tuple[RunDir, str]:
    """A run whose one class is the example's, with a mode beside it that applies nowhere; and its stderr."""
    done = homestretch(
        "run", "mine/x.yaml", "negatives.include=['invalid_json:InvalidJSON', 'never:Never']", cwd=project
    )
    assert done.returncode == 0, done.stderr
    return RunDir(project / "runs" / "small"), done.stderr


@pytest.mark.slow
def test_it_is_in_negatives_audit_rates_and_report_by_its_name(finished: tuple[RunDir, str]) -> None:
    run, _ = finished
    for split in ("train", "validation"):
        modes = {row["mode"] for row in read_jsonl(run.negatives_dir / f"{split}.jsonl")}
        assert modes == {"reference", "invalid_json"}
    audit = read_json(run.audit_path)
    assert list(audit["classes"]) == ["invalid_json"]
    assert audit["classes"]["invalid_json"]["n"] == 6
    assert "invalid_json" in audit["probes"]["source_blind"]
    scores = read_json(run.scores_path)
    assert scores["references"]["failures"]["invalid_json"]["rate"] == 0.0
    raw, post = (scores["arms"][arm]["failures"]["invalid_json"]["rate"] for arm in ("sft/raw", "sft/post"))
    assert raw == 1.0 >= post  # a model of two steps writes no JSON
    assert "invalid_json" in {row["mode"] for row in scores["failure_contrasts"]}
    assert all(row["arms"]["sft/raw"]["flags"]["invalid_json"] == 1.0 for row in read_jsonl(run.samples_path))
    report = run.report_path.read_text()
    assert report.count('<th scope="row">invalid_json') >= 3  # failure rates, audit, negatives
    assert read_json(run.report_json_path)["failures"]["sft/raw"]["invalid_json"] == 1.0
    for path in (run.scores_path, run.audit_path, run.negatives_dir / "train.jsonl", run.report_json_path):
        assert "InvalidJSON" not in path.read_text()


@pytest.mark.slow
def test_a_mode_that_applies_nowhere_is_warned_of_and_in_summary_and_report(finished: tuple[RunDir, str]) -> None:
    run, err = finished
    assert "warning: negatives: never applies to no train example" in err
    assert run.summary("negatives")["modes_that_never_apply"] == ["never"]
    assert "Applies to no train example, so the reward did not learn it: never." in run.report_path.read_text()
    assert read_json(run.scores_path)["arms"]["sft/raw"]["failures"]["never"]["rate"] is None


@pytest.mark.slow
def test_no_negative_at_all_ends_the_stage_with_what_there_was(finished: tuple[RunDir, str], project: Path) -> None:
    run, _ = finished
    before = (run.negatives_dir / "train.jsonl").read_bytes()
    (line,) = errors(homestretch("negatives", "mine/x.yaml", "negatives.include=['never:Never']", cwd=project))
    assert line.startswith("negatives: none of never applies to any train example")
    assert "negatives.include" in line
    assert (run.negatives_dir / "train.jsonl").read_bytes() == before
    assert run.is_done("sft")


def test_one_that_raises_is_named_before_anything_is_trained(project: Path) -> None:
    for verb in ("validate", "run"):
        done = homestretch(verb, "mine/x.yaml", "name=other", "negatives.include=['raising:Never']", cwd=project)
        (line,) = errors(done)
        said = (
            "failure mode 'never': detect of example 'train.jsonl:1' failed: ZeroDivisionError: float division by zero"
        )
        assert line.startswith(said)
        assert line.endswith("raising.py:11)")
        assert not (project / "runs" / "other").exists()
    named = "negatives.include=['invalid_json:InvalidJSON', 'invalid_jsn:X', never:Other]"
    lines = errors(homestretch("validate", "mine/x.yaml", "name=other", named, cwd=project))
    assert [line.split(":")[0] for line in lines] == ["negatives", "negatives"]
    assert "no module 'invalid_jsn'" in lines[0]
    assert "has no 'Other'" in lines[1]
