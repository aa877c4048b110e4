"""The studies' reading, arithmetic and bookkeeping, on invented run directories; nothing is trained."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import report
from benchmarks.studies import arms, full_vs_paper, human_labels, label_fraction, over_optimisation, runs, seeds
from homestretch.data import load_splits
from homestretch.recipe import dump_recipe, load_recipe
from homestretch.rundir import STAGES, RunDir, read_json, read_jsonl, write_json, write_jsonl, write_text
from homestretch.types import UserError

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
data: {task: chats, sizes: {train: 50, prompts: 20, validation: 10, test: 10}}
model: {new: {model_type: llama}}
sft: {num_epochs: 4, batch_size: 8}
reward: {num_epochs: 1, max_steps: 10, prompts_per_batch: 4}
"""
N = 12
ABOUT = {"fact_f1": True, "rouge_l": True, "entity_precision": True, "length_ratio": None, "terminated": True}


def sample(i, arm, lift, *, text="same", speaker=0.0):
    metrics = {"fact_f1": 0.5 + 0.01 * i + lift, "rouge_l": 0.4 + lift / 2, "length_ratio": 1.0, "terminated": 1.0,
               "entity_precision": None if i == 0 else 0.9}  # fmt: skip
    return {"text": f"{text} {arm} {i}", "terminated": True, "metrics": metrics,
            "flags": {"wrong_speaker": speaker} | ({"omission": 0.7} if i % 2 else {})}  # fmt: skip


def evaluated(rundir, lifts, *, seed=0, sft_text="same", more=None):
    """Write an evaluation: `lifts` maps an arm to what it has more than SFT."""
    rows = [
        {"id": f"test-{i}", "source": f"seed {seed} document {i}", "references": ["r"],
         "arms": {arm: sample(i, arm, lift, text=sft_text if arm.startswith("sft") else "rl",
                              speaker=0.0 if lift else 0.8) for arm, lift in lifts.items()}}
        for i in range(N)
    ]  # fmt: skip
    summary = {"metrics": {name: {"higher_is_better": up} for name, up in ABOUT.items()},
               "failures": {"wrong_speaker": {}, "omission": {}}}  # fmt: skip
    contrasts = [{"metric": metric, "primary": metric in ("fact_f1", "rouge_l")} for metric in ABOUT]
    write_jsonl(rundir.samples_path, rows)
    settings = {"flag_threshold": 0.5, "confidence": 0.95, "num_resamples": 300}
    scores = {"arms": {arm: summary for arm in lifts}, "contrasts": contrasts} | settings | (more or {})
    write_json(rundir.scores_path, scores)


