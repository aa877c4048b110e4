"""The whole path, small, through the command line: continue, refuse, repeat a stage, generate."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from homestretch.rundir import RunDir, planned_stages, read_json, read_jsonl

RECIPE = """
name: small
seed: 1
num_threads: 1
data: {task: chats, max_prompt_tokens: 200, max_completion_tokens: 40,
       sizes: {train: 60, prompts: 30, validation: 20, test: 20}}
model:
  new:
    config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64,
             max_position_embeddings: 256}
    tokenizer: {kind: word}
sft: {max_steps: 4, batch_size: 16}
negatives: {max_validation_examples: 12, on_policy: {max_prompts: 6}}
reward: {max_steps: 3, audit: {num_prompts: 6, samples_per_prompt: 4, leave_out: {folds: 2, max_steps: 1}},
         held_out: {prompt_share: 0.3, max_steps: 1}}
rl: {num_updates: 1, critic_warmup_updates: 0, prompts_per_update: 4, validate_every: 1, max_validation_examples: 8}
evaluate: {num_resamples: 100}
"""

STAGES = planned_stages(with_baselines=False)

pytestmark = pytest.mark.slow


def homestretch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "homestretch", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished run, and what the run printed."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "x.yaml").write_text(RECIPE)
    done = homestretch("run", "x.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def folder(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_the_run_directory_has_its_layout(finished: tuple[Path, str]) -> None:
    run = finished[0] / "runs" / "small"
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "sft/config.json", "negatives/train.jsonl",
                 "negatives/validation.jsonl", "reward/audit.json", "policy/config.json", "evaluation/scores.json",
                 "evaluation/samples.jsonl", "report.html", "report.json"):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    assert {row["stage"] for row in read_jsonl(run / "metrics.jsonl")} >= {"sft", "reward", "rl"}
    for stage in STAGES:
        summary = RunDir(run).summary(stage)
        assert summary["seconds"] >= 0
        assert 0 < summary["peak_memory_gb"] < 64
    assert "report.html" in finished[1].splitlines()[-2]


def test_the_held_out_reward_is_trained_on_other_prompts_and_watches_rl(finished: tuple[Path, str]) -> None:
    run = RunDir(finished[0] / "runs" / "small")
    summary = run.summary("reward")
    rows = read_jsonl(run.negatives_dir / "train.jsonl")
    assert summary["held_out"]["steps"] == 1
    assert summary["num_train"] + summary["held_out"]["num_train"] == len(rows)
    assert 0 < summary["held_out"]["num_train"] < summary["num_train"]
    assert (run.held_out_reward_dir / "config.json").is_file()
    watched = [row for row in read_jsonl(run.metrics_path) if "validation/score" in row]
    assert watched
    assert all(row["validation/held_out_reward"] != row["validation/reward_model"] for row in watched)


def test_the_audit_has_its_keys(finished: tuple[Path, str]) -> None:
    audit = read_json(RunDir(finished[0] / "runs" / "small").audit_path)
    assert 0 <= audit["probes"]["bag_of_words"] <= 1
    assert sum(item["count"] for item in audit["calibration"]["reliability"]) > 0
    assert audit["within_prompt_rank_correlation"]["selection"]["tau"] is not None
    assert {"example_id", "text", "reward", "score", "reward_rank", "score_rank"} <= set(audit["overrated"][0])
    assert len(audit["underrated"]) <= 10
    rows = audit["leave_one_out"]
    assert [len(row["left_out"]) > 0 for row in rows] == [False, True, True]
    for mode, entry in audit["classes"].items():
        unseen = [row["auc"].get(mode) for row in rows if mode in row["left_out"]]
        assert unseen in ([entry["leave_one_out_auc"]], [])
    assert audit["gate"]["decision"] == "warn"
    assert f"reward gate: warn: {audit['gate']['reasons'][0]}" in finished[1]


def test_the_gate_stops_before_rl_and_the_same_command_goes_on_where_it_is_told_to(folder: Path) -> None:
    run = RunDir(folder / "runs" / "small")
    strict = "reward.gate.min_class_auc=1.0"
    refused = homestretch("run", "x.yaml", strict, cwd=folder)
    assert "reward.gate.min_class_auc: 0.65 -> 1.0" in refused.stderr, "RL is done: what let it begin stays"
    run.mark_undone("rl")
    stopped = homestretch("run", "x.yaml", "reward.gate.action=stop", strict, cwd=folder)
    assert stopped.returncode == 2
    assert stopped.stderr.startswith("error: reward gate: stop: ")
    assert stopped.stderr.endswith("see runs/small/report.html; to go on anyway set reward.gate.action=warn\n")
    report = read_json(run.report_json_path)
    assert (report["audit"]["gate"]["decision"], report["arms"]) == ("stop", {}), "nothing of the RL that was undone"
    assert "rl" not in {row["stage"] for row in read_jsonl(run.metrics_path)}
    assert len(stopped.stderr.splitlines()) == 1
    assert [stage for stage in STAGES if run.is_done(stage)] == ["sft", "negatives", "reward"]
    assert read_json(run.audit_path)["gate"]["decision"] == "stop"
    assert homestretch("rl", "x.yaml", "reward.gate.action=stop", strict, cwd=folder).returncode == 2
    done = homestretch("run", "x.yaml", "reward.gate.action=warn", strict, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "reward: done before, skipped" in done.stdout
    assert read_json(run.audit_path)["gate"]["decision"] == "warn"
    assert "action: warn" in run.config_path.read_text()


def test_the_environment_names_no_user_and_no_place(finished: tuple[Path, str]) -> None:
    record = read_json(finished[0] / "runs" / "small" / "environment.json")
    assert record["command"] == ["homestretch", "run", "x.yaml"]
    assert record["versions"]["torch"]
    text = json.dumps(record)
    assert str(finished[0]) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"


def test_the_same_command_again_skips_everything_and_shows_the_results(folder: Path) -> None:
    before = snapshot(folder / "runs")
    done = homestretch("run", "x.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if "done before, skipped" in line] == [
        f"{stage}:" for stage in STAGES
    ]
    assert "sft/post" in done.stdout
    assert snapshot(folder / "runs") == before


def snapshot(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_a_lost_stage_is_run_again_and_its_rows_do_not_count_twice(folder: Path) -> None:
    run = RunDir(folder / "runs" / "small")
    rows = read_jsonl(run.metrics_path)
    (run.path / ".done" / "rl.json").unlink()  # the later ones are still marked, but read what RL writes
    with run.metrics_path.open("a") as file:
        file.write('{"stage": "rl", "step": 7, "rl/sc')  # a process that was killed in the middle of a line
    done = homestretch("run", "x.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "reward: done before, skipped" in done.stdout
    assert [line[9:] for line in done.stdout.splitlines() if line.endswith(": started")] == [
        "rl: started", "evaluate: started", "report: started",
    ]  # fmt: skip
    again = read_jsonl(run.metrics_path)
    assert [(r["stage"], r["step"], sorted(r)) for r in again] == [(r["stage"], r["step"], sorted(r)) for r in rows]
    assert all(run.is_done(stage) for stage in STAGES)


def test_a_changed_recipe_is_refused_and_a_new_name_is_not(folder: Path) -> None:
    before = snapshot(folder / "runs")
    done = homestretch("run", "x.yaml", "rl.kl.beta=0.1", "seed=2", cwd=folder)
    assert done.returncode == 2
    assert "seed: 1 -> 2; rl.kl.beta: 0.05 -> 0.1" in done.stderr
    assert snapshot(folder / "runs") == before


def test_a_stage_alone_may_change_its_own_section(folder: Path) -> None:
    run = RunDir(folder / "runs" / "small")
    done = homestretch("evaluate", "x.yaml", "evaluate.split=validation", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert read_json(run.scores_path)["split"] == "validation"
    assert [stage for stage in STAGES if run.is_done(stage)] == list(STAGES[:-1])
    assert "split: validation" in run.config_path.read_text()
    refused = homestretch("report", "x.yaml", cwd=folder)
    ways = "undo the change to continue it, or make that stage again (`homestretch evaluate`), or give the new run"
    assert f'evaluate.split: "validation" -> "test"; {ways}' in refused.stderr
    for override in ("rl.kl.beta=0.1", "evaluate.selection_metrics=[rouge_1]"):
        refused = homestretch("evaluate", "x.yaml", "evaluate.split=validation", override, cwd=folder)
        assert refused.returncode == 2
        assert override.partition("=")[0] in refused.stderr


def test_a_stage_that_fails_leaves_the_recipe_of_those_before_it(folder: Path) -> None:
    run = RunDir(folder / "runs" / "small")
    before = run.config_path.read_bytes()
    (folder / "own.py").write_text(
        "def always(examples, completions):\n    return [c.ids[999] for c in completions]\n"
        "def on_samples(examples, completions):\n"
        "    return [1 / (not c.text or c.text in e.references) for e, c in zip(examples, completions)]\n"
    )
    done = homestretch("rl", "x.yaml", "rl.terms=[{scorer: own:always, weight: 1}]", cwd=folder)
    assert done.returncode == 2
    assert "rl.terms: own:always failed: IndexError" in done.stderr
    assert all(run.is_done(stage) for stage in STAGES), "told before the work, so nothing was touched"
    done = homestretch("rl", "x.yaml", "rl.terms=[{scorer: own:on_samples, weight: 1}]", cwd=folder)
    assert done.returncode == 2
    assert "rl.terms: own:on_samples failed: ZeroDivisionError" in done.stderr
    assert not run.is_done("rl")
    assert run.config_path.read_bytes() == before
    done = homestretch("run", "x.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "reward: done before, skipped" in done.stdout


@pytest.mark.parametrize(
    ("spoilt", "command", "said"),
    [
        ("reward/audit.json", ("report", "x.yaml"), "runs/small/reward/audit.json: is damaged ("),
        ("evaluation/samples.jsonl", ("report", "x.yaml"), "runs/small/evaluation/samples.jsonl:1: is damaged"),
        (".done/rl.json", ("report", "x.yaml"), "runs/small/.done/rl.json: is damaged"),
        ("metrics.jsonl", ("report", "x.yaml"), "runs/small/metrics.jsonl:1: is damaged"),
        ("evaluation/scores.json", ("run", "x.yaml"), "runs/small/evaluation/scores.json: is damaged"),
        ("policy", ("generate", "runs/small", "--input", "x.txt"), "runs/small: policy/ is gone, though rl is done"),
        ("sft/model.safetensors", ("rl", "x.yaml"), "model: runs/small/sft: its weights cannot be loaded"),
        ("negatives/train.jsonl", ("reward", "x.yaml"), "runs/small/negatives/train.jsonl:1: is damaged"),
    ],
)
def test_a_damaged_run_is_told_in_one_line(folder: Path, spoilt: str, command: tuple[str, ...], said: str) -> None:
    (folder / "x.txt").write_text("Ann: shall we eat at 6?\n")
    place = folder / "runs" / "small" / spoilt
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.write_bytes(place.read_bytes()[:20] + b"\n")
    done = homestretch(*command, cwd=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: {said}")


def test_alternatives_to_rl_can_be_added_to_a_finished_run(folder: Path) -> None:
    arms = ["baselines.arms=[rejection_sft,dpo,unlikelihood,best_of_n]", "baselines.best_of_n.n=2"]
    arms += [f"baselines.{arm}.max_steps=2" for arm in ("rejection_sft", "dpo", "unlikelihood")]
    run = RunDir(folder / "runs" / "small")
    before = read_json(run.scores_path)
    done = homestretch("baselines", "x.yaml", *arms, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in run.baselines_dir.iterdir()} == {"rejection_sft", "dpo", "unlikelihood"}
    assert not run.is_done("evaluate")
    done = homestretch("run", "x.yaml", *arms, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "baselines: done before, skipped" in done.stdout
    scores = read_json(run.scores_path)
    tested = [[(row["name"], row["metric"], row["n"]) for row in s["contrasts"]] for s in (before, scores)]
    assert tested[0] == tested[1]
    names = ["sft", "rl", "rejection_sft", "dpo", "unlikelihood", "best_of_n"]
    assert list(scores["arms"]) == [f"{name}/{kind}" for name in names for kind in ("raw", "post")]
    assert {row["b"] for row in scores["baseline_contrasts"]} == {f"{name}/raw" for name in names[2:]}
    assert list(scores["costs"]) == names
    assert scores["costs"]["best_of_n"]["decoded_tokens"] > scores["costs"]["sft"]["decoded_tokens"] > 0
    assert scores["costs"]["rl"]["trained_tokens"] > scores["costs"]["rl"]["sampled_tokens"] > 0
    for arm, summary in run.summary("baselines")["arms"].items():
        assert 1 <= summary["steps"] <= 2
        assert scores["costs"][arm]["trained_tokens"] == summary["trained_tokens"] > 0
    assert "The cheapest alternative was" in read_json(run.report_json_path)["verdict"]
    refused = homestretch("run", "x.yaml", cwd=folder)
    assert refused.returncode == 2
    assert "baselines.arms" in refused.stderr
    for other in (run.sft_dir, run.policy_dir, run.baselines_dir / "unlikelihood"):  # an arm is its own folder's model
        shutil.rmtree(other)
    (folder / "in.txt").write_text("Ann: shall we eat at 6?\n")
    done = homestretch("generate", "runs/small", "--input", "in.txt", "--arm", "dpo", cwd=folder)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["in.txt:1"], done.stderr


def test_two_processes_do_not_share_a_run(folder: Path) -> None:
    with (folder / "runs" / "small" / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = homestretch("run", "x.yaml", cwd=folder)
    assert done.returncode == 2
    assert "another homestretch process" in done.stderr


@pytest.mark.parametrize("arm", ["rl", "best_of_n"])
def test_generate_writes_a_row_per_document(folder: Path, arm: str) -> None:
    (folder / "in.txt").write_text("Ann: shall we eat at 6?\nBob: I have sold the red bike.\n")
    done = homestretch(
        "generate",
        "runs/small",
        "--input",
        "in.txt",
        "--output",
        "out.jsonl",
        "--arm",
        arm,
        "--post-process",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    written = read_jsonl(folder / "out.jsonl")
    assert [(row["id"], sorted(row)) for row in written] == [
        ("in.txt:1", ["id", "terminated", "text"]),
        ("in.txt:2", ["id", "terminated", "text"]),
    ]


@pytest.mark.parametrize("command", [("generate", "runs/small", "--input", "in.txt", "--output", "runs"),
                                     ("reward-check", "runs/small", "in.txt", "--json", "runs")])  # fmt: skip
def test_an_output_that_is_a_folder_is_refused_before_the_work(folder: Path, command: tuple[str, ...]) -> None:
    done = homestretch(*command, cwd=folder)
    assert (done.returncode, done.stderr) == (2, "error: runs: is a directory; give a file to write\n")


def test_generate_prints_nothing_but_rows(folder: Path) -> None:
    rows = [{"id": "q", "document": "Ann: shall we eat at 6?"}]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = homestretch("generate", "runs/small", "--input", "in.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    printed: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in printed] == ["q"]


def test_reward_check_scores_a_labelled_file(folder: Path) -> None:
    texts = ["Ann: shall we eat at 6?", "Bob: I have sold the red bike."]
    rows = [
        {"document": d, "summary": s, "label": int(d[:3] == s[:3])}
        for d in texts
        for s in ("Ann eats at 6.", "Bob sold a bike.")
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = homestretch("reward-check", "runs/small", "in.jsonl", "--json", "out.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    results = read_json(folder / "out.json")
    assert (results["n"], results["n_documents"], results["threshold"]) == (4, 2, 1)
    assert {"sft_logprob", "longer", "entity_precision"} <= set(results["baselines"])
    assert results["verdict"] in done.stdout


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "homestretch", "run", "x.yaml", "sft.max_steps=100000", "sft.num_epochs=50000"]
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if "sft: llama" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in err
    assert "Traceback" not in err
    run = RunDir(tmp_path / "runs" / "small")
    assert run.config_path.is_file()
    assert not run.is_done("sft")


def with_rl(folder: Path, section: str) -> None:
    """Give the recipe another section `rl`."""
    before, _, after = RECIPE.partition("rl: {")
    _, _, after = after.partition("}\n")
    (folder / "x.yaml").write_text(f"{before}rl: {{{section}}}\n{after}")


SMALL_RL = "num_updates: 2, prompts_per_update: 4, validate_every: 1, max_validation_examples: 8"


def test_another_algorithm_with_maximum_likelihood_mixed_in(folder: Path) -> None:
    with_rl(folder, f"algorithm: grpo, sft_mix: {{coefficient: 0.1}}, {SMALL_RL}")
    done = homestretch("rl", "x.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_jsonl(folder / "runs" / "small" / "metrics.jsonl") if row["stage"] == "rl"]
    updates = [row for row in rows if "rl/score" in row]
    assert len(updates) == 2
    assert all(row["rl/sft_loss"] > 0 and "rl/value_loss" not in row for row in updates)


def test_a_reward_of_adapters_shares_the_reference_s_model(folder: Path) -> None:
    adapters = "reward.lora={r: 4, alpha: 8}"
    for stage in ("reward", "rl"):
        done = homestretch(stage, "x.yaml", adapters, cwd=folder)
        assert done.returncode == 0, done.stderr
    run = folder / "runs" / "small"
    assert (run / "reward" / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "reward" / "model.safetensors").is_file()
    assert (run / "policy" / "config.json").is_file()


def test_a_number_that_is_not_finite_ends_rl_with_the_best_checkpoint_kept(folder: Path) -> None:
    run = folder / "runs" / "small"
    shutil.rmtree(run / "policy")
    with_rl(folder, f"optimizer: {{lr: 1.0e+30}}, critic_warmup_updates: 0, {SMALL_RL}")
    done = homestretch("rl", "x.yaml", cwd=folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "is not finite" in line
    assert "the best checkpoint so far (update 0) is in runs/small/policy" in line
    assert not RunDir(run).is_done("rl")
    from safetensors.torch import load_file

    kept, sft = (load_file(run / name / "model.safetensors") for name in ("policy", "sft"))
    assert all(kept[name].equal(tensor) for name, tensor in sft.items())
