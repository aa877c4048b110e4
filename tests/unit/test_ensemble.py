"""Reward ensembles: the formula, one scale, files, what RL logs of them, what the audit says, and too few classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from homestretch.audit_findings import other_findings
from homestretch.config import LengthConfig
from homestretch.data import Splits
from homestretch.report.curves import curves
from homestretch.rewards.audit import AuditSamples
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.composition import RewardComposition
from homestretch.rewards.disagreement import with_disagreement
from homestretch.rewards.ensemble import RewardEnsemble, conservative
from homestretch.rewards.judged import judged_to_row
from homestretch.rewards.leave_out import ensemble_folds
from homestretch.rewards.length import LengthModel
from homestretch.rewards.reward_model import load_reward_model
from homestretch.rewards.training import RewardData
from homestretch.rundir import RunDir, read_json, read_jsonl, write_jsonl
from homestretch.stages import reward as reward_stage
from homestretch.stages import rl
from homestretch.types import Completion, Judged, UserError
from homestretch.validation import validate
from tiny import tiny_config, tiny_examples

# --- the formula -----------------------------------------------------------------------------------------------------


class Member:
    """A reward with known values, one a completion's text."""

    lm = None

    def __init__(self, values, calibration=None):
        self.values = values
        self.calibration = calibration or Calibration()

    def raw(self, _, completions):
        return np.array([self.values[c.text] for c in completions])

    def __call__(self, examples, completions):
        return self.calibration.reward(self.raw(examples, completions), np.zeros(len(completions)))


def ensemble_of(rewards_MN, penalty=0.5, calibration=None):
    """An ensemble whose members give completion "0", "1", ... the columns' values."""
    members = tuple(Member({str(i): x for i, x in enumerate(row)}) for row in rewards_MN)
    folds = tuple((f"class_{i}",) for i in range(len(members)))
    return RewardEnsemble(members, folds, penalty, calibration or Calibration())


def texts(count):
    return [Completion(str(i)) for i in range(count)]