@pytest.fixture
def study(tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    return runs.Study(recipe, (), (0, 1), tmp_path / "out" / "small", (), tmp_path / "result.json")


def begun(study, variant, seed, stages):
    """A run's directory with these stages done."""
    config = study.config(variant, seed)
    rundir = RunDir(config.run_dir)
    write_text(rundir.config_path, dump_recipe(config))
    write_json(rundir.environment_path, {"git_commit": "abc"})
    for stage in stages:
        rl = {"updates": 8, "kept_update": 4, "stopped": "all updates done", "alarms": []} if stage == "rl" else {}
        leave(rundir, stage)
        rundir.mark_done(stage, {"seconds": 1.0, "name": variant.name} | rl)
    return rundir


def leave(rundir, stage):
    for folder in {"sft": ("base", "sft"), "negatives": ("negatives",), "reward": ("reward",), "rl": ("policy",)}.get(
        stage, ()
    ):
        write_text(rundir.path / folder / "model.safetensors", f"{rundir.path.name} {folder}")
    if stage in ("sft", "rl"):
        rundir.log_metrics(stage, 1, {f"{stage}/loss": 1.0})
    if stage == "rl":
        write_jsonl(rundir.rl_samples_path, [{"update": 0}])


LIFTS = {"full": 0.2, "paper": 0.1}


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


# --- runs ------------------------------------------------------------------------------------------------------------


def test_seeds_and_variants_take_turns_and_nothing_finished_is_run_again(study, homestretch):
    def variants(seed):
        return (runs.FULL, full_vs_paper.PAPER)

    found, failures = runs.finish_all(study, variants)
    assert homestretch == [("run", "full-0"), ("run", "paper-0"), ("run", "full-1"), ("run", "paper-1")]
    assert not failures
    assert {seed: set(of_seed) for seed, of_seed in found.items()} == {0: {"full", "paper"}, 1: {"full", "paper"}}
    runs.finish_all(study, variants)
    assert len(homestretch) == 4


def test_a_variant_begins_with_copies_of_the_recipes_own_stages(study, homestretch):
    rundir = runs.finish(study, full_vs_paper.PAPER, 0)
    assert homestretch == [("sft", "full-0"), ("run", "paper-0")]  # of the other run, only what is shared
    assert (rundir.path / "sft" / "model.safetensors").read_text() == "full-0 sft"
    assert (rundir.path / "base" / "model.safetensors").read_text() == "full-0 base"
    assert (rundir.path / "reward" / "model.safetensors").read_text() == "paper-0 reward"
    assert rundir.summary("sft")["name"] == "full"
    assert rundir.summary("reward")["name"] == "paper"
    assert [row["stage"] for row in read_jsonl(rundir.metrics_path)] == ["sft", "rl"]


def test_what_rl_left_is_taken_over_whole(study, homestretch):
    variant = runs.Variant("arms", ("baselines.arms=[dpo]",), shares="rl")
    runs.finish(study, runs.FULL, 0)
    config = study.config(variant, 0)
    rundir = RunDir(config.run_dir)
    runs.take_over(RunDir(study.config(runs.FULL, 0).run_dir), rundir, config, last="rl")
    assert (rundir.path / "policy" / "model.safetensors").read_text() == "full-0 policy"
    assert read_jsonl(rundir.rl_samples_path) == [{"update": 0}]
    assert runs.stages_left(rundir, config, "report") == ["baselines", "evaluate", "report"]


@pytest.mark.parametrize(("override", "last"), [("sft.num_epochs=2", "sft"), ("negatives.preset=paper", "reward"),
                                                ("rl.kl.beta=0.3", "rl")])  # fmt: skip
def test_stages_that_depend_on_the_change_are_not_taken_over(study, homestretch, override, last):
    with pytest.raises(UserError, match=f"cannot take {last} over .*{override.partition('=')[0]}"):
        runs.finish(study, runs.Variant("other", (override,), shares=last), 0)


def test_a_directory_with_a_run_of_other_settings_is_refused(study, homestretch):
    runs.finish(study, runs.FULL, 0)
    other = runs.Study(study.recipe, ("sft.num_epochs=9",), study.seeds, study.folder, (), study.json)
    with pytest.raises(UserError, match=r"begun with another recipe: sft\.num_epochs: 4 -> 9"):
        runs.finish(other, runs.FULL, 0)
    later = runs.Study(study.recipe, ("rl.num_updates=9",), study.seeds, study.folder, (), study.json)
    assert runs.finish(later, runs.FULL, 0, until="reward").is_done("reward")  # what is not used may differ


def test_a_run_that_fails_is_told_and_the_others_are_measured(study, homestretch, capsys):
    def variants(seed):
        return (runs.FULL, runs.Variant("broken"))

    with pytest.raises(UserError, match=r"broken-1: homestretch run ended with code 2: error: the disk is full"):
        runs.conduct("label_fraction", study, variants, lambda found: {"seen": sorted(found[1]), "contrasts": [],
                                                                       "levels": {}})  # fmt: skip
    result = read_json(study.json)
    setting = result["settings"]["small"]
    assert result["environment"]["command"] == ["study.py", "--set", "data.path=samsum"]
    assert setting["seen"] == ["full"]
    assert set(setting["runs"]) == {"full-0", "full-1", "broken-0"}
    assert setting["runs"]["full-0"]["rl"] == {"updates": 8, "kept_update": 4, "stopped": "all updates done",
                                               "alarms": 0}  # fmt: skip
    assert str(study.folder) not in study.json.read_text()


def test_variants_that_are_not_asked_for_are_read_if_they_are_finished(study, homestretch):
    only = runs.Study(study.recipe, (), (0,), study.folder, ("full",), study.json)
    found, _ = runs.finish_all(only, lambda seed: (runs.FULL, full_vs_paper.PAPER))
    assert set(found[0]) == {"full"}
    runs.finish(study, full_vs_paper.PAPER, 0)
    found, _ = runs.finish_all(only, lambda seed: (runs.FULL, full_vs_paper.PAPER))
    assert set(found[0]) == {"full", "paper"}
    unknown = runs.Study(study.recipe, (), (0,), study.folder, ("papers",), study.json)
    with pytest.raises(UserError, match="no variant 'papers'; there are full, paper"):
        runs.conduct("x", unknown, lambda seed: (runs.FULL, full_vs_paper.PAPER), lambda found: {})


def test_result_files_tell_no_folders_of_the_machine():
    given = ["data.path=/home/me/data/samsum", "/usr/bin/x.py", "recipes/samsum.yaml", "rl.kl.beta=0.1"]
    assert [runs.without_folders(g) for g in given] == ["data.path=samsum", "x.py", "recipes/samsum.yaml", given[-1]]


# --- reading and comparing -------------------------------------------------------------------------------------------


def test_outputs_know_what_is_undefined_and_what_is_flagged(tmp_path):
    rundir = RunDir(tmp_path / "run")
    evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.2})
    outputs = seeds.read_outputs(rundir)
    assert outputs.primaries == ("fact_f1", "rouge_l")
    assert np.isnan(outputs.arms["rl/raw"]["entity_precision"]).tolist() == [True] + [False] * (N - 1)
    assert outputs.arms["sft/raw"]["wrong_speaker"].tolist() == [1.0] * N
    assert outputs.arms["rl/raw"]["wrong_speaker"].tolist() == [0.0] * N
    assert np.nan_to_num(outputs.arms["rl/raw"]["omission"], nan=9).tolist() == [9.0, 1.0] * (N // 2)
    assert outputs.higher_is_better["omission"] is False


def test_full_against_paper_is_paired_by_seed(study, homestretch):
    runs.conduct("full_vs_paper", study, lambda seed: (runs.FULL, full_vs_paper.PAPER), full_vs_paper.measure)
    result = read_json(study.json)
    rows = {(row["a"], row["metric"]): row for row in result["settings"]["small"]["contrasts"]}
    row = rows["full rl/raw", "fact_f1"]
    assert [seed["difference"] for seed in row["seeds"]] == pytest.approx([0.1, 0.1])
    assert [seed["n"] for seed in row["seeds"]] == [N, N]
    assert row["mean"] == pytest.approx(0.1)
    assert rows["full rl/post", "rouge_l"]["mean"] == pytest.approx(0.05)
    assert rows["full rl/raw", "entity_precision"]["seeds"][0]["n"] == N - 1
    assert rows["full rl/raw", "wrong_speaker"]["higher_is_better"] is False
    primary = {key for key, row in rows.items() if row["primary"]}
    assert primary == {(f"full {arm}", m) for arm in ("rl/raw", "rl/post") for m in ("fact_f1", "rouge_l")}
    levels = result["settings"]["small"]["levels"]
    assert levels["paper rl/raw"]["rouge_l"] == pytest.approx([0.45, 0.455])
    text = report.study_section("full_vs_paper", result)
    assert "| C5: full rl/raw - paper rl/raw | fact_f1 | +0.100 +0.100 | +0.100" in text
    assert "RL shipped update: full-0 4 of 8" in text


def test_runs_with_two_sft_models_are_no_pair(study, homestretch):
    found, _ = runs.finish_all(study, lambda seed: (runs.FULL, full_vs_paper.PAPER))
    assert full_vs_paper.measure(found)["sft_outputs_agree"] == [1.0, 1.0]
    evaluated(found[1]["paper"], {"sft/raw": 0.0, "sft/post": 0.0, "rl/raw": 0.1, "rl/post": 0.1}, seed=1,
              sft_text="other")  # fmt: skip
    measured = full_vs_paper.measure(found)
    assert measured["sft_outputs_agree"] == [1.0, 0.0]  # one model, but other arithmetic
    assert "alike in both runs on 0.0% of the examples" in full_vs_paper.section(measured | {"runs": {}})
    (found[1]["paper"].sft_dir / "model.safetensors").write_text("another model")
    with pytest.raises(UserError, match="SFT models are not the same"):
        full_vs_paper.measure(found)
    with pytest.raises(UserError, match="no seed has both runs"):
        full_vs_paper.measure({0: {"full": found[0]["full"]}})


def test_runs_on_other_examples_are_not_compared(tmp_path):
    outputs = []
    for seed in (0, 1):
        rundir = RunDir(tmp_path / str(seed))
        evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.1}, seed=seed)
        outputs.append(seeds.read_outputs(rundir))
    with pytest.raises(UserError, match="other examples"):
        seeds.difference(outputs[0], "rl/raw", outputs[1], "rl/raw", "fact_f1")


