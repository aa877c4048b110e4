"""Runs with fewer labels."""

from __future__ import annotations

import pytest

from benchmarks.studies import label_fraction, runs
from homestretch.data import load_splits
from homestretch.rundir import RunDir, write_jsonl
from homestretch.types import UserError
from study_helpers import evaluated


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
