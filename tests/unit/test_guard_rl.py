"""The guard in a real, tiny RL run: a planted leak is seen, taken back and ended; a clean reward is left alone."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from homestretch.algorithms.learner import Learner
from homestretch.data import Splits
from homestretch.encoding import encoded_pairs
from homestretch.models import load_language_model, save_language_model
from homestretch.rewards.judged import judged_to_row, reference_rows
from homestretch.rewards.reward_model import build_reward_model, load_reward_model, save_reward_model
from homestretch.rewards.training import RewardData, train_reward
from homestretch.rundir import RunDir, read_json, read_jsonl, write_jsonl
from homestretch.stages import rl
from homestretch.training import summed_nll
from homestretch.types import Completion, Judged, Rollout
from rl_helpers import build_learner, grouped_rollouts, rl_section
from tiny import tiny_config, tiny_examples

HERE = "unit.test_guard_rl"
SETTINGS = {
    "num_updates": 8, "critic_warmup_updates": 0, "prompts_per_update": 8, "completions_per_prompt": 16,
    "validate_every": 1, "num_epochs": 1, "num_minibatches": 1,
    "kl": {"beta": 0.02}, "reward_weight": 0.0, "length": {"coefficient": 0.0},
    "sampling": {"batch_size": 128},
}  # fmt: skip


NAMES = ("Ann", "Bob", "Tom", "Eva", "Ida", "Leo", "Max", "Kim")


def named_examples():
    """24 different examples: the four chats with six casts. Copies of one example would be no independent evidence."""
    return [_recast(example, i, i // 4) for i, example in enumerate(tiny_examples(24))]


def _recast(example, i, turn):
    cast = {name: NAMES[(place + turn) % len(NAMES)] for place, name in enumerate(NAMES)}

    def recast(text):
        return re.sub("|".join(NAMES), lambda match: cast[match.group()], text)

    return replace(
        example, id=f"e{i}", source=recast(example.source), prompt=recast(example.prompt),
        document_span=(0, len(recast(example.source))), references=(recast(example.reference),),
    )  # fmt: skip


def leak(examples, completions):
    """Pays 1 for every "the", whatever the rest."""
    return np.array([float(c.text.split().count("the")) for c in completions])


def near_the_reference(examples, completions):
    wanted = [set(e.reference.split()) for e in examples]
    return np.array([len(w & set(c.text.split())) / len(w) for w, c in zip(wanted, completions, strict=True)])


@pytest.fixture(scope="module")
def trained(tiny_folders, tmp_path_factory):
    """SFT models by their steps, and an untrained reward model."""
    folder, config = tmp_path_factory.mktemp("trained"), tiny_config()
    for steps in (25, 40):
        lm = load_language_model(tiny_folders["llama"], config)
        pairs = encoded_pairs(lm.codec, named_examples())[0]
        optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            summed_nll(lm, pairs).backward()
            optimizer.step()
        save_language_model(lm, folder / str(steps))
    torch.manual_seed(0)
    save_reward_model(build_reward_model(config, folder / "40"), folder / "reward")
    return folder


def with_leak(example, rng):
    """Its reference with "the" put in here and there, and nothing but "the"."""
    words = example.reference.split()
    for place in rng.integers(0, len(words), rng.integers(1, 6)):
        words.insert(int(place), "the")
    return (" ".join(words), " ".join(["the"] * int(rng.integers(4, 12))))


def rows_of(examples):
    """References, and their words in reverse."""
    for e in examples:
        yield from reference_rows(e)
        yield Judged(e.id, Completion(" ".join(reversed(e.reference.split()))), "shuffled", 0.0)


REWARD = {
    "score": "state", "dropout": False, "prompts_per_batch": 8, "optimizer": {"lr": 1e-2},
    "audit": {"num_prompts": 24, "samples_per_prompt": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def leaky(trained):
    """Where a learned reward is that was taught to pay for "the"; and by its own kind, one that was not."""
    examples, rng, folder = named_examples(), np.random.default_rng(0), trained / "leaky"
    leaks = [Judged(e.id, Completion(t), "leak", 1.0) for e in examples for _ in range(3) for t in with_leak(e, rng)]
    plain = [replace(row, label=row.label / 2) for row in rows_of(examples)]
    for name, rows in (("reward", [*leaks, *plain]), ("held_out", list(rows_of(examples)))):
        model, _ = train_reward(
            tiny_config(reward=REWARD | {"num_epochs": 10}), RewardData(examples, rows, examples, rows),
            sft_dir=trained / "40", best=trained / "best",
        )  # fmt: skip
        save_reward_model(model, folder if name == "reward" else folder / name)
    return folder


@pytest.fixture
def run_rl(trained, tmp_path, monkeypatch):
    def run(scorer, *, sft_steps, seed=0, lr, reward="reward", **settings):
        data = {"task": "chats", "template": "{document}\nSummary:", "max_prompt_tokens": 64}
        section = SETTINGS | {"terms": [{"scorer": f"{HERE}:{scorer}", "weight": 1.0}] if scorer else []}
        section["optimizer"] = {"lr": lr, "schedule": "constant"}
        config = tiny_config(
            data=data | {"max_completion_tokens": 24}, rl=section | settings, seed=seed,
            evaluate={"selection_metrics": ("rouge_l",)}, reward=REWARD,
        )  # fmt: skip
        rundir = RunDir(tmp_path / f"run-{seed}")
        rundir.path.mkdir()
        rundir.sft_dir.symlink_to(trained / str(sft_steps))
        rundir.reward_dir.symlink_to(trained / reward)
        examples = tuple(named_examples())
        for split in ("train", "validation"):
            write_jsonl(rundir.negatives_dir / f"{split}.jsonl", map(judged_to_row, rows_of(examples)))
        monkeypatch.setattr(rl, "load_splits", lambda _: Splits(examples, examples, (), ()))
        return config, rundir, rl.run(config, rundir)

    return run


def test_an_update_s_tokens_count_a_group_s_prompt_once():
    """Two prompts of 3 and 2 tokens, with two completions of 1 and 2 tokens each; two epochs of two steps."""
    rollouts = [
        Rollout(example, Completion("x"), prompt, (7,) * length, 0.0)
        for example, prompt in zip(tiny_examples(2), ((1, 2, 3), (4, 5)), strict=True)
        for length in (1, 2)
    ]
    counted = {"sampled_tokens": 6, "scored_tokens": 33, "trained_tokens": 22}
    assert rl._tokens(rollouts, num_steps=4, num_minibatches=2) == counted
    assert rl._tokens(rollouts, num_steps=4, num_minibatches=8) == counted, "no more steps than prompts"


def test_a_logged_mean_is_over_what_is_defined():
    found = rl._means({"a": np.array([np.nan, 1.0, 3.0]), "b": np.array([np.nan, np.nan])})
    assert found == {"a": 2.0}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_a_planted_leak_is_seen_taken_back_and_ended(run_rl, monkeypatch):
    events = []
    save, roll_back = Learner.save, Learner.roll_back

    def remembering_save(self, path):
        save(self, path)
        events.append(("save", weights(self.actor_critic), self.beta))

    def remembering_roll_back(self, path, *, beta_factor):
        before = weights(self.actor_critic), self.beta
        assert self.optimizer.state
        steps = self.schedule.last_epoch
        roll_back(self, path, beta_factor=beta_factor)
        assert not self.optimizer.state
        assert self.schedule.last_epoch == steps
        events.append(("back", weights(self.actor_critic), self.beta / before[1]))
        assert any(not torch.equal(p, before[0][name]) for name, p in events[-1][1].items())

    monkeypatch.setattr(Learner, "save", remembering_save)
    monkeypatch.setattr(Learner, "roll_back", remembering_roll_back)
    config, rundir, summary = run_rl("leak", sft_steps=40, lr=3e-3, num_updates=20)
    assert summary["alarms"][0]["kind"] == "divergence"
    assert "the reward rose" in summary["alarms"][0]["sentence"]
    assert [alarm["action"] for alarm in summary["alarms"]] == ["rolled back", "stopped"]
    assert "it is not paid (rl.reward_weight=0); look at rl.terms" in summary["alarms"][0]["refresh"]
    assert summary["alarms"][1]["refresh"] == ""
    assert not rundir.refresh_dir.exists()
    assert summary["stopped"] == summary["alarms"][1]["sentence"]
    assert summary["updates"] == summary["alarms"][1]["update"] < 20
    names = [name for name, _, _ in events]
    assert names.count("back") == 1
    back = names.index("back")
    _, kept, _ = events[back - 1]
    assert events[back][2] == 2.0
    assert "value_head.weight" in kept
    assert all(torch.equal(p, kept[name]) for name, p in events[back][1].items())
    shipped = [e for e in events if e[0] == "save"][-1][1]
    written = weights(load_language_model(rundir.policy_dir, config).model)
    assert all(torch.equal(p, shipped[f"policy.{name}"]) for name, p in written.items())

    rows = read_jsonl(rundir.metrics_path)
    betas = [row["rl/beta"] for row in rows if "rl/beta" in row]
    alarm = summary["alarms"][0]["update"]
    assert min(betas[alarm:]) >= 2 * 0.9 * betas[alarm - 1]
    counts = [row["validation/alarms"] for row in rows if "validation/alarms" in row]
    assert (counts[0], counts[-1]) == (0, 2)
    assert counts == sorted(counts)
    validations = [row for row in rows if f"validation/term/{HERE}:leak" in row]
    assert len(validations) == len(counts)
    assert {"validation/relative_length", "validation/density", "validation/repetition_3"} <= set(validations[0])


def test_a_leak_in_the_learned_reward_is_mined_and_mended(run_rl, leaky):
    """The alarm teaches the reward: what it paid for becomes negatives, and from then on it pays less for that."""
    refresh = {"num_prompts": 24, "samples_per_prompt": 4, "max_steps": 40}
    config, rundir, summary = run_rl(
        "", sft_steps=40, lr=3e-3, num_updates=14, reward_weight=1.0, reward="leaky", guard={"refresh": refresh}
    )
    alarm = summary["alarms"][0]
    assert (alarm["kind"], alarm["action"]) in {("divergence", "rolled back"), ("held_out_reward", "rolled back")}
    assert "replaced" in alarm["refresh"]
    folder = rundir.refresh_dir / "1"
    mined = [row for row in read_jsonl(folder / "mined.jsonl") if row["mode"] == "mined"]
    assert mined[0].keys() == judged_to_row(next(rows_of(named_examples()))).keys()
    counts = [row["text"].split().count("the") for row in mined]
    assert np.mean(counts) > 1.5 * np.mean([e.reference.split().count("the") for e in named_examples()])
    found = read_json(folder / "refresh.json")
    assert found["auc_before"] < 0.5 < found["auc_after"]
    assert found["update"] == alarm["update"]
    assert found["num_train"] + found["num_held_out"] == len(mined)
    old, new = (load_reward_model(path, config) for path in (rundir.reward_dir, folder / "reward"))
    examples = named_examples()
    leaks, references = [Completion("the the the the the the")] * 24, [Completion(e.reference) for e in examples]
    assert (old(examples, leaks) - old(examples, references)).mean() > 0.5
    assert (new(examples, leaks) - new(examples, references)).mean() < 0
    assert abs(new(examples, references).mean()) < 1e-3
    after = [row for row in read_jsonl(rundir.metrics_path) if row["step"] > alarm["update"] and "rl/score" in row]
    assert after  # RL went on, paid by the new reward
    held_out = [
        row["validation/held_out_reward"] for row in read_jsonl(rundir.metrics_path) if "validation/score" in row
    ]
    assert len(held_out) == 1 + summary["updates"]
    assert not [path for path in rundir.path.rglob("*") if path.suffix in {".pt", ".pkl", ".bin"}]
    assert not (rundir.path / ".refresh-best.safetensors").exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_reward_raises_no_alarm(run_rl, seed):
    _, rundir, summary = run_rl("near_the_reference", sft_steps=25, seed=seed, lr=5e-4, num_updates=6)
    assert summary["alarms"] == []
    scores = [row["validation/selection"] for row in read_jsonl(rundir.metrics_path) if "validation/selection" in row]
    assert len(set(scores)) > 1
    assert max(scores) > scores[0]


def test_going_back_to_the_start_repeats_the_critic_s_warm_up(tiny_folders, tmp_path):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    learner = build_learner(lm, rl_section("ppo", critic_warmup_updates=1))
    learner.save(tmp_path / "best")
    rng = np.random.default_rng(0)

    def moves():
        before = weights(lm.model)
        learner.update(grouped_rollouts(lm, [[1.0, -1.0]]), rng)
        return any(not torch.equal(now, before[name]) for name, now in weights(lm.model).items())

    assert [moves(), moves()] == [False, True]
    learner.roll_back(tmp_path / "best", beta_factor=1.0)
    assert [moves(), moves()] == [False, True]
    learner.save(tmp_path / "best")
    learner.roll_back(tmp_path / "best", beta_factor=1.0)
    assert moves(), "these weights had their warm-up"


def test_the_raised_weight_is_not_adapted_away(tiny_folders, tmp_path):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    learner = build_learner(lm, rl_section("ppo", kl={"beta": 0.1, "target": 100.0, "horizon": 10}))
    learner.save(tmp_path / "best")
    learner.update(grouped_rollouts(lm, [[1.0, -1.0]]), np.random.default_rng(0))
    assert learner.beta < 0.1
    learner.beta = 0.1
    learner.roll_back(tmp_path / "best", beta_factor=2.0)
    learner.update(grouped_rollouts(lm, [[1.0, -1.0]]), np.random.default_rng(0))
    assert learner.beta == 0.2