def test_holm_is_within_the_primaries_and_within_the_others():
    def row(p, is_primary):
        return {"p": p, "primary": is_primary, "these_models": {"p": 0.01}}

    rows = [row(0.01, True), row(0.04, True), row(0.03, False), row(None, False)]
    seeds.add_holm(rows)
    assert [r["p_holm"] for r in rows] == [0.02, 0.04, 0.03, None]
    assert [r["these_models"]["p_holm"] for r in rows] == [0.02] * 4


def test_rl_is_compared_with_each_arm_and_costs_are_means(tmp_path):
    found = {}
    for seed in (0, 1):
        rundir = RunDir(tmp_path / str(seed))
        costs = {arm: dict.fromkeys(arms.COSTS.values(), 10 * seed) for arm in ("sft", "rl", "dpo")}
        costs["rl"]["trained_tokens"] = None
        evaluated(rundir, {"sft/raw": 0.0, "rl/raw": 0.2, "dpo/raw": 0.05, "dpo/post": 0.1}, seed=seed,
                  more={"costs": costs})  # fmt: skip
        found[seed] = {"arms": rundir}
    measured = arms.measure(found)
    rows = {(row["name"], row["b"], row["metric"]): row for row in measured["contrasts"]}
    assert set(rows) == {(n, b, m) for n, b in (("C1", "sft/raw"), ("C4", "dpo/raw")) for m in ("fact_f1", "rouge_l")}
    assert rows["C4", "dpo/raw", "fact_f1"]["mean"] == pytest.approx(0.15)
    assert measured["costs"]["rl"]["training_seconds"] == 5
    assert measured["costs"]["rl"]["trained_tokens"] is None
    assert "| dpo | 5 |" in arms.section(measured | {"runs": {}})


