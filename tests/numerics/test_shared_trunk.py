"""One trunk for policy, reference and reward computes what separate ones do, and holds what it promises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from homestretch.adapters import active_adapter
from homestretch.algorithms.learner import Learner
from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import LoRAConfig, RunConfig
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import add_lora, load_language_model, reference_policy
from homestretch.rewards.reward_model import (
    attach_reward_model,
    build_reward_model,
    load_reward_model,
    save_reward_model,
)
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir
from homestretch.stages import rl
from homestretch.stages.rl import Models, load_models
from homestretch.types import Completion, Rollout, UserError
from rl_helpers import encoded, rl_section
from tiny import tiny_config, tiny_examples

KINDS = ("llama", "gpt2", "bart")
LORA = {"r": 4, "alpha": 8}
ROUTES = ("policy", "frozen", "state")
"""Whose trunk the reward's adapter sits on: the policy's (`model.lora`) or the frozen reference's (`reward.lora`).
"state" is the latter with a reward that reads the last state alone."""


@dataclass(frozen=True)
class Stand:
    """A run's directory with SFT model and reward, and the models of RL with trunks shared and with trunks apart."""

    config: RunConfig
    rundir: RunDir
    shared: Models
    apart: Models


def settings(kind: str, route: str, **overrides: Any) -> RunConfig:
    model = dict(tiny_config(kind).model) | {"lora": LORA if route == "policy" else None}
    reward = {"lora": None if route == "policy" else LORA, "score": "state" if route == "state" else None}
    return tiny_config(kind, model=model, reward=reward, **overrides)


def randomise_adapters(model: Any, seed: int) -> None:
    """Adapters begin as nothing; these do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def stand(tiny_folders, tmp_path, request):
    """What `kind`, `route` and perhaps a dtype in the test's parameters ask for."""
    kind, route, *rest = request.param
    config = settings(kind, route, **({"dtype": rest[0]} if rest else {}))
    rundir = RunDir(tmp_path)
    rundir.sft_dir.symlink_to(tiny_folders[kind])
    model = build_reward_model(config, rundir.sft_dir)
    randomise_adapters(model, seed=7)
    with torch.no_grad():
        for parameter in model.head.parameters() if model.head is not None else ():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    save_reward_model(model, rundir.reward_dir, on_sft=True)
    shared = load_models(config, rundir)
    adapter = rundir.reward_dir / "adapter"
    adapter.rename(tmp_path / "hidden")
    apart = load_models(config, rundir)
    (tmp_path / "hidden").rename(adapter)
    for models in (shared, apart):
        randomise_adapters(models.policy.model, seed=8)
    return Stand(config, rundir, shared, apart)


def stands(*more: str, kinds: tuple[str, ...] = KINDS) -> Any:
    cases = [(kind, route, *more) for kind in kinds for route in ROUTES]
    return pytest.mark.parametrize("stand", cases, indirect=True, ids=["-".join(case) for case in cases])


def completions(count: int = 6) -> list[Completion]:
    return [Completion(e.reference, terminated=i % 3 != 1) for i, e in enumerate(tiny_examples(count))]


