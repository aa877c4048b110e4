"""What an alarm teaches the learned reward: what is mined, what training on it does, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from homestretch.failures import build_modes, mode_names
from homestretch.metrics.overlap import chrf, rouge_l
from homestretch.metrics.scoring import MetricContext
from homestretch.models import load_language_model
from homestretch.refresh import why_not
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.judged import MINED, ON_POLICY_POSITIVE, reference_rows
from homestretch.rewards.refresh import Mined, Refresh, Rule, mine, train_on
from homestretch.rewards.reward_model import (
    attach_reward_model,
    build_reward_model,
    load_reward_model,
    resume_reward_model,
    save_reward_model,
)
from homestretch.rewards.training import RewardData
from homestretch.stages import rl
from homestretch.training import TrainingError
from homestretch.types import Completion, Corpus, Judged, UserError
from tiny import tiny_config, tiny_examples

LEAK = "the the the the the the"


def examples(count=16):
    return [replace(e, references=(e.reference,)) for e in tiny_examples(count)]


def leak(examples, completions):
    return np.array([float(c.text.split().count("the")) for c in completions])


def rule(train):
    context = MetricContext(tiny_config(), train)
    modes = build_modes(mode_names(tiny_config().negatives), Corpus(tuple(train), 0))
    return Rule(modes, rouge_l(context).scorer, chrf(context).scorer, tiny_config().negatives.on_policy)


def mined(reward, *rows, train=None):
    """What `reward` over-rates where a policy writes these texts for every prompt, and the SFT model nearly the
    references."""
    prompts = train or examples()
    texts = [[e.reference[:-1] + " now.", e.reference[:-1] + "."] for e in prompts]
    of_sft = [[Completion(text) for text in row] for row in texts]
    samples = [[row(e) for row in rows] for e in prompts]
    return mine(prompts, samples, of_sft, reward=reward, rule=rule(prompts), note="policy at update 3")


# --- what is mined ---------------------------------------------------------------------------------------------------


def test_what_the_reward_overrates_and_the_rule_calls_bad_is_mined_once():
    found = mined(leak, lambda e: Completion(LEAK), lambda e: Completion(LEAK))
    assert {(row.mode, row.label, row.completion.text) for row in found.rows} == {(MINED, 0.0, LEAK)}
    assert [row.example_id for row in found.rows] == [e.id for e in examples()]
    assert (found.num_mined, found.num_samples, found.num_bad) == (16, 32, 32)
    assert found.prompts == sorted(e.id for e in examples())
    assert found.rows[0].completion.terminated
    assert found.rows[0].note.startswith("policy at update 3, reward 6.00, reference ")
    assert "flags: " in found.rows[0].note


def test_a_bad_sample_that_the_reward_rates_low_is_not_its_fault():
    found = mined(lambda e, c: -leak(e, c), lambda e: Completion(LEAK))
    assert (found.rows, found.num_bad) == ((), 16)


def test_a_sample_that_is_paid_the_floor_is_not_mined():
    found = mined(leak, lambda e: Completion(LEAK, terminated=False))
    assert (found.num_mined, found.num_bad) == (0, 16)


def test_good_samples_of_the_policy_are_positives_and_references_are_left_out():
    found = mined(leak, lambda e: Completion(e.reference[:-1] + ". "), lambda e: Completion(e.reference))
    assert {(row.mode, row.label) for row in found.rows} == {(ON_POLICY_POSITIVE, 1.0)}
    assert all(row.completion.text.endswith(". ") for row in found.rows)


# --- training on it --------------------------------------------------------------------------------------------------


def shuffled(example):
    return " ".join(reversed(example.reference.split()))


def data(train):
    """References against their words in reverse, in training and in validation."""
    rows = [row for e in train for row in (*reference_rows(e), Judged(e.id, Completion(shuffled(e)), "shuffled", 0.0))]
    return RewardData(train, rows, train, rows)


def leaky_rows(train):
    """Labels that make a reward pay for "the"."""
    rng = np.random.default_rng(0)
    for e in train:
        for _ in range(2):
            words = e.reference.split()
            for place in rng.integers(0, len(words), rng.integers(2, 7)):
                words.insert(int(place), "the")
            yield Judged(e.id, Completion(" ".join(words)), "leak", 1.0)
        yield Judged(e.id, Completion(LEAK), "leak", 1.0)
        yield from (replace(row, label=label) for row, label in zip(data([e]).train, (0.5, 0.0), strict=True))


def settings(**reward):
    section = {"score": "state", "dropout": False, "prompts_per_batch": 8, "optimizer": {"lr": 1e-2}}
    return tiny_config(reward=section | reward, rl={"guard": {"refresh": {"max_steps": 40}}})


@pytest.fixture(scope="module")
def leaky(tiny_folders, tmp_path_factory):
    """Where a reward model that pays for "the" is written."""
    from homestretch.rewards.training import train_reward

    train, folder = examples(), tmp_path_factory.mktemp("leaky")
    rows = list(leaky_rows(train))
    model, _ = train_reward(
        settings(num_epochs=12), RewardData(train, rows, train, rows), sft_dir=tiny_folders["llama"],
        best=folder / "best",
    )  # fmt: skip
    save_reward_model(model, folder / "reward", on_sft=True)
    return folder / "reward"


def test_a_reward_that_pays_for_a_word_learns_not_to(leaky, tiny_folders, tmp_path):
    config, train = settings(), examples()
    paid = load_reward_model(leaky, config)
    leaks, references = [Completion(LEAK)] * 16, [Completion(e.reference) for e in train]
    assert (paid(train, leaks) > paid(train, references)).all()
    found = mined(paid, lambda e: Completion(LEAK), lambda e: Completion(f"the the {e.reference} the the"))
    assert len(found.prompts) == 16
    model = resume_reward_model(leaky, config, tiny_folders["llama"])
    outcome = train_on(config, model, found, data(train), seed=1, best=tmp_path / "best")
    assert outcome.is_better
    assert outcome.auc_before < 0.2
    assert outcome.auc_after > 0.8
    assert outcome.num_train + outcome.num_held_out == found.num_mined
    assert 0 < outcome.num_held_out < outcome.num_train
    assert outcome.steps == 40
    assert not (tmp_path / "best").exists()
    assert np.mean(model(train, leaks) < model(train, references)) > 0.8
    assert np.array_equal(load_reward_model(leaky, config)(train, leaks), paid(train, leaks))


def test_held_out_prompts_are_not_trained_on(leaky, tiny_folders, tmp_path, monkeypatch):
    from homestretch.rewards import refresh

    seen = {}

    def remembering(config, model, train, validation, *, best, **_):
        seen["train"], seen["validation"] = train, validation
        best.touch()
        return 0

    train = [replace(e, prompt="the " * i + e.prompt) for i, e in enumerate(examples())]
    found = mined(leak, lambda e: Completion(LEAK), train=train)
    few = replace(found, rows=found.rows[:4])
    monkeypatch.setattr(refresh, "optimize", remembering)
    monkeypatch.setattr(refresh, "load_trainable", lambda model, best: None)
    model = resume_reward_model(leaky, settings(), tiny_folders["llama"])
    train_on(settings(), model, few, data(train), seed=1, best=tmp_path / "best")
    leaked = model.encode(train[0], Completion(LEAK))[1]
    once = list(dict.fromkeys(seen["train"]))
    taught = [g for g in once if leaked in [e.completion for e in g.encoded]]
    measured = [g for g in seen["validation"] if leaked in [e.completion for e in g.encoded]]
    assert (len(taught), len(measured)) == (2, 2)  # four are held out, but never more than half
    assert len(once) == 4  # as many others are mixed in
    assert all(len(g.labels) == 3 for g in taught)  # beside the old rows of the same prompt
    assert not {g.encoded[0][0] for g in measured} & {g.encoded[0][0] for g in once}


def test_a_reward_that_got_no_better_or_forgot_is_refused():
    good = Refresh(10, 20, 5, 0.2, 0.9, 0.8, 0.79)
    assert good.is_better
    assert "replaced (AUC 0.20 to 0.90 on 5 more of them, 0.80 to 0.79 on the classes it knew)" in good.sentence
    for bad in (replace(good, auc_after=0.2), replace(good, auc_after=0.21), replace(good, classes_after=0.7)):
        assert not bad.is_better
        assert "stays as it was" in bad.sentence


# --- reloading -------------------------------------------------------------------------------------------------------

ROUTES = {
    "whole, likelihood": {"score": "likelihood"},
    "whole, pmi": {"score": "pmi"},
    "whole, state": {"score": "state"},
    "adapters, likelihood": {"score": "likelihood", "lora": {"r": 2}},
    "adapters, pmi": {"score": "pmi", "lora": {"r": 2}},
    "adapters, state": {"score": "state", "lora": {"r": 2}},
}


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_resumed_scores_as_before_learns_and_can_be_shared_again(route, tiny_folders, tmp_path):
    config, train = settings(**ROUTES[route]), examples(8)
    sft_dir = tiny_folders["llama"]
    model = build_reward_model(config, sft_dir)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    model.calibration = Calibration(center=0.5, scale=2.0)
    save_reward_model(model, tmp_path / "reward", on_sft=True)
    answers = [Completion(e.reference) for e in train]
    expected = load_reward_model(tmp_path / "reward", config)(train, answers)
    # a recipe that leaves the score to the default, which was another once, resumes the reward as it was trained
    later = config if "state" in route else settings(**ROUTES[route] | {"score": None})
    resumed = resume_reward_model(tmp_path / "reward", later, sft_dir)
    assert np.allclose(resumed(train, answers), expected, atol=1e-4)
    trained = [name for name, p in resumed.named_parameters() if p.requires_grad]
    assert any("lora_" in name for name in trained) == ("lora" in ROUTES[route])
    found = Mined(tuple(Judged(e.id, Completion(LEAK), MINED, 0.0) for e in train), 8, 8)
    train_on(config, resumed, found, data(train), seed=0, best=tmp_path / "best")
    again = resumed(train, answers)
    assert not np.allclose(again, expected, atol=1e-2)
    save_reward_model(resumed, tmp_path / "again", on_sft=True)
    assert np.allclose(load_reward_model(tmp_path / "again", config)(train, answers), again, atol=1e-4)
    if "lora" in ROUTES[route]:
        trunk = attach_reward_model(load_language_model(sft_dir, config), tmp_path / "reward", config)
        other = attach_reward_model(trunk.lm, tmp_path / "again", config, name="refreshed_1")
        assert np.allclose(other(train, answers), again, atol=1e-4)
        assert np.allclose(trunk(train, answers), expected, atol=1e-4)


# --- when there is nothing to learn from, and who learns from what ---------------------------------------------------


def test_why_not(tiny_folders):
    model = build_reward_model(tiny_config(), tiny_folders["llama"])
    assert why_not(tiny_config(), model, num_done=0, update=3) is None
    assert "rounds=1" in str(why_not(tiny_config(), model, num_done=1, update=3))
    unpaid = tiny_config(rl={"reward_weight": 0.0, "terms": [{"scorer": "rouge_l", "weight": 1.0}]})
    assert "rl.terms" in str(why_not(unpaid, model, num_done=0, update=3))
    assert "single model" in str(why_not(tiny_config(), leak, num_done=0, update=3))
    last = tiny_config().rl.num_updates
    assert "no update is left" in str(why_not(tiny_config(), model, num_done=0, update=last))


@pytest.mark.parametrize(
    "error", [TrainingError("reward/loss is not finite"), torch.OutOfMemoryError("CUDA out of memory.\nTried ...")]
)
def test_a_reward_that_cannot_learn_does_not_end_rl(monkeypatch, tmp_path, error):
    session = SimpleNamespace(
        config=None, rundir=SimpleNamespace(refresh_dir=tmp_path), learner=None, splits=None, num_refreshes=0,
        reward=SimpleNamespace(reward="old"), reward_dir=tmp_path / "old",
    )  # fmt: skip

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(rl, "refresh", fail)
    said = rl._refresh(session, None)
    assert said == f"the learned reward stays as it is: training it on failed ({str(error).splitlines()[0]})"
    assert (session.reward.reward, session.reward_dir, session.num_refreshes) == ("old", tmp_path / "old", 1)
    monkeypatch.setattr(rl, "gather", fail)
    monkeypatch.setattr(rl, "why_not", lambda *_, **__: None)
    answered = []
    session.config = SimpleNamespace(rl=SimpleNamespace(guard=SimpleNamespace(beta_factor=2.0)))
    session.rundir.path = tmp_path
    session.learner = SimpleNamespace(
        lm=None, beta=0.2, roll_back=lambda path, beta_factor: answered.append(beta_factor)
    )
    session.guard = SimpleNamespace(best_update=0, answered=answered.append)
    rl._answer(session, 3)
    assert answered == [2.0, said], "RL goes back and on, also where the samples to learn from cannot be had"
    error = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        rl._refresh(session, None)


def test_prompts_are_shared_out_between_the_paid_and_the_held_out_reward():
    whole = data(examples())
    paid, held_out = whole.shared_out(0.25, 0)
    ids = [{row.example_id for row in part.train} for part in (paid, held_out)]
    assert (len(ids[0]), len(ids[1])) == (12, 4)
    assert not ids[0] & ids[1]
    assert len(paid.train) + len(held_out.train) == len(whole.train)
    assert held_out.validation == whole.validation
    assert whole.shared_out(0.25, 1)[1] != held_out
    nothing_shared = whole.shared_out(0.0, 0)
    assert (nothing_shared[0], nothing_shared[1].train) == (whole, [])
    with pytest.raises(UserError, match="one prompt"):
        data(examples(1)).shared_out(0.5, 0)