def test_fewer_arms_are_another_run():
    assert arms.variant(arms.ARMS).name == "arms"
    assert arms.variant(("dpo", "best_of_n")) == runs.Variant(
        "arms-dpo-best_of_n", ("baselines.arms=[dpo, best_of_n]",), shares="rl"
    )


# --- label fractions -------------------------------------------------------------------------------------------------


def test_fewer_labels_keep_the_steps_and_the_documents_of_a_built_in_task(study):
    full, few = label_fraction.variants(study, [20], 0)
    config = study.config(few, 0)
    assert full is runs.FULL
    assert (config.data.sizes.train, config.data.sizes.prompts) == (10, 60)
    assert config.sft.max_steps == 4 * 7  # 50 examples in batches of 8
    assert config.sft.num_epochs * 2 >= 28
    assert config.sft.eval_every == 7
    assert (config.reward.max_steps, config.reward.num_epochs) == (10, 4)
    labelled = {example.source for example in load_splits(config).train}
    assert labelled < {example.source for example in load_splits(study.config(full, 0)).train}


@pytest.fixture
def file_study(tmp_path):
    def rows(name, num):
        return [{"id": f"{name}-{i}", "dialogue": f"Ann: {name} {i}", "summary": [f"{i}", "x"]} for i in range(num)]

    folder = tmp_path / "data"
    for split, num in (("train", 40), ("validation", 5), ("test", 5)):
        write_jsonl(folder / f"{split}.jsonl", rows(split, num))
    recipe = tmp_path / "files.yaml"
    recipe.write_text(
        f"data: {{path: '{folder}', max_examples: {{train: 30}}, "
        "columns: {reference: summary, document: dialogue}}\n"
        "model: {new: {model_type: llama}}\n"
    )
    return runs.Study(recipe, (), (0,), tmp_path / "out" / "files", (), tmp_path / "result.json")