def trainable_names(module: torch.nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def logprobs(lm: Any) -> torch.Tensor:
    return response_logprobs(lm, response_batch(*encoded(lm), lm), temperature=0.7).logprobs_BT


@stands()
def test_scores_are_those_of_the_merged_folder(stand):
    merged = load_reward_model(stand.rundir.reward_dir, stand.config)
    assert merged.adapter is None
    assert stand.shared.reward.adapter == "reward"
    examples = tiny_examples(6)
    expected = merged(examples, completions())
    shared = stand.shared.reward
    assert np.allclose(shared(examples, completions()), expected, atol=1e-5)
    shared.lm = replace(shared.lm, shares_prompts=False)
    assert np.allclose(shared(examples, completions()), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


@stands()
def test_the_reference_is_the_sft_model_and_scoring_leaves_the_policy_alone(stand):
    models = stand.shared
    sft = load_language_model(stand.rundir.sft_dir, stand.config)
    before = logprobs(models.policy).detach()
    trained = trainable_names(models.policy.model)
    assert trained
    of_reward = {f"model.{name}" for name in trained} if models.frozen is None else set()
    for _ in range(2):
        models.reward(tiny_examples(6), completions())
        with reference_policy(models.policy, models.frozen) as reference:
            assert torch.allclose(logprobs(reference), logprobs(sft), atol=1e-5)
        assert torch.equal(logprobs(models.policy), before)
        assert trainable_names(models.policy.model) == trained
        assert trainable_names(models.reward) == of_reward  # never its own adapter, nor the head
    assert not torch.allclose(before, logprobs(sft), atol=1e-3) or models.frozen is not None


def rollouts(lm: Any, reward: Any) -> list[Rollout]:
    """Answers of mixed quality with the reward's own scores."""
    prompts, ids = encoded(lm)
    scores = reward(tiny_examples(6), completions())
    return [
        Rollout(example, completion, prompt, answer, float(score))
        for example, completion, prompt, answer, score in zip(
            tiny_examples(6), completions(), prompts, ids, scores, strict=True
        )
    ]


def updated(models: Models) -> tuple[dict[str, torch.Tensor], Any, Learner]:
    """The trained weights by name after two updates, and what the last said of itself."""
    section = rl_section("ppo", optimizer={"lr": 1e-3, "schedule": "constant"})
    torch.manual_seed(0)
    learner = Learner(models.policy, models.frozen, section)
    for _ in range(2):
        stats = learner.update(rollouts(models.policy, models.reward), np.random.default_rng(0))
    weights = {n: p.detach().float().clone() for n, p in models.policy.model.named_parameters() if p.requires_grad}
    return weights, stats, learner


@stands()
def test_updates_are_those_of_separate_trunks_and_train_the_policy_alone(stand):
    held_still = {n: p.detach().clone() for n, p in stand.shared.reward.named_parameters() if not p.requires_grad}
    start = {n: p.detach().clone() for n, p in stand.shared.policy.model.named_parameters() if p.requires_grad}
    weights, stats, learner = updated(stand.shared)
    expected, expected_stats, _ = updated(stand.apart)
    assert weights.keys() == expected.keys() == start.keys()
    assert all(torch.allclose(weights[name], tensor, atol=1e-5) for name, tensor in expected.items())
    assert stats.kl == pytest.approx(expected_stats.kl, abs=1e-5)
    assert any(not torch.equal(weights[name], tensor) for name, tensor in start.items())
    for name, parameter in stand.shared.reward.named_parameters():
        if name in held_still:
            assert torch.equal(parameter, held_still[name])
            assert parameter.grad is None
    heads = 2 * (learner.actor_critic.value_head is not None)
    in_optimizer = sum(len(group["params"]) for group in learner.optimizer.param_groups)
    assert in_optimizer == len(learner.trainable) == len(start) + heads


def held_bytes(models: Models) -> int:
    """Of all weights that RL holds, each stored tensor once."""
    modules = [models.policy.model, models.reward, *([models.frozen.model] if models.frozen else [])]
    tensors = {p.data_ptr(): p.numel() * p.element_size() for m in modules for p in m.parameters()}
    return sum(tensors.values())


@stands()
def test_one_trunk_is_held_with_lora_and_two_without(stand):
    sft = load_language_model(stand.rundir.sft_dir, stand.config)
    trunk = sum(p.numel() * p.element_size() for p in sft.model.parameters())
    adapters = sum(
        p.numel() * p.element_size() for n, p in stand.shared.reward.model.named_parameters() if "lora_" in n
    )
    head = sum(p.numel() * p.element_size() for p in stand.shared.reward.head.parameters())
    trunks = 1 if stand.shared.frozen is None else 2
    assert held_bytes(stand.shared) == trunks * trunk + adapters + head
    assert held_bytes(stand.apart) > held_bytes(stand.shared) + 0.5 * trunk  # a classifier has no output projection


@stands("bfloat16")
def test_under_autocast_frozen_weights_are_narrow_and_updates_those_of_wide_ones(stand, monkeypatch):
    expected_score = stand.shared.reward(tiny_examples(6), completions())
    narrow = [m for m in stand.shared.reward.model.modules() if isinstance(m, torch.nn.Linear)]
    assert any(m.weight.dtype == torch.bfloat16 for m in narrow)
    trained = [p for p in stand.shared.policy.model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in trained)
    monkeypatch.setattr(rl, "narrow_frozen", lambda model, dtype: model)
    wide = load_models(stand.config, stand.rundir)
    randomise_adapters(wide.policy.model, seed=8)
    assert held_bytes(stand.shared) < held_bytes(wide) or wide.frozen is not None
    assert np.array_equal(wide.reward(tiny_examples(6), completions()), expected_score)
    texts = [
        [row[0].ids for row in generate(m.policy, tiny_examples(4), max_new_tokens=12, batch_size=4)]
        for m in (stand.shared, wide)
    ]
    assert texts[0] == texts[1]
    (weights, stats, _), (expected, expected_stats, _) = updated(stand.shared), updated(wide)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert stats == expected_stats


@stands("bfloat16", kinds=("llama",))
def test_the_policy_is_written_from_whole_weights_and_without_the_reward(stand):
    best = stand.rundir.path / ".rl-best.safetensors"
    _, _, learner = updated(stand.shared)
    save_trainable(learner.lm.model, best)
    expected = load_language_model(stand.rundir.sft_dir, stand.config)
    if stand.config.model.lora:
        expected = add_lora(expected, stand.config.model.lora, seed=5)
    load_trainable(expected.model, best)
    if stand.config.model.lora:
        expected = replace(expected, model=expected.model.merge_and_unload())
    updated(stand.shared)  # training went on, and what is written is still the best
    rl._ship_best(stand.config, stand.rundir, learner)
    written = dict(load_language_model(stand.rundir.policy_dir, stand.config).model.named_parameters())
    assert all(torch.equal(parameter, written[name]) for name, parameter in expected.model.named_parameters())


def test_the_written_adapter_is_peft_s_own_and_names_no_place(tiny_folders, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    config = settings("llama", "state")
    model = build_reward_model(config, tiny_folders["llama"])
    randomise_adapters(model, seed=7)
    save_reward_model(model, tmp_path / "reward", on_sft=True)
    folder = tmp_path / "reward" / "adapter"
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tiny_folders["llama"].parent) not in (folder / "adapter_config.json").read_text()
    ids = torch.tensor([[5, 6, 7, 8]])
    trunk = AutoModelForSequenceClassification.from_pretrained(tiny_folders["llama"], num_labels=1)
    adapted = PeftModel.from_pretrained(trunk, folder).eval()
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-5)
    save_reward_model(build_reward_model(config, tiny_folders["llama"]), tmp_path / "reward")
    assert not folder.exists()


def test_adapters_of_another_model_are_refused(tiny_folders, tmp_path):
    save_reward_model(build_reward_model(settings("llama", "frozen"), tiny_folders["llama"]), tmp_path, on_sft=True)
    config = settings("gpt2", "frozen")
    with pytest.raises(UserError, match="run the stage that wrote it again"):
        attach_reward_model(load_language_model(tiny_folders["gpt2"], config), tmp_path, config)


def test_a_switch_is_undone_when_scoring_fails(tiny_folders):
    lm = add_lora(load_language_model(tiny_folders["llama"], tiny_config()), LoRAConfig(r=4, alpha=8), seed=0)
    randomise_adapters(lm.model, seed=1)
    before, trained = logprobs(lm).detach(), [p.requires_grad for p in lm.model.parameters()]
    with pytest.raises(RuntimeError, match="no memory"), active_adapter(lm.model, None):
        raise RuntimeError("no memory")
    assert torch.equal(logprobs(lm), before)
    assert [p.requires_grad for p in lm.model.parameters()] == trained
