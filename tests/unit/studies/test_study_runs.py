"""The runs of a study: taken in turn, taken over, continued, never run twice; and the pages that show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.studies import full_vs_paper, runs
from homestretch.rundir import RunDir, read_json, read_jsonl
from homestretch.types import UserError

ROOT = Path(__file__).resolve().parents[3]


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
    with pytest.raises(UserError, match=r"made with another recipe: sft\.num_epochs: 4 -> 9"):
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