@pytest.mark.parametrize("penalty", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("num_members", [1, 2, 5])
def test_it_is_the_mean_less_a_share_of_the_sd(num_members, penalty):
    rewards = np.random.default_rng(0).normal(size=(num_members, 7))
    found = ensemble_of(rewards, penalty).raw(tiny_examples(7), texts(7))
    for n in range(7):
        column = [rewards[m, n] for m in range(num_members)]
        mean = sum(column) / num_members
        sd = (sum((x - mean) ** 2 for x in column) / num_members) ** 0.5
        assert found[n] == pytest.approx(mean - penalty * sd)


def test_without_a_penalty_it_is_the_mean_and_two_members_at_one_are_the_worse():
    rewards = np.random.default_rng(1).normal(size=(2, 9))
    assert conservative(rewards, 0.0) == pytest.approx(rewards.mean(axis=0))
    assert conservative(rewards, 1.0) == pytest.approx(rewards.min(axis=0))


def test_one_member_is_the_plain_reward():
    rewards = np.random.default_rng(2).normal(size=(1, 5))
    ensemble = ensemble_of(rewards, penalty=3.0)
    assert np.array_equal(ensemble(tiny_examples(5), texts(5)), rewards[0])
    assert ensemble.scored(tiny_examples(5), texts(5)).terms["ensemble_sd"] == pytest.approx(0)


def test_members_are_put_on_one_scale_before_they_are_compared():
    logits = np.array([[1.0, 2.0, 3.0], [100.0, 200.0, 300.0]])
    ensemble = ensemble_of(logits)
    assert ensemble.scored(tiny_examples(3), texts(3)).terms["ensemble_sd"].min() > 10
    for member, scale in zip(ensemble.members, (1.0, 100.0), strict=True):
        member.calibration = Calibration(center=2 * scale, scale=scale)
    scored = ensemble.scored(tiny_examples(3), texts(3))
    assert scored.terms["ensemble_sd"] == pytest.approx(0)
    assert scored.scores == pytest.approx([-1, 0, 1])


def test_its_own_calibration_comes_last_and_the_terms_are_in_the_members_units():
    ensemble = ensemble_of(np.array([[1.0, 4.0], [3.0, 4.0]]), 0.5, Calibration(center=1.0, scale=0.5))
    scored = ensemble.scored(tiny_examples(2), texts(2))
    assert scored.scores == pytest.approx([(2 - 0.5 * 1 - 1) / 0.5, (4 - 1) / 0.5])
    assert np.array_equal(scored.scores, ensemble(tiny_examples(2), texts(2)))
    assert (scored.terms["ensemble_mean"].tolist(), scored.terms["ensemble_sd"].tolist()) == ([2, 4], [1, 0])


def test_the_composition_logs_what_an_ensemble_is_made_of():
    def composition(reward):
        return RewardComposition(reward, -3.0, LengthModel(np.log(4), 0.0), LengthConfig(coefficient=0.0), "none")

    ensemble = ensemble_of(np.array([[1.0, 2.0], [3.0, 2.0]]))
    completions = [Completion("0"), Completion("1", terminated=False)]
    scored = composition(ensemble)(tiny_examples(2), completions)
    assert list(scored.terms) == ["reward_model", "ensemble_mean", "ensemble_sd", "shaped", "length_penalty"]
    assert scored.scores.tolist() == [1.5, -3.0]
    assert scored.terms["ensemble_sd"].tolist() == [1, 0]
    plain = composition(ensemble.__call__)(tiny_examples(2), completions)
    assert list(plain.terms) == ["reward_model", "shaped", "length_penalty"]
    assert np.array_equal(plain.scores, scored.scores)


# --- the audit -------------------------------------------------------------------------------------------------------


def audited(sample_rewards_MPK, selection_PK, judged_rewards_MN=((0.0, 1.0), (0.0, -1.0))):
    """The audit of an ensemble with these rewards, on samples "s0", "s1", ... and on a reference and an echo."""
    rewards = np.asarray(sample_rewards_MPK)
    _, num_prompts, num_samples = rewards.shape
    members = []
    for own, judged in zip(rewards, judged_rewards_MN, strict=True):
        values = {f"s{i}": x for i, x in enumerate(own.ravel())} | {"good": judged[0], "bad": judged[1]}
        members.append(Member(values))
    examples = tiny_examples(num_prompts)
    rows = [
        Judged(examples[0].id, Completion("good"), "reference", 1.0),
        Judged(examples[0].id, Completion("bad"), "echo", 0.0),
    ]
    samples = [[Completion(f"s{p * num_samples + k}") for k in range(num_samples)] for p in range(num_prompts)]
    ensemble = RewardEnsemble(tuple(members), ((),) * len(members), 0.5)
    return with_disagreement(
        {"notes": []}, ensemble, RewardData((), (), examples, rows), AuditSamples(examples, samples, ()),
        selection=lambda e, c: np.asarray(selection_PK).ravel(), seed=0,
    )  # fmt: skip


def test_the_audit_measures_the_disagreement():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 6, 4))
    judged = ((0.0, 1.0), (0.2, -1.0), (0.1, 0.0))
    found = audited(rewards, rng.normal(size=(6, 4)), judged)["ensemble"]
    assert found["num_members"] == 3
    assert found["mean_sd"]["samples"] == pytest.approx(rewards.std(axis=0).mean())
    assert found["mean_sd"]["references"] == pytest.approx(np.std([0.0, 0.2, 0.1]))
    within = np.sqrt(rewards.mean(axis=0).var(axis=1, ddof=1).mean())
    assert found["within_prompt_sd"] == pytest.approx(within)
    assert found["disagreement_auc"] == {"echo": 1.0}, "they differ more on the echo than on the reference"
    json.dumps(found, allow_nan=False)


def test_members_that_agree_and_members_that_do_not():
    rng = np.random.default_rng(1)
    order, selection = rng.normal(size=(5, 6)), rng.normal(size=(5, 6))
    alike = audited([order, 2 * order + 1], selection)["ensemble"]
    assert alike["member_tau"] == {"mean": pytest.approx(1), "lowest": pytest.approx(1)}
    apart = audited([order, -order, order], selection, ((0, 1),) * 3)["ensemble"]
    assert apart["member_tau"] == {"mean": pytest.approx(-1 / 3), "lowest": pytest.approx(-1)}


@pytest.mark.parametrize(("sign", "is_bad", "words"), [(-1, False, "as they should"), (1, True, "works against it")])
def test_it_says_whether_disagreement_goes_with_what_is_bad(sign, is_bad, words):
    rng = np.random.default_rng(2)
    gap = rng.random((8, 5))  # twice the SD of two members that are so far apart
    audit = audited([gap / 2, -gap / 2], sign * gap)
    assert audit["ensemble"]["sd_selection_tau"]["tau"] == pytest.approx(sign)
    finding = other_findings(audit)[-1]
    assert (finding.is_bad, finding.stops) == (is_bad, False)
    assert words in finding.meaning
    both_ways = gap * np.repeat([1, -1], 4)[:, None]
    unclear = other_findings(audited([gap / 2, -gap / 2], both_ways))[-1]
    assert "not shown" in unclear.meaning
    assert not unclear.is_bad


