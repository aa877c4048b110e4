"""Drawing labelled completions: balance, refusals, seeds, rows; and the stage on tiny failure modes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from homestretch.config import DataConfig, ModelConfig, NegativesConfig, OnPolicyConfig, RunConfig
from homestretch.rewards.judged import (
    EDITED_REFERENCE,
    balanced_negatives,
    edited_reference,
    judged_from_row,
    judged_to_row,
    negative,
    reference_rows,
    stable_seed,
)
from homestretch.rundir import RunDir, read_jsonl
from homestretch.stages import negatives as stage
from homestretch.types import Completion, Edit, Example, FailureMode, Judged, UserError


def make_mode(mode_name, edit):
    """A failure mode whose `corrupt` is the function given: (example, rng) -> Edit or None."""

    class Mode(FailureMode):
        name = mode_name

        def corrupt(self, example, rng):
            return edit(example, rng)

    return Mode()


def prefixed(word):
    def edit(example, rng):
        return Edit(Completion(f"{word} {rng.integers(10**9)} {example.reference}"), (0, len(word)), f"+ {word}")

    return edit


def only_every_tenth(example, rng):
    return prefixed("rare")(example, rng) if int(re.sub(r"\D", "", example.id)) % 10 == 0 else None


COMMON = [make_mode(f"common_{i}", prefixed(f"common{i}")) for i in range(4)]
RARE = make_mode("rare", only_every_tenth)
NEVER = make_mode("never", lambda example, rng: None)


def make_examples(n):
    return [Example(f"e{i}", f"Ada: number {i}.", f"Ada: number {i}.", references=(f"It is {i}.",)) for i in range(n)]


def draw_all(examples, modes, per_example, seed=0):
    counts, rows = Counter(), []
    for example in examples:
        made = balanced_negatives(example, modes, counts, per_example=per_example, seed=seed)
        counts.update(row.mode for row in made)
        rows += made
    return rows


# --- drawing ---


def test_modes_that_always_apply_end_balanced():
    counts = Counter(row.mode for row in draw_all(make_examples(101), COMMON, 3))
    assert sum(counts.values()) == 303
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_mode_that_rarely_applies_is_used_wherever_it_does():
    rows = draw_all(make_examples(100), [*COMMON, RARE], 2)
    counts = Counter(row.mode for row in rows)
    assert counts["rare"] >= 9  # at the very first example all modes tie, and chance decides
    assert sum(counts.values()) == 200


def test_an_example_gets_each_mode_once_and_fewer_when_modes_run_out():
    rows = draw_all(make_examples(5), [*COMMON, NEVER], 10)
    assert Counter((row.example_id, row.mode) for row in rows).most_common(1)[0][1] == 1
    assert len(rows) == 20


def test_modes_that_make_the_same_text_count_once():
    same = [make_mode(name, lambda e, rng: Edit(Completion("same"), (0, 4))) for name in ("one", "two")]
    assert len(balanced_negatives(make_examples(1)[0], same, Counter(), per_example=2, seed=0)) == 1


def test_the_rows_seed_makes_the_edit_again():
    example = make_examples(1)[0]
    row = negative(example, COMMON[0], seed=3)
    again = COMMON[0].corrupt(example, np.random.default_rng(row.seed))
    assert again.completion == row.completion
    assert negative(example, COMMON[0], seed=4).completion != row.completion


def test_half_of_the_modes_start_from_the_edited_positive():
    modes = [make_mode(f"m{i}", lambda e, rng: Edit(Completion(e.reference + " x"), (0, 1))) for i in range(40)]
    example = make_examples(1)[0]
    edited = Judged(example.id, Completion("An edited reference."), EDITED_REFERENCE, 1.0)
    texts = [negative(example, mode, seed=0, edited=edited).completion.text for mode in modes]
    assert 10 <= texts.count("An edited reference. x") <= 30
    assert texts.count(example.reference + " x") == 40 - texts.count("An edited reference. x")


def test_an_edit_does_not_change_when_a_mode_is_added():
    examples = make_examples(20)
    few = {(r.example_id, r.mode): r for r in draw_all(examples, COMMON, 4)}
    many = {(r.example_id, r.mode): r for r in draw_all(examples, [RARE, *COMMON], 5)}
    assert few.items() <= many.items()


def test_seeds_are_the_same_in_every_process():
    assert stable_seed(0, "e1", "rare") == 2405049332
    assert stable_seed(0, "e1", "rare") != stable_seed(0, "e1r", "are")


def test_an_edit_that_gives_back_a_reference_is_no_negative_unless_it_does_not_end():
    example = Example("e", "s", "s", references=("One.", "Two."))
    same = make_mode("same", lambda e, rng: Edit(Completion("Two."), (0, 4)))
    endless = make_mode("endless", lambda e, rng: Edit(Completion("Two.", terminated=False), (4, 4)))
    assert negative(example, same, seed=0) is None
    assert negative(example, endless, seed=0).completion == Completion("Two.", terminated=False)


def test_a_plug_ins_span_outside_its_text_is_a_user_error():
    wrong = make_mode("wrong", lambda e, rng: Edit(Completion("abc"), (2, 9)))
    with pytest.raises(UserError, match=r"'wrong'.*\(2, 9\).*'e0'"):
        negative(make_examples(1)[0], wrong, seed=0)


def test_references_are_terminated_positives():
    rows = reference_rows(Example("e", "s", "s", references=("One.", "Two.")))
    assert [(row.completion, row.mode, row.label) for row in rows] == [
        (Completion("One."), "reference", 1.0),
        (Completion("Two."), "reference", 1.0),
    ]


def test_edited_references_come_at_their_rate():
    made = [edited_reference(e, prefixed("also"), rate=0.25, seed=0) for e in make_examples(400)]
    rows = [row for row in made if row is not None]
    assert 70 <= len(rows) <= 130
    assert {(row.mode, row.label) for row in rows} == {("edited_reference", 1.0)}
    assert all(edited_reference(e, prefixed("also"), rate=0.0, seed=0) is None for e in make_examples(50))
    assert all(edited_reference(e, prefixed("also"), rate=1.0, seed=0) is not None for e in make_examples(50))


# --- rows ---


def test_rows_survive_json():
    row = Judged("e", Completion("Ünï\ncode", terminated=False), "echo", 0.0, (1, 3), "a -> b", 7)
    assert judged_from_row(json.loads(json.dumps(judged_to_row(row)))) == row


@pytest.mark.parametrize(
    ("change", "message"), [({"mode": None}, "no 'mode'"), ({"label": 2}, "label 2"), ({"text": None}, "no 'text'")]
)
def test_a_spoilt_row_is_a_user_error(change, message):
    row = judged_to_row(Judged("e7", Completion("x"), "echo", 0.0)) | change
    row = {key: value for key, value in row.items() if value is not None}
    with pytest.raises(UserError, match=f"'e7'.*{message}"):
        judged_from_row(row)


# --- the stage ---


class Shouting(FailureMode):
    """Detects and makes upper case, so that own samples can be flagged."""

    name = "shouting"

    def corrupt(self, example, rng):
        text = example.reference.upper()
        return Edit(Completion(text), (0, len(text)), "upper case")

    def detect(self, example, completion):
        return float(completion.text.isupper())


def write_split(path, start, n):
    rows = [{"document": f"Ada: number {i}.", "reference": f"it is number {i}."} for i in range(start, start + n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_stage(tmp_path, monkeypatch):
    for name, start, n in (("train", 0, 30), ("validation", 100, 12), ("test", 200, 4)):
        write_split(tmp_path / f"{name}.jsonl", start, n)

    def run(modes, *, samples_per_prompt=0, name="run", **settings):
        monkeypatch.setattr(stage, "build_modes", lambda names, corpus: list(modes))
        monkeypatch.setattr(stage, "edited_positive", prefixed("also"))
        config = RunConfig(
            data=DataConfig(path=str(tmp_path)),
            model=ModelConfig(path="model"),
            negatives=NegativesConfig(on_policy=OnPolicyConfig(samples_per_prompt=samples_per_prompt), **settings),
        )
        rundir = RunDir(tmp_path / name)
        summary = stage.run(config, rundir)
        rows = {split: read_jsonl(rundir.negatives_dir / f"{split}.jsonl") for split in ("train", "validation")}
        return summary, rows

    return run


def test_train_gets_per_example_and_validation_every_mode(run_stage):
    summary, rows = run_stage(COMMON, per_example=2, max_validation_examples=5, edited_positives=1.0)
    train, validation = Counter(r["mode"] for r in rows["train"]), Counter(r["mode"] for r in rows["validation"])
    assert train["reference"] == train["edited_reference"] == 30
    assert sum(train[mode.name] for mode in COMMON) == 60
    assert validation == {"reference": 5, "edited_reference": 5} | {mode.name: 5 for mode in COMMON}
    assert summary["train"] == train
    assert all(r["label"] == (r["mode"] in ("reference", "edited_reference")) for r in rows["train"])


@pytest.mark.parametrize(("preset", "has_edited"), [("paper", False), ("full", True)])
def test_the_paper_preset_has_no_edited_positives(run_stage, preset, has_edited):
    summary, _ = run_stage(COMMON, preset=preset, samples_per_prompt=0)
    assert ("edited_reference" in summary["train"]) == has_edited


def test_the_same_seed_writes_the_same_files(run_stage):
    assert run_stage([*COMMON, RARE], name="a") == run_stage([*COMMON, RARE], name="b")


def test_classes_are_printed_with_examples_and_a_mode_that_never_applies_is_said(run_stage, capsys):
    summary, _ = run_stage([*COMMON, NEVER], edited_positives=0.0)
    out, err = capsys.readouterr()
    assert summary["modes_that_never_apply"] == ["never"]
    assert "never applies to no train example" in err
    assert out.count("<- + common2") == 3


def test_no_negative_at_all_is_a_user_error_and_writes_nothing(run_stage, tmp_path):
    with pytest.raises(UserError, match=r"never.*negatives\.include"):
        run_stage([NEVER])
    assert not (tmp_path / "run" / "negatives").exists()


def test_a_mode_with_the_name_of_a_positive_is_refused(run_stage):
    with pytest.raises(UserError, match="'reference'"):
        run_stage([make_mode("reference", prefixed("x"))])


def fake_sampler(monkeypatch):
    """Samples that shout nonsense, are fine, or do not end, in turn; and a model that is not loaded."""
    texts = [("ZZZ", True), ("it is number", True), ("qqq", True), ("it is", False)]

    drawn = []

    def generate(lm, examples, *, num_samples, seed, **rest):
        picked = [[texts[(i + j) % 4] for j in range(num_samples)] for i in range(len(examples))]
        drawn.extend(one for group in picked for one in group)
        return [[Completion(*one) for one in group] for group in picked]

    monkeypatch.setattr("homestretch.rollouts.sampler.generate", generate)
    monkeypatch.setattr("homestretch.models.load_language_model", lambda path, config: None)
    return drawn


def test_own_samples_become_rows_beside_their_example(run_stage, monkeypatch):
    drawn = fake_sampler(monkeypatch)
    summary, rows = run_stage([Shouting()], samples_per_prompt=4)
    own = [r for r in rows["train"] if r["mode"].startswith("on_policy")]
    bad = [r for r in own if r["mode"] == "on_policy"]
    assert {r["text"] for r in bad} == {"ZZZ", "it is"}
    assert {r["terminated"] for r in bad if r["text"] == "it is"} == {False}
    assert {r["text"] for r in own if r["mode"] == "on_policy_positive"} <= {"it is number"}
    counts = summary["on_policy"]["train"]
    assert counts["samples"] == 120
    assert counts["bad"] + counts.get("good", 0) + counts["unused"] == 120
    unterminated = sum(one["unterminated"] for one in summary["on_policy"].values())
    assert unterminated == sum(not terminated for _, terminated in drawn) > 0
    ids = [r["example_id"] for r in rows["train"]]
    assert sum(a != b for a, b in pairwise(ids)) == 29
    assert any(r["mode"] == "on_policy" for r in rows["validation"])


def test_the_paper_preset_has_no_on_policy_class(run_stage, monkeypatch):
    fake_sampler(monkeypatch)
    summary, rows = run_stage([Shouting()], samples_per_prompt=4, preset="paper")
    assert "on_policy" not in summary
    assert not any(r["mode"].startswith("on_policy") for r in rows["train"])


def test_excerpts_show_the_edit_and_a_missing_end():
    text = "word " * 60 + "Friday" + " tail" * 60
    row = Judged("e", Completion(text, terminated=False), "wrong_date", 0.0, (300, 306), "Monday -> Friday")
    shown = stage.excerpt(row)
    assert "[[Friday]]" in shown
    assert shown.endswith("(no end)   <- Monday -> Friday")
    assert len(shown) < 150
    assert stage.excerpt(Judged("e", Completion("Short."), "reference", 1.0)) == "Short."


def test_a_negative_that_gives_back_the_first_of_several_references_is_none():
    """The modes that start from the edited positive do not see the reference that it was made from."""
    example = replace(make_examples(1)[0], references=("Ann left.", "Ann went away."))
    edited = Judged(example.id, Completion("Ann has left."), EDITED_REFERENCE, 1.0)
    modes = [make_mode(f"m{i}", lambda e, rng: Edit(Completion("Ann left."), (0, 3))) for i in range(20)]
    assert [negative(example, mode, seed=0, edited=edited) for mode in modes] == [None] * 20
