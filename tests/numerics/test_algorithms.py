"""What every algorithm's update must do on a real (small) model, and that each learns a trivial task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from homestretch.algorithms.learner import Learner
from homestretch.config import LoRAConfig, ModelConfig
from homestretch.encoding import encoded_pairs
from homestretch.models import add_lora, frozen_copy, load_language_model
from homestretch.rollouts.collect import collect, prompt_batches
from homestretch.stages.sft import mean_loss
from homestretch.types import ScoredCompletions
from rl_helpers import ALGORITHMS, build_learner, grouped_rollouts, rl_section, weights
from tiny import NEW_MODELS, tiny_config, tiny_examples

SCORES = [[1.0, -1.0, 0.5], [0.0, 2.0, -0.5]]


@pytest.mark.parametrize("kind", ["llama", "bart"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_update_does_not_depend_on_the_microbatches(algorithm, kind, tiny_folders):
    after = []
    for budget in (10_000, 60):
        lm = load_language_model(tiny_folders[kind], tiny_config(kind))
        section = rl_section(algorithm, tokens_per_microbatch=budget, optimizer={"lr": 1e-3},
                             sft_mix={"coefficient": 0.5, "examples_per_step": 3})  # fmt: skip
        learner = build_learner(lm, section, references=encoded_pairs(lm.codec, tiny_examples(8))[0])
        stats = learner.update(grouped_rollouts(lm, SCORES), np.random.default_rng(0))
        after.append((weights(learner), stats.policy_loss, stats.sft_loss, stats.gradient_norm))
    # Adam's first step divides by |gradient|, so that noise of 1e-7 in tiny gradients may show; nearly all must agree
    assert ((after[0][0] - after[1][0]).abs() < 1e-5).float().mean() > 0.999
    assert after[0][1:] == pytest.approx(after[1][1:], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_a_critic_takes_memory_for_one(algorithm, tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    learner = build_learner(lm, rl_section(algorithm))
    stats = learner.update(grouped_rollouts(lm, SCORES), np.random.default_rng(0))
    has_critic = algorithm == "ppo"
    assert (learner.actor_critic.value_head is not None) == has_critic
    assert len(learner.trainable) == len(list(lm.model.parameters())) + 2 * has_critic
    assert (stats.value_loss is not None) == (stats.explained_variance is not None) == has_critic
    assert stats.ratio_first == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "reinforce_pp"])
def test_groups_of_equal_scores_are_counted_and_move_nothing(algorithm, tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    learner = build_learner(lm, rl_section(algorithm, optimizer={"lr": 1e-2}))
    before = weights(learner)
    stats = learner.update(grouped_rollouts(lm, [[0.3] * 3, [-1.0] * 3]), np.random.default_rng(0))
    assert stats.equal_groups == 2
    assert torch.equal(weights(learner), before)
    assert learner.update(grouped_rollouts(lm, SCORES), np.random.default_rng(0)).equal_groups == 0
    assert not torch.equal(weights(learner), before)


def test_the_sft_mix_raises_the_references_likelihood_and_is_off_by_default(tiny_folders):
    losses = {}
    for coefficient in (0.0, 2.0):
        lm = load_language_model(tiny_folders["llama"], tiny_config())
        pairs = encoded_pairs(lm.codec, tiny_examples(4))[0]
        section = rl_section("grpo", optimizer={"lr": 1e-3, "schedule": "constant"},
                             sft_mix={"coefficient": coefficient, "examples_per_step": 3})  # fmt: skip
        learner, rng = build_learner(lm, section, references=pairs), np.random.default_rng(0)
        stats = [learner.update(grouped_rollouts(lm, [[0.0] * 2] * 2), rng) for _ in range(3)]
        losses[coefficient] = mean_loss(lm, pairs, 1000)
        assert [s.sft_loss is None for s in stats] == [coefficient == 0] * 3
    assert losses[2.0] < losses[0.0] - 0.1


def test_the_mix_waits_for_the_critics_warm_up(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    section = rl_section("ppo", critic_warmup_updates=1, sft_mix={"coefficient": 1.0})
    learner = build_learner(lm, section, references=encoded_pairs(lm.codec, tiny_examples(4))[0])
    before = weights(learner)
    assert learner.update(grouped_rollouts(lm, SCORES), np.random.default_rng(0)).sft_loss is None
    assert torch.equal(weights(learner), before)
    assert learner.update(grouped_rollouts(lm, SCORES), np.random.default_rng(0)).sft_loss is not None


def mean_scores(learner, num_updates, wanted):
    """The mean score of each update's rollouts when the share of one word among a completion's tokens is paid."""

    def reward(_examples, completions):
        share = np.array([np.mean([i == wanted for i in c.ids]) if c.ids else 0.0 for c in completions])
        return ScoredCompletions(share, {"share": share})

    rng, scores, section = np.random.default_rng(0), [], learner.config
    batches = prompt_batches(tiny_examples(4), section.prompts_per_update, rng)
    for _ in range(num_updates):
        rollouts = collect(learner.lm, reward, next(batches), section, max_new_tokens=6, seed=int(rng.integers(2**31)))
        learner.update(rollouts, rng)
        scores.append(np.mean([r.score for r in rollouts]))
    return scores


def trivial_task(algorithm, **overrides):
    settings = {
        "prompts_per_update": 4, "completions_per_prompt": 16, "num_epochs": 2, "num_minibatches": 2,
        "kl": {"beta": 0.0, "adaptive": False},
    }  # fmt: skip
    return rl_section(algorithm, **(settings | overrides))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora"), [("llama", None), ("t5", None), ("llama", LoRAConfig(r=8, alpha=16))])
def test_ppo_learns_a_trivial_task(kind, lora, tiny_folders):
    """Paid for one word among its tokens, the policy comes to say little else."""
    lm = load_language_model(
        tiny_folders[kind], tiny_config(kind, model=ModelConfig(new=NEW_MODELS[kind]).model_dump())
    )
    if lora:  # adapters leave the head as it is, and a random head of this size cannot tell tokens apart
        lm.model.get_output_embeddings().weight.data *= 20
    optimizer = {"lr": 1e-2 if lora else 5e-3, "schedule": "constant"}
    section = trivial_task("ppo", num_updates=40, value_lr=1e-2, optimizer=optimizer)
    learner = Learner(add_lora(lm, lora, 0), None, section) if lora else Learner(lm, frozen_copy(lm), section)
    scores = mean_scores(learner, 40, lm.codec.tokenizer.convert_tokens_to_ids("milk"))
    assert np.mean(scores[:2]) < 0.1
    assert np.mean(scores[-3:]) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("rloo", {}), ("grpo", {}), ("grpo", {"divide_by_std": True, "divide_by_length": True}), ("reinforce_pp", {})],
)
def test_the_methods_without_a_critic_learn_it_too(algorithm, options, tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    section = trivial_task(algorithm, num_updates=14, optimizer={"lr": 1e-2, "schedule": "constant"}, **options)
    scores = mean_scores(build_learner(lm, section), 14, lm.codec.tokenizer.convert_tokens_to_ids("milk"))
    assert np.mean(scores[:2]) < 0.1
    assert np.mean(scores[-3:]) > 0.7
