"""What a forward over completions must not depend on, and that PPO learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import NEW_MODELS, tiny_config, tiny_examples
from homestretch.algorithms.actor_critic import ActorCritic
from homestretch.algorithms.learner import Learner
from homestretch.config import LoRAConfig, ModelConfig, PPOConfig, SamplingConfig
from homestretch.forward import response_batch, response_states, token_logprobs
from homestretch.models import (
    add_lora,
    frozen_copy,
    load_language_model,
    reference_policy,
)
from homestretch.rollouts.collect import collect, prompt_batches
from homestretch.stages.sft import mean_loss
from homestretch.training import TrainingError, microbatches
from homestretch.types import Completion, Rollout, ScoredCompletions


def encoded(lm, count=6):
    examples = tiny_examples(count)
    prompts = [lm.codec.encode_prompt(e).ids for e in examples]
    completions = [
        lm.codec.encode_completion(Completion(e.reference, terminated=i % 2 == 0)) for i, e in enumerate(examples)
    ]
    return prompts, completions


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
    assert torch.allclose(token_logprobs(lm, response_states(lm, batch), batch)[0], expected, atol=1e-5)


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


def ppo(**overrides):
    settings = {"critic_warmup_updates": 0, "num_epochs": 1, "num_minibatches": 1} | overrides
    return PPOConfig.model_validate(settings, strict=False)


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_the_first_minibatch_has_ratio_1_and_kl_0_to_the_reference(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    learner = Learner(lm, frozen_copy(lm), ppo())
    stats = learner.update(rollouts_for(lm, [1.0, -1.0, 0.5, 2.0]), np.random.default_rng(0))
    assert stats.ratio_first == pytest.approx(1.0, abs=1e-4)
    assert stats.kl == pytest.approx(0.0, abs=1e-4)
    assert stats.clip_fraction == 0


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_an_update_does_not_depend_on_the_microbatches(kind, tiny_folders):
    after = []
    for budget in (10_000, 60):
        lm = load_language_model(tiny_folders[kind], tiny_config(kind))
        learner = Learner(lm, frozen_copy(lm), ppo(tokens_per_microbatch=budget, optimizer={"lr": 1e-3}))
        learner.update(rollouts_for(lm, [1.0, -1.0, 0.5, 2.0]), np.random.default_rng(0))
        after.append(torch.cat([p.detach().flatten() for p in lm.model.parameters()]))
    # Adam's first step divides by |gradient|, so that noise of 1e-7 in tiny gradients may show; nearly all must agree
    assert ((after[0] - after[1]).abs() < 1e-5).float().mean() > 0.999


def test_critic_only_updates_leave_the_policy_alone(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    before = [p.detach().clone() for p in lm.model.parameters()]
    learner = Learner(lm, frozen_copy(lm), ppo(critic_warmup_updates=1))
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
    assert torch.equal(*(token_logprobs(m, response_states(m, batch), batch) for m in (lm, frozen)))
    sizes = [sum(p.numel() * p.element_size() for p in m.model.parameters()) for m in (lm, frozen)]
    assert sizes[1] < 0.8 * sizes[0]
    assert lm.model.get_input_embeddings().weight.dtype == torch.float32


def test_with_lora_the_reference_is_the_trunk_with_adapters_off(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    prompts, completions = encoded(lm)
    batch = response_batch(prompts, completions, lm)
    plain = token_logprobs(lm, response_states(lm, batch), batch).detach()
    adapted = add_lora(lm, LoRAConfig(r=4, alpha=8), seed=0)
    learner = Learner(adapted, None, ppo(optimizer={"lr": 1e-2}))
    learner.update(rollouts_for(adapted, [1.0, -1.0, 0.5, 2.0]), np.random.default_rng(0))
    with reference_policy(adapted, None) as reference:
        assert torch.allclose(token_logprobs(reference, response_states(reference, batch), batch), plain, atol=1e-5)
    assert not torch.allclose(token_logprobs(adapted, response_states(adapted, batch), batch), plain, atol=1e-4)


def test_a_bad_score_stops_before_the_update(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    before = [p.detach().clone() for p in lm.model.parameters()]
    learner = Learner(lm, frozen_copy(lm), ppo())
    with pytest.raises(TrainingError, match="rl/advantages"):
        learner.update(rollouts_for(lm, [float("nan"), 1.0]), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "lora"), [("llama", None), ("t5", None), ("llama", LoRAConfig(r=8, alpha=16))])
def test_ppo_learns_a_trivial_task(kind, lora, tiny_folders):
    """Paid for one word among its tokens, the policy comes to say little else."""
    lm = load_language_model(
        tiny_folders[kind], tiny_config(kind, model=ModelConfig(new=NEW_MODELS[kind]).model_dump())
    )
    if lora:  # adapters leave the head as it is, and a random head of this size cannot tell tokens apart
        lm.model.get_output_embeddings().weight.data *= 20
    wanted = lm.codec.tokenizer.convert_tokens_to_ids("milk")

    def reward(_examples, completions):
        share = np.array([np.mean([i == wanted for i in c.ids]) if c.ids else 0.0 for c in completions])
        return ScoredCompletions(share, {"share": share})

    config = ppo(
        num_updates=40, prompts_per_update=4, completions_per_prompt=16, num_epochs=2, num_minibatches=2, value_lr=1e-2,
        optimizer={"lr": 1e-2 if lora else 5e-3, "schedule": "constant"}, kl={"beta": 0.0, "adaptive": False},
        sampling=SamplingConfig(batch_size=64).model_dump(),
    )  # fmt: skip
    learner = Learner(add_lora(lm, lora, 0), None, config) if lora else Learner(lm, frozen_copy(lm), config)
    rng = np.random.default_rng(0)
    batches = prompt_batches(tiny_examples(4), config.prompts_per_update, rng)
    scores = []
    for _ in range(config.num_updates):
        rollouts = collect(learner.lm, reward, next(batches), config, max_new_tokens=6, seed=int(rng.integers(2**31)))
        learner.update(rollouts, rng)
        scores.append(np.mean([r.score for r in rollouts]))
    assert np.mean(scores[:2]) < 0.1
    assert np.mean(scores[-3:]) > 0.7