def test_what_cannot_be_measured_has_its_reason():
    audit = audited(np.zeros((2, 3, 4)), np.zeros((3, 4)))
    assert audit["ensemble"]["member_tau"] == {"mean": None, "lowest": None}
    assert audit["ensemble"]["sd_selection_tau"]["tau"] is None
    assert [note.partition(":")[0] for note in audit["notes"]] == [
        "ensemble, members' agreement", "ensemble, SD and selection score",
    ]  # fmt: skip
    assert len(other_findings(audit)) == 1  # the SD, which is 0
    assert other_findings({"notes": []}) == []


# --- too few classes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        (["echo", "shuffled"], r"there are 2 \(echo, shuffled\); set reward.ensemble.num_members=2, or add classes"),
        (["echo"], r"there is 1 \(echo\); set reward.ensemble.num_members=1 \(no ensemble\), or add"),
        ([], r"there are none; set reward.ensemble.num_members=1 \(no ensemble\), or add"),
    ],
)
def test_too_few_classes_are_refused_in_one_line(modes, words):
    with pytest.raises(UserError, match=r"^reward.ensemble.num_members: 3 members need .*" + words):
        ensemble_folds(modes, 3)


def test_every_class_is_left_out_once():
    folds = ensemble_folds(["echo", "run_on", "shuffled", "truncation", "wrong_date"], 3)
    assert len(folds) == 3
    assert sorted(mode for fold in folds for mode in fold) == [
        "echo", "run_on", "shuffled", "truncation", "wrong_date",
    ]  # fmt: skip


def test_more_members_than_the_recipe_has_classes_are_told_before_anything_is_trained(tmp_path):
    def problems(num_members):
        config = tiny_config(
            data={"task": "chats", "sizes": {"train": 4, "prompts": 1, "validation": 2, "test": 2},
                  "max_prompt_tokens": 128, "max_completion_tokens": 64},
            negatives={"preset": "paper"}, reward={"ensemble": {"num_members": num_members}},
            output_dir=str(tmp_path),
        )  # fmt: skip
        return [line for line in validate(config) if "ensemble" in line]

    assert problems(5) == []
    assert len(problems(6)) == 1
    assert "6 members" in problems(6)[0]


