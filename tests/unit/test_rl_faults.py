"""RL on the smallest and on broken inputs: numbers that are not finite, memory that runs out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_examples
from homestretch import training
from homestretch.algorithms.actor_critic import ActorCritic
from homestretch.config import LengthConfig
from homestretch.models import load_language_model
from homestretch.rewards.composition import RewardComposition
from homestretch.rollouts.collect import collect
from homestretch.training import TrainingError, grouped_microbatches
from homestretch.types import ScoredCompletions
from rl_helpers import ALGORITHMS, build_learner, grouped_rollouts, rl_section, weights, with_prompt

SCORES = [[1.0, -1.0, 0.5], [0.0, 2.0, -0.5]]
CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.fixture(params=["llama", "t5"])
def lm(request, tiny_folders):
    return load_language_model(tiny_folders[request.param], tiny_config(request.param))


@pytest.fixture
def llama(tiny_folders):
    return load_language_model(tiny_folders["llama"], tiny_config())


# --- the smallest inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_eos_alone_and_prompts_of_one_token(algorithm, lm):
    eos = (lm.codec.eos_id,)
    rollouts = grouped_rollouts(lm, SCORES, completions=[eos, (7,), (7, *eos)])
    rollouts = [with_prompt(r, r.example, r.prompt_ids[:1]) if i < 3 else r for i, r in enumerate(rollouts)]
    learner = build_learner(lm, rl_section(algorithm))
    before = weights(learner)
    stats = learner.update(rollouts, np.random.default_rng(0))
    assert stats.ratio_first == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(weights(learner)).all()
    assert not torch.equal(weights(learner), before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_cap_of_one_token(algorithm, lm):
    def reward(_examples, completions):
        scores = np.array([float(c.terminated) + len(c.text) for c in completions])
        return ScoredCompletions(scores, {"score": scores})

    section = rl_section(algorithm, completions_per_prompt=4)
    rollouts = collect(lm, reward, tiny_examples(2), section, max_new_tokens=1, seed=0)
    assert {len(r.completion_ids) for r in rollouts} == {1}
    assert np.isfinite(build_learner(lm, section).update(rollouts, np.random.default_rng(0)).gradient_norm)


def test_ppo_with_one_completion_per_prompt(lm):
    learner = build_learner(lm, rl_section("ppo", completions_per_prompt=1))
    stats = learner.update(grouped_rollouts(lm, [[1.0], [-1.0], [0.5]]), np.random.default_rng(0))
    assert stats.gradient_norm > 0
    assert stats.equal_groups == 0


# --- numbers that are not finite -------------------------------------------------------------------------------------


def refused(learner, rollouts) -> str:
    """The message of an update that must have applied nothing."""
    before = weights(learner)
    with pytest.raises(TrainingError) as caught:
        learner.update(rollouts, np.random.default_rng(0))
    assert torch.equal(weights(learner), before) or before.isnan().any()
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_term_that_is_not_finite_is_named_and_nothing_applied(algorithm, llama):
    rollouts = grouped_rollouts(llama, SCORES)
    learner = build_learner(llama, rl_section(algorithm, optimizer={"lr": 1e-2}))
    bad = [replace(rollouts[0], score=float("inf")), *rollouts[1:]]
    assert refused(learner, bad).startswith("rl/score is not finite")

    handle = llama.model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * float("nan"))
    assert refused(learner, rollouts).startswith("rl: the gradient is not finite")
    handle.remove()

    learner.frozen.model.get_output_embeddings().weight.data[0] = float("nan")
    assert refused(learner, rollouts).startswith("rl/reference_logprobs is not finite")
    llama.model.get_output_embeddings().weight.data[0] = float("nan")
    assert refused(learner, rollouts).startswith("rl/logprobs is not finite")


def test_a_critic_that_is_not_finite_is_named(llama):
    learner = build_learner(llama, rl_section("ppo"))
    learner.actor_critic.value_head.bias.data[:] = float("inf")
    assert refused(learner, grouped_rollouts(llama, SCORES)).startswith("rl/values is not finite")


def test_a_reward_that_is_not_finite_is_named(llama):
    composition = RewardComposition(
        lambda examples, completions: np.array([np.nan, *[0.0] * (len(examples) - 1)]),
        -3.0, None, LengthConfig(), "none",
    )  # fmt: skip
    with pytest.raises(TrainingError, match="rl/reward_model is not finite for 1 of 8"):
        collect(llama, composition, tiny_examples(2), rl_section("ppo"), max_new_tokens=3, seed=0)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_group_larger_than_the_budget_is_split():
    prompts, lengths = [(1,) * 10] * 5 + [(2,) * 4], [5, 3, 5, 2, 5, 4]
    assert grouped_microbatches(prompts, lengths, 1000) == [[5, 0, 1, 2, 3, 4]]
    parts = grouped_microbatches(prompts, lengths, 20)
    assert sorted(i for part in parts for i in part) == list(range(6))
    for part in parts:
        rows = {prompts[i] for i in part}
        assert sum(len(p) + sum(5 for i in part if prompts[i] == p) for p in rows) <= 20
    assert sorted(map(len, grouped_microbatches(prompts, lengths, 1))) == [1] * 6


def limit_memory(monkeypatch, most_tokens, error, only_with_gradient=False):
    """Let the policy's forward fail as if memory ran out with more than so many tokens in a micro-batch."""
    plain = ActorCritic.forward

    def forward(self, prompts, completions, **options):
        tokens = sum(map(len, set(prompts))) + sum(map(len, completions))
        if tokens > most_tokens and (torch.is_grad_enabled() or not only_with_gradient):
            raise error
        return plain(self, prompts, completions, **options)

    monkeypatch.setattr(ActorCritic, "forward", forward)


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR], ids=["cuda", "cpu"])
@pytest.mark.parametrize("only_with_gradient", [False, True])
def test_micro_batches_are_halved_where_memory_runs_out(error, only_with_gradient, llama, tiny_folders, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(training, "say", said.append)
    after = []
    for is_limited in (False, True):
        lm = load_language_model(tiny_folders["llama"], tiny_config())
        learner = build_learner(lm, rl_section("ppo", optimizer={"lr": 1e-3}, tokens_per_microbatch=500))
        if is_limited:
            limit_memory(monkeypatch, 45, error, only_with_gradient)
        rng = np.random.default_rng(0)
        stats = [learner.update(grouped_rollouts(lm, [*SCORES, [0.1, 0.2]]), rng) for _ in range(2)]
        after.append((weights(learner), [s.policy_loss for s in stats], learner.budget.tokens))
    assert after[0][2] == 500
    assert after[1][2] == 40  # the longest sequence
    assert after[1][1] == pytest.approx(after[0][1], abs=1e-5)
    assert ((after[0][0] - after[1][0]).abs() < 1e-5).float().mean() > 0.999
    assert len(said) == 1
    assert "rl.tokens_per_microbatch=500; 40 fit" in said[0]


def test_a_step_that_runs_out_half_way_starts_from_zeroed_gradients(llama, tiny_folders, monkeypatch):
    """The small micro-batch of a step comes first and leaves gradients behind before the large one fails."""
    norms = []
    for is_limited in (False, True):
        lm = load_language_model(tiny_folders["llama"], tiny_config())
        learner = build_learner(lm, rl_section("grpo", tokens_per_microbatch=90))
        if is_limited:
            limit_memory(monkeypatch, 50, CPU_ERROR, only_with_gradient=True)
        rollouts = grouped_rollouts(lm, SCORES)
        rollouts = [with_prompt(r, r.example, r.prompt_ids[:1]) if i < 3 else r for i, r in enumerate(rollouts)]
        norms.append(learner.update(rollouts, np.random.default_rng(0)).gradient_norm)
    assert learner.budget.tokens == 45
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_a_single_sequence_that_does_not_fit_is_an_error_with_a_fix(llama, monkeypatch):
    learner = build_learner(llama, rl_section("grpo"))
    limit_memory(monkeypatch, 30, CPU_ERROR)
    message = refused(learner, grouped_rollouts(llama, SCORES))
    assert "out of memory with a single sequence of" in message
    assert "lower data.max_prompt_tokens" in message


def test_other_errors_are_not_taken_for_it(llama, monkeypatch):
    learner = build_learner(llama, rl_section("grpo"))
    limit_memory(monkeypatch, 30, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        learner.update(grouped_rollouts(llama, SCORES), np.random.default_rng(0))