def test_documents_that_lose_their_labels_become_prompts(file_study):
    whole = load_splits(file_study.config(runs.FULL, 0))
    drawn = {}
    for variant in label_fraction.variants(file_study, [10, 30], 0)[1:]:
        splits = load_splits(file_study.config(variant, 0))
        drawn[variant.name] = {example.id for example in splits.train}
        assert {e.id for e in (*splits.train, *splits.prompts)} == {e.id for e in whole.train}
        assert not any(example.references for example in splits.prompts)
        references = {example.id: example.references for example in whole.train}
        assert all(example.references == references[example.id] for example in splits.train)
        assert splits.test == whole.test
    assert [len(ids) for ids in drawn.values()] == [3, 9]
    assert drawn["labels-10"] < drawn["labels-30"]


def test_what_cannot_be_kept_in_files_is_refused(file_study):
    study = runs.Study(file_study.recipe, ("data.template='{id} {document}'",), (0,), file_study.folder, (),
                       file_study.json)  # fmt: skip
    with pytest.raises(UserError, match=r"data\.template uses \{id\}"):
        label_fraction.variants(study, [10], 0)


def test_a_gain_with_few_labels_is_compared_with_the_gain_with_all(tmp_path):
    found = {}
    for seed in (0, 1):
        for name, lift in (("full", 0.05), ("labels-10", 0.2)):
            rundir = RunDir(tmp_path / f"{name}-{seed}")
            evaluated(rundir, {"sft/raw": 0.0, "rl/raw": lift}, seed=seed)
            found.setdefault(seed, {})[name] = rundir
    measured = label_fraction.measure(found)
    rows = {(row["a"], row["metric"]): row["mean"] for row in measured["contrasts"]}
    assert rows["labels-10 rl/raw", "fact_f1"] == pytest.approx(0.2)
    assert rows["full rl/raw", "fact_f1"] == pytest.approx(0.05)
    assert rows["labels-10's gain", "fact_f1"] == pytest.approx(0.15)
    assert "labels-10's gain - full's" in label_fraction.section(measured | {"runs": {}})


# --- over-optimisation -----------------------------------------------------------------------------------------------


def hacked(rundir, truths, *, kept, alarms=()):
    """RL whose reward rises by 1 a validation, every 2 updates, at a KL of the update."""
    for i, truth in enumerate(truths):
        for update in (2 * i - 1, 2 * i) if i else ():
            rundir.log_metrics("rl", update, {"rl/kl": float(update), "rl/score": 0.1 * update})
        row = {"validation/score": 0.5 + i, "validation/selection": 0.6, "validation/term/fact_f1": truth}
        rundir.log_metrics("rl", 2 * i, row)
    rundir.log_metrics("sft", 1, {"sft/loss": 1.0})
    rundir.mark_done("rl", {"updates": 8, "kept_update": kept, "stopped": "x", "alarms": list(alarms), "seconds": 1.0})
    return rundir