@pytest.mark.parametrize("bad", [{"num_members": 0}, {"disagreement_penalty": -0.1}, {"num_member": 2}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=r"ensemble"):
        tiny_config(reward={"ensemble": bad})


# --- the whole way ---------------------------------------------------------------------------------------------------


def labelled(examples):
    """References and three classes of failures."""
    return [
        row
        for i, e in enumerate(examples)
        for row in (
            Judged(e.id, Completion(e.reference), "reference", 1.0),
            Judged(e.id, Completion(e.reference[:12], terminated=False), "truncation", 0.0),
            Judged(e.id, Completion(examples[i - 1].reference), "irrelevant", 0.0),
            Judged(e.id, Completion(" ".join(reversed(e.reference.split()))), "shuffled", 0.0),
        )
    ]


@pytest.fixture(scope="module", params=["llama", "lora"])
def trained(request, tiny_folders, tmp_path_factory):
    """A run whose reward is an ensemble of two, with members of their own trunks and with adapters on one."""
    rundir = RunDir(tmp_path_factory.mktemp(request.param))
    rundir.sft_dir.symlink_to(tiny_folders["llama"])
    examples = tiny_examples(8)
    for split in ("train", "validation"):
        write_jsonl(rundir.negatives_dir / f"{split}.jsonl", map(judged_to_row, labelled(examples)))
    reward = {
        "ensemble": {"num_members": 2, "disagreement_penalty": 0.25}, "optimizer": {"lr": 1e-2}, "num_epochs": 3,
        "prompts_per_batch": 4, "audit": {"num_prompts": 4, "samples_per_prompt": 3},
        "lora": {"r": 4, "alpha": 8} if request.param == "lora" else None,
    }  # fmt: skip
    config = tiny_config(
        reward=reward, rl={"num_updates": 1, "critic_warmup_updates": 0, "prompts_per_update": 2, "num_minibatches": 1,
                           "completions_per_prompt": 2, "validate_every": 1},
        evaluate={"selection_metrics": ("rouge_l",)}, seed=1,
        data={"task": "chats", "template": "{document}\nSummary:", "max_prompt_tokens": 64,
              "max_completion_tokens": 16},
    )  # fmt: skip
    splits = Splits(tuple(examples), tuple(examples), (), ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward_stage, "load_splits", lambda _: splits)
        summary = reward_stage.run(config, rundir)
    return config, rundir, splits, summary


def test_members_are_written_and_what_is_loaded_is_what_was_audited(trained):
    config, rundir, splits, summary = trained
    assert summary["num_members"] == 2
    assert sorted(p.name for p in rundir.reward_dir.iterdir()) == ["audit.json", "ensemble.json", "members"]
    assert sorted(p.name for p in (rundir.reward_dir / "members").iterdir()) == ["1", "2"]
    files = [p.suffix for p in rundir.reward_dir.rglob("*") if p.is_file()]
    assert set(files) <= {".json", ".safetensors", ".jinja"}
    assert not list(rundir.path.glob(".reward*"))

    written = read_json(rundir.reward_dir / "ensemble.json")
    assert sorted(mode for fold in written["left_out"] for mode in fold) == ["irrelevant", "shuffled", "truncation"]
    loaded = load_reward_model(rundir.reward_dir, config)
    assert isinstance(loaded, RewardEnsemble)
    assert loaded.disagreement_penalty == 0.25
    references = [Completion(e.reference) for e in splits.validation]
    members = [load_reward_model(rundir.reward_dir / "members" / n, config) for n in "12"]
    rewards = np.stack([member(splits.validation, references) for member in members])
    assert not np.allclose(rewards[0], rewards[1])
    assert loaded.raw(splits.validation, references) == pytest.approx(
        rewards.mean(axis=0) - 0.25 * rewards.std(axis=0), abs=1e-5
    )
    for one in (*members, loaded):
        assert one(splits.validation, references).mean() == pytest.approx(0, abs=1e-4), "0 is a reference's mean"

    audit = read_json(rundir.audit_path)
    assert audit["ensemble"]["num_members"] == 2
    assert audit["ensemble"]["mean_sd"]["references"] == pytest.approx(rewards.std(axis=0).mean(), abs=1e-4)
    assert [row["left_out"] for row in audit["leave_one_out"]] == [[], *written["left_out"]]
    assert {entry["leave_one_out_auc"] is None for entry in audit["classes"].values()} == {False}
    assert {"reward/loss", "member_2/loss"} <= {key for row in read_jsonl(rundir.metrics_path) for key in row}


def test_rl_scores_with_all_members_and_logs_their_mean_and_sd(trained, monkeypatch):
    config, rundir, splits, _ = trained
    monkeypatch.setattr(rl, "load_splits", lambda _: splits)
    models = rl.load_models(config, rundir)
    references = [Completion(e.reference) for e in splits.train]
    apart = load_reward_model(rundir.reward_dir, config)
    assert models.reward(splits.train, references) == pytest.approx(apart(splits.train, references), abs=1e-4)
    trunks = {id(member.lm.model) for member in models.reward.members}
    if config.reward.lora:
        assert trunks == {id(models.frozen.model)}, "adapters share the frozen reference's trunk"
        assert [member.adapter for member in models.reward.members] == ["reward_1", "reward_2"]
    else:
        assert len(trunks) == 2

    rundir.drop_metrics("rl")
    rl.run(config, rundir)
    rows = [row for row in read_jsonl(rundir.metrics_path) if row["stage"] == "rl"]
    update = next(row for row in rows if "rl/score" in row)
    assert update["rl/ensemble_sd"] > 0
    assert {"rl/reward_model", "rl/ensemble_mean"} <= set(update)
    validation = next(row for row in rows if "validation/score" in row)
    assert validation["validation/ensemble_sd"] > 0
    assert "Reward ensemble" in {curve.title for curve in curves(rows)[0]}
    without = [{k: v for k, v in row.items() if "ensemble" not in k} for row in rows]
    assert "Reward ensemble" not in {title for part in curves(without) for title in map(str, part)}


def test_a_member_that_is_gone_is_named(trained, tmp_path):
    import shutil

    config, rundir, *_ = trained
    shutil.copytree(rundir.reward_dir, tmp_path / "reward")
    shutil.rmtree(tmp_path / "reward" / "members" / "2")
    with pytest.raises(UserError, match=r"members/2: a member of the reward ensemble is missing; run `homestretch rew"):
        load_reward_model(tmp_path / "reward", config)


def test_fewer_classes_than_members_stop_the_stage_before_training(trained, monkeypatch, tmp_path):
    config, rundir, splits, _ = trained
    again = RunDir(tmp_path)
    again.sft_dir.symlink_to(rundir.sft_dir)
    rows = [row for row in labelled(splits.train) if row.mode in ("reference", "shuffled")]
    for split in ("train", "validation"):
        write_jsonl(again.negatives_dir / f"{split}.jsonl", map(judged_to_row, rows))
    monkeypatch.setattr(reward_stage, "load_splits", lambda _: splits)
    with pytest.raises(UserError, match=r"there is 1 \(shuffled\)"):
        reward_stage.run(config, again)
    assert not again.reward_dir.exists()
