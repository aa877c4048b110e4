"""What a forward over completions and an update must not depend on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from homestretch.algorithms.actor_critic import ActorCritic
from homestretch.algorithms.learner import Learner
from homestretch.config import LoRAConfig
from homestretch.forward import response_batch, response_logprobs, response_states
from homestretch.models import (
    add_lora,
    freeze,
    frozen_copy,
    load_language_model,
    reference_policy,
)
from homestretch.stages.sft import mean_loss
from homestretch.training import TrainingError, microbatches
from homestretch.types import Completion, Rollout
from rl_helpers import encoded, rl_section
from tiny import NEW_MODELS, tiny_config, tiny_examples


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_logprobs_are_unchanged_by_padding(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    prompts, completions = encoded(lm)
    critic = ActorCritic(lm, temperature=0.8)
    torch.nn.init.normal_(critic.value_head.weight)
    together = critic(prompts, completions)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        alone = critic([prompt], [completion])
        assert torch.allclose(together.logprobs[i, : len(completion)], alone.logprobs[0], atol=1e-5)
        assert torch.allclose(together.values[i, : len(completion)], alone.values[0], atol=1e-4)
        assert (together.logprobs[i, len(completion) :] == 0).all()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_logprobs_are_those_of_one_plain_pass(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    prompts, completions = encoded(lm, 1)
    ids = torch.tensor([[*prompts[0], *completions[0]]])
    expected = torch.log_softmax(lm.model(ids).logits[0], -1)[
        torch.arange(len(prompts[0]) - 1, ids.shape[1] - 1), ids[0, len(prompts[0]) :]
    ]
    batch = response_batch(prompts, completions, lm)
    assert torch.allclose(response_logprobs(lm, batch).logprobs_BT[0], expected, atol=1e-5)


def test_microbatches_keep_every_item_once_and_the_budget():
    lengths = [5, 1, 9, 30, 2, 2, 8]
    parts = microbatches(lengths, 20)
    assert sorted(i for part in parts for i in part) == list(range(7))
    assert all(len(p) * max(lengths[i] for i in p) <= 20 for p in parts if len(p) > 1)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_loss_does_not_depend_on_the_microbatches(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    pairs = list(zip(*encoded(lm), strict=True))
    assert mean_loss(lm, pairs, 10_000) == pytest.approx(mean_loss(lm, pairs, 60), abs=1e-5)


def rollouts_for(lm, scores):
    prompts, completions = encoded(lm, len(scores))
    return [
        Rollout(example, Completion("", terminated=True), p, c, score)
        for example, p, c, score in zip(tiny_examples(len(scores)), prompts, completions, scores, strict=True)
    ]


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_the_first_minibatch_has_ratio_1_and_kl_0_to_the_reference(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    learner = Learner(lm, frozen_copy(lm), rl_section())
    stats = learner.update(rollouts_for(lm, [1.0, -1.0, 0.5, 2.0]), np.random.default_rng(0))
    assert stats.ratio_first == pytest.approx(1.0, abs=1e-4)
    assert stats.kl == pytest.approx(0.0, abs=1e-4)
    assert stats.clip_fraction == 0


def test_critic_only_updates_leave_the_policy_alone(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    before = [p.detach().clone() for p in lm.model.parameters()]
    learner = Learner(lm, frozen_copy(lm), rl_section("ppo", critic_warmup_updates=1))
    learner.update(rollouts_for(lm, [1.0, -1.0]), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))
    assert learner.actor_critic.value_head.weight.abs().sum() > 0


@pytest.mark.parametrize("kind", NEW_MODELS)
@torch.no_grad()  # sdpa takes another kernel where a gradient is wanted
def test_a_frozen_copy_in_bfloat16_computes_the_same_in_less_memory(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind, dtype="bfloat16"))
    prompts, completions = encoded(lm)
    batch = response_batch(prompts, completions, lm)
    frozen = frozen_copy(lm)
    for states in ("hidden_BTD", "unprojected_BTD"):
        found = [getattr(response_states(model, batch), states)[batch.mask_BT] for model in (lm, frozen)]
        assert torch.equal(*found)
    assert torch.equal(*(response_logprobs(model, batch).logprobs_BT for model in (lm, frozen)))
    sizes = [sum(p.numel() * p.element_size() for p in m.model.parameters()) for m in (lm, frozen)]
    assert sizes[1] < 0.8 * sizes[0]
    assert lm.model.get_input_embeddings().weight.dtype == torch.float32


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_a_frozen_copy_is_never_whole_in_float32(kind, tiny_folders, monkeypatch):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind, dtype="bfloat16"))
    expected = freeze(copy.deepcopy(lm.model), lm.dtype)
    copied, plain = [], torch.nn.Parameter.__deepcopy__

    def counted(self, memo):
        copied.append(self.numel())
        return plain(self, memo)

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", counted)
    frozen = frozen_copy(lm).model
    assert sum(copied) == sum(p.numel() for p in expected.parameters() if p.dtype == torch.float32)
    assert not any(module.training for module in frozen.modules())
    pairs = zip(frozen.named_parameters(), expected.named_parameters(), lm.model.parameters(), strict=True)
    for (name, ours), (other_name, theirs), original in pairs:
        assert (name, ours.dtype, ours.requires_grad) == (other_name, theirs.dtype, False)
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != original.data_ptr()
        assert (original.dtype, original.requires_grad) == (torch.float32, True)


def test_with_lora_the_reference_is_the_trunk_with_adapters_off(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    prompts, completions = encoded(lm)
    batch = response_batch(prompts, completions, lm)
    plain = response_logprobs(lm, batch).logprobs_BT.detach()
    adapted = add_lora(lm, LoRAConfig(r=4, alpha=8), seed=0)
    learner = Learner(adapted, None, rl_section("ppo", optimizer={"lr": 1e-2}))
    learner.update(rollouts_for(adapted, [1.0, -1.0, 0.5, 2.0]), np.random.default_rng(0))
    with reference_policy(adapted, None) as reference:
        assert torch.allclose(response_logprobs(reference, batch).logprobs_BT, plain, atol=1e-5)
    assert not torch.allclose(response_logprobs(adapted, batch).logprobs_BT, plain, atol=1e-4)


def test_a_bad_score_stops_before_the_update(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    before = [p.detach().clone() for p in lm.model.parameters()]
    learner = Learner(lm, frozen_copy(lm), rl_section())
    with pytest.raises(TrainingError, match="rl/score"):
        learner.update(rollouts_for(lm, [float("nan"), 1.0]), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))
