"""RL on the smallest and on broken inputs: numbers that are not finite, memory that runs out."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakSet

import numpy as np
import pytest
import torch

from homestretch import training
from homestretch.algorithms.actor_critic import ActorCritic
from homestretch.config import LengthConfig, SamplingConfig
from homestretch.encoding import encoded_pairs
from homestretch.models import load_language_model
from homestretch.rewards import training as reward_training
from homestretch.rewards.composition import RewardComposition
from homestretch.rewards.reward_model import RewardModel, build_reward_model
from homestretch.rollouts.collect import collect
from homestretch.rollouts.rows import Seq2SeqRows
from homestretch.rollouts.sampler import generate
from homestretch.rollouts.slots import SlotRows, supports_slots
from homestretch.rundir import RunDir
from homestretch.stages import sft
from homestretch.training import MemoryBudget, TrainingError, grouped_microbatches
from homestretch.types import Completion, Judged, ScoredCompletions
from rl_helpers import ALGORITHMS, build_learner, grouped_rollouts, rl_section, weights, with_prompt
from tiny import tiny_config, tiny_examples

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
        after.append((weights(learner), [s.policy_loss for s in stats], learner.budget.size))
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
    assert learner.budget.size == 45
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


def fail_once_larger(monkeypatch, owner, name, size_of, most, error=CUDA_ERROR):
    """Let a function fail as if memory ran out where `size_of` its arguments is more than `most`; the sizes it saw."""
    plain, seen = getattr(owner, name), []

    def limited(*arguments, **options):
        seen.append(size_of(*arguments, **options))
        if seen[-1] > most:
            raise type(error)(*error.args)  # a new one: an error holds on to the frames it went through
        return plain(*arguments, **options)

    monkeypatch.setattr(owner, name, limited)
    return seen


def num_ids(encoded):
    return sum(map(len, {e.read_once for e in encoded})) + sum(e.num_read for e in encoded)


@pytest.mark.parametrize("sampling", [None, SamplingConfig()], ids=["greedy", "sampled"])
def test_sampling_halves_its_slots_and_draws_the_same(sampling, lm, monkeypatch):
    def drawn(size, count=3):
        return generate(lm, tiny_examples(9), max_new_tokens=8, batch_size=size, sampling=sampling, num_samples=count)

    expected, said = drawn(27), []
    monkeypatch.setattr(training, "say", said.append)
    rows = Seq2SeqRows if lm.family == "seq2seq" else SlotRows
    seen = fail_once_larger(monkeypatch, rows, "step", lambda self, chosen: len(chosen), 10, CPU_ERROR)
    budget = MemoryBudget(27, "rl.sampling.batch_size")
    lm.model.train()
    for _ in range(2):
        found = drawn(budget)
        assert [[c.ids for c in row] for row in found] == [[c.ids for c in row] for row in expected]
        for ours, theirs in zip(found, expected, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert lm.model.training
    assert budget.size == 6
    assert sum(size > 10 for size in seen) == 2, "27 and 13 are tried once, and never again"
    assert said == ["memory ran out with rl.sampling.batch_size=27; 6 fit and are used from now on (same result)"]
    with pytest.raises(
        TrainingError, match=r"rl\.sampling\.batch_size: out of memory with one prompt's 11 completions; lo"
    ):
        drawn(budget, count=11)


def test_caches_of_a_failed_attempt_are_gone_before_the_next(llama, monkeypatch):
    caches, plain = WeakSet(), SlotRows.__init__

    def watched(self, *arguments, **options):
        assert not caches, "two sets of caches at once"
        plain(self, *arguments, **options)
        caches.add(self)

    supports_slots(llama)
    monkeypatch.setattr(SlotRows, "__init__", watched)
    fail_once_larger(monkeypatch, SlotRows, "step", lambda self, chosen: len(chosen), 2)
    generate(llama, tiny_examples(8), max_new_tokens=4, batch_size=8)


def test_scoring_halves_its_micro_batches(tiny_folders, monkeypatch):
    config, said = tiny_config(reward={"tokens_per_microbatch": 400}), []
    model = build_reward_model(config, tiny_folders["llama"])
    examples = [e for e in tiny_examples(6) for _ in range(2)]
    completions = [Completion(e.reference, terminated=i % 2 == 0) for i, e in enumerate(examples)]
    expected = model.raw(examples, completions)
    monkeypatch.setattr(training, "say", said.append)
    fail_once_larger(monkeypatch, RewardModel, "logits", lambda self, pairs: num_ids(pairs), 110)
    assert model.raw(examples, completions) == pytest.approx(expected, abs=1e-5)
    assert model.raw(examples, completions) == pytest.approx(expected, abs=1e-5)
    assert (len(said), model.budget.size) == (1, 100)
    assert "reward.tokens_per_microbatch=400; 100 fit" in said[0]
    fail_once_larger(monkeypatch, RewardModel, "logits", lambda self, pairs: num_ids(pairs), 20)
    with pytest.raises(TrainingError, match=r"reward\.tokens_per_microbatch: out of memory with a single sequence of"):
        model.raw(examples, completions)


def fail_twice(monkeypatch, owner, name):
    """Let a function fail as if memory ran out in its second call, which leaves gradients of the first behind, and in
    its first call without gradients; the kinds of failures that have been."""
    failed, calls = [], []

    def kind(*arguments):
        calls.append(torch.is_grad_enabled())
        due = len(calls) == 2 if calls[-1] else calls.count(False) == 1
        failed.extend(["training" if calls[-1] else "validation"] * due)
        return int(due)

    fail_once_larger(monkeypatch, owner, name, kind, 0)
    return failed


def stage_config(tmp_path, **sections):
    return tiny_config(output_dir=str(tmp_path), seed=3, **sections), RunDir(tmp_path)


def test_sft_and_its_validation_halve_their_micro_batches(tiny_folders, tmp_path, monkeypatch):
    settings = {"batch_size": 8, "num_epochs": 3, "optimizer": {"lr": 1e-2}, "tokens_per_microbatch": 200}
    losses, said = [], []
    monkeypatch.setattr(training, "say", said.append)
    for is_limited in (False, True):
        config, rundir = stage_config(tmp_path / str(is_limited), sft=settings)
        rundir.path.mkdir()
        lm = load_language_model(tiny_folders["llama"], config)
        pairs = encoded_pairs(lm.codec, tiny_examples(8))[0]
        if is_limited:
            failed = fail_twice(monkeypatch, sft, "summed_nll")
        losses.append(sft._train(config, rundir, lm, pairs, pairs, rundir.path / "best.safetensors"))
    assert losses[1][0] == pytest.approx(losses[0][0], abs=1e-5)
    assert failed == ["training", "validation"]
    assert [line.partition(";")[0].split()[-1] for line in said] == [
        "sft.tokens_per_microbatch=200", "sft.tokens_per_microbatch=100",
    ]  # fmt: skip


def test_reward_training_and_its_validation_halve_their_micro_batches(tiny_folders, tmp_path, monkeypatch):
    settings = {"prompts_per_batch": 8, "num_epochs": 3, "optimizer": {"lr": 1e-2}, "tokens_per_microbatch": 300}
    found, said = [], []
    monkeypatch.setattr(training, "say", said.append)
    judged = [
        Judged(e.id, Completion(text), mode=mode, label=label, span=(0, 0), note="", seed=0)
        for e in tiny_examples(8)
        for text, mode, label in ((e.reference, "reference", 1.0), (e.reference[:9], "truncation", 0.0))
    ]
    for is_limited in (False, True):
        config, rundir = stage_config(tmp_path / str(is_limited), reward=settings)
        rundir.path.mkdir()
        model = build_reward_model(config, tiny_folders["llama"])
        groups = reward_training.reward_groups(model, tiny_examples(8), judged)
        if is_limited:
            failed = fail_twice(monkeypatch, RewardModel, "logits")
        reward_training.optimize(config, model, groups, groups, best=rundir.path / "best.safetensors")
        found.append(reward_training.validate(config, model, groups))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert failed == ["training", "validation"]
    assert [line.partition(";")[0].split()[-1] for line in said] == [
        "reward.tokens_per_microbatch=300", "reward.tokens_per_microbatch=150",
    ]  # fmt: skip
    fail_once_larger(monkeypatch, RewardModel, "logits", lambda self, pairs: num_ids(pairs), 20)
    with pytest.raises(TrainingError, match="out of memory with a single prompt's judged completions"):
        reward_training.validate(config, model, groups)