@pytest.fixture
def curves(tmp_path):
    alarm = {"update": 4, "kind": "divergence", "sentence": "...", "action": "stopped"}
    return {
        seed: {
            "guard": hacked(RunDir(tmp_path / f"g{seed}"), [0.7, 0.8, 0.75], kept=2, alarms=[alarm]),
            "no_guard": hacked(RunDir(tmp_path / f"n{seed}"), [0.7, 0.8, 0.6, 0.5 - 0.1 * seed], kept=2),
        }
        for seed in (0, 1)
    }


def test_a_curve_is_read_at_the_validations(curves):
    one = over_optimisation.curve(curves[0]["no_guard"])
    assert one["update"] == [0, 2, 4, 6]
    assert one["kl"] == [0.0, 1.5, 3.5, 5.5]
    assert one["reward"] == pytest.approx([0.15, 0.15, 0.35, 0.55])
    assert one["greedy"] == [0.5, 1.5, 2.5, 3.5]
    found = over_optimisation.outcome(one)
    assert found == pytest.approx({"updates": 6, "kl": 5.5, "reward": 0.4, "greedy": 3.0, "truth": -0.2,
                                   "best_truth": 0.1, "shipped_truth": 0.1, "alarms": 0})  # fmt: skip


def test_what_the_guard_saves_is_what_it_ships_against_the_end_without_it(curves, tmp_path):
    measured = over_optimisation.measure(curves) | {"seeds": [0, 1]}
    assert measured["saved"].keys() == {"guard"}
    assert measured["saved"]["guard"]["mean"] == pytest.approx((0.3 + 0.4) / 2)
    assert measured["outcomes"]["guard"]["alarms"]["mean"] == 1
    json.dumps(measured, allow_nan=False)
    assert (
        "| no_guard | 6.0 | 5.50 | +0.400 [+0.400, +0.400] | +3.000 [+3.000, +3.000] | -0.250"
        in over_optimisation.section(measured)
    )
    for name in ("a.svg", "b.svg"):
        over_optimisation.draw(measured, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert b"no_guard" in drawn


def test_the_variants_share_the_reward_and_end_after_rl(study):
    configs = {v.name: study.config(v, 0) for v in over_optimisation.variants(12)}
    assert all(v.shares == "reward" and v.until == "rl" for v in over_optimisation.variants(12))
    assert configs["guard"].rl.kl.beta > 0
    assert configs["guard_no_kl"].rl.kl.beta == configs["no_guard"].rl.kl.beta == 0
    assert configs["guard_no_kl"].rl.guard == configs["guard"].rl.guard
    assert configs["no_guard"].rl.guard.max_alarms == 0
    assert {config.rl.num_updates for config in configs.values()} == {12}


# --- human labels ----------------------------------------------------------------------------------------------------


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


# --- pages -----------------------------------------------------------------------------------------------------------


def test_every_study_has_its_place_in_a_page_and_a_module():
    assert {path.stem for path in (ROOT / "benchmarks" / "studies").glob("*.py")} == {
        *report.STUDIES, "__init__", "runs", "seeds", "tables",
    }  # fmt: skip
    for name, page in report.STUDIES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text.count(f"<!-- results: {name} -->") == text.count(f"<!-- /results: {name} -->") == 1


def test_a_table_replaces_what_stands_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results: a -->old<!-- /results: a -->\nafter\n")
    for _ in range(2):
        report.put(page, "results: a", "new")
    assert page.read_text() == "before\n<!-- results: a -->\n\nnew\n\n<!-- /results: a -->\nafter\n"
    with pytest.raises(ValueError, match="each once"):
        report.put(page, "results: b", "new")
