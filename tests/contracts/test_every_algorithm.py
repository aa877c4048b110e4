"""Every algorithm of the config passes the same battery, on tensors alone: no model is needed to check one."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from homestretch.algorithms import build_algorithm
from homestretch.algorithms.actor_critic import TokenOutputs
from homestretch.algorithms.base import Algorithm, Loss, MinibatchSize, Targets, Trajectories
from homestretch.config import AlgorithmConfig, RunConfig
from homestretch.recipe import variants

SECTIONS = variants(RunConfig.model_fields["rl"].annotation)
OPTIONS = {name: {} for name in SECTIONS} | {
    "grpo-original": {"divide_by_std": True, "divide_by_length": True},
    "grpo-denominator": {"token_denominator": 5},
    "grpo-clip-higher": {"clip_range_high": 0.28},
}
GROUP_METHODS = [name for name in OPTIONS if name != "ppo"]
CAP = 9
LENGTHS = [3, 1, 7, 4, 5, 2]
GROUPS = [0, 0, 0, 1, 1, 1]
PAGES = Path(__file__).parents[2] / "docs" / "algorithms"


def build(name: str) -> Algorithm:
    section = SECTIONS[name.partition("-")[0]]
    return build_algorithm(section.model_validate(OPTIONS[name]), max_completion_tokens=CAP)


def trajectories(*, needs_critic: bool, seed: int = 0) -> Trajectories:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    logprobs, noise, values = torch.randn(3, *mask.shape, generator=generator) * mask
    return Trajectories(
        mask=mask,
        logprobs=-logprobs.abs(),
        reference_logprobs=-logprobs.abs() + 0.1 * noise,
        values=values if needs_critic else None,
        scores=torch.randn(len(LENGTHS), generator=generator),
        groups=torch.tensor(GROUPS),
    )


def prepared(name: str) -> tuple[Algorithm, Trajectories, Targets]:
    algorithm = build(name)
    old = trajectories(needs_critic=algorithm.needs_critic)
    return algorithm, old, algorithm.advantages(old, beta=0.05)


def outputs(old: Trajectories, *, shift: float = 0.0) -> TokenOutputs:
    """What the policy says after some steps: the old log-probs moved here and there."""
    generator = torch.Generator().manual_seed(7)
    moved = old.logprobs + shift * torch.randn(old.mask.shape, generator=generator) * old.mask
    values = None if old.values is None else (old.values + shift * old.mask).requires_grad_()
    return TokenOutputs(moved.requires_grad_(), values, None, old.mask)


def part_of(record, rows, width):
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    cut = {k: v[rows, :width] if v.ndim == 2 else v[rows] for k, v in values.items() if v is not None}
    return replace(record, **cut)


WHOLE = MinibatchSize(completions=len(LENGTHS), tokens=sum(LENGTHS))


@pytest.mark.parametrize("name", OPTIONS)
def test_advantages_are_finite_and_0_where_masked_out(name):
    _, old, targets = prepared(name)
    for tensor in (targets.advantages, targets.returns):
        if tensor is not None:
            assert tensor.shape == old.mask.shape
            assert torch.isfinite(tensor).all()
            assert (tensor[~old.mask] == 0).all()
    assert targets.advantages.abs().sum() > 0


@pytest.mark.parametrize("name", OPTIONS)
def test_a_critic_is_there_if_and_only_if_it_is_needed(name):
    algorithm, old, targets = prepared(name)
    loss = algorithm.loss(outputs(old), old, targets, WHOLE)
    assert algorithm.needs_critic == (name == "ppo")
    assert (loss.value is not None) == (targets.returns is not None) == algorithm.needs_critic


@pytest.mark.parametrize("name", OPTIONS)
def test_masked_tokens_get_no_gradient_and_have_no_say(name):
    algorithm, old, targets = prepared(name)
    new = outputs(old, shift=0.1)
    algorithm.loss(new, old, targets, WHOLE).total.backward()
    assert (new.logprobs.grad[~old.mask] == 0).all()
    assert new.logprobs.grad[old.mask].abs().sum() > 0
    rubbish = replace(new, logprobs=torch.where(old.mask, new.logprobs, 3.0))
    again = algorithm.loss(rubbish, old, targets, WHOLE)
    assert again.total.item() == pytest.approx(algorithm.loss(new, old, targets, WHOLE).total.item(), abs=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_at_ratio_1_the_loss_is_minus_the_mean_advantage_under_the_named_denominator(name):
    algorithm, old, targets = prepared(name)
    loss = algorithm.loss(outputs(old), old, targets, WHOLE)
    rows = [targets.advantages[i, :n].tolist() for i, n in enumerate(LENGTHS)]
    per_token = sum(map(sum, rows)) / sum(LENGTHS)
    expected = {
        "ppo": per_token,
        "reinforce_pp": per_token,
        "rloo": sum(row[0] for row in rows) / len(rows),
        "grpo": sum(map(sum, rows)) / (len(rows) * CAP),
        "grpo-clip-higher": sum(map(sum, rows)) / (len(rows) * CAP),
        "grpo-denominator": sum(map(sum, rows)) / (len(rows) * 5),
        "grpo-original": sum(sum(row) / len(row) for row in rows) / len(rows),
    }
    assert loss.policy.item() == pytest.approx(-expected[name], abs=1e-6)
    assert loss.clipped.item() == 0


@pytest.mark.parametrize("name", OPTIONS)
def test_at_ratio_1_the_gradient_is_that_of_reinforce(name):
    algorithm, old, targets = prepared(name)
    new = outputs(old)
    algorithm.loss(new, old, targets, WHOLE).policy.backward()
    plain = old.logprobs.clone().requires_grad_()
    weights = targets.advantages
    if name == "grpo-original":
        weights = weights / old.mask.sum(1, keepdim=True)
    (-(plain * weights).sum()).backward()
    scale = new.logprobs.grad.abs().sum() / plain.grad.abs().sum()
    assert torch.allclose(new.logprobs.grad, plain.grad * scale, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_microbatches_add_up_to_the_minibatch(name):
    algorithm, old, targets = prepared(name)
    whole_input = outputs(old, shift=0.4)
    whole = algorithm.loss(whole_input, old, targets, WHOLE)
    whole.total.backward()
    assert whole.clipped.item() > 0
    parts_input, shares = outputs(old, shift=0.4), []
    for rows in ([4, 1], [0, 5, 3], [2]):
        width = max(LENGTHS[i] for i in rows)
        part = (part_of(record, rows, width) for record in (parts_input, old, targets))
        shares.append(algorithm.loss(*part, WHOLE))
        shares[-1].total.backward()
    for field in fields(Loss):
        if getattr(whole, field.name) is not None:
            total = sum(getattr(share, field.name).item() for share in shares)
            assert total == pytest.approx(getattr(whole, field.name).item(), abs=1e-6), field.name
    assert torch.allclose(parts_input.logprobs.grad, whole_input.logprobs.grad, atol=1e-7)


@pytest.mark.parametrize("name", GROUP_METHODS)
def test_a_group_of_equal_scores_teaches_nothing(name):
    algorithm, old, _ = prepared(name)
    equal = replace(old, scores=torch.tensor([0.3] * 3 + [-0.1] * 3), reference_logprobs=old.logprobs)
    targets = algorithm.advantages(equal, beta=0.05)
    assert (targets.advantages == 0).all()


@pytest.mark.parametrize("name", GROUP_METHODS)
def test_only_differences_within_a_prompt_count(name):
    algorithm, old, targets = prepared(name)
    moved = replace(old, scores=old.scores + torch.tensor([5.0] * 3 + [-2.0] * 3))
    assert torch.allclose(algorithm.advantages(moved, beta=0.05).advantages, targets.advantages, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_better_scores_give_better_advantages_and_the_kl_costs(name):
    algorithm, old, _ = prepared(name)
    better = replace(old, scores=old.scores + torch.tensor([3.0, 0, 0, 0, 0, 0]))
    sums = [algorithm.advantages(t, beta=0.0).advantages[0].sum() for t in (old, better)]
    assert sums[1] > sums[0]
    far = replace(old, reference_logprobs=old.reference_logprobs - 3.0 * old.mask * (torch.arange(6) == 2)[:, None])
    sums = [algorithm.advantages(t, beta=0.5).advantages[2].sum() for t in (old, far)]
    assert sums[1] < sums[0]


def test_a_critic_only_update_leaves_the_policy_alone():
    algorithm, old, targets = prepared("ppo")
    new = outputs(old, shift=0.1)
    algorithm.critic_loss(new, old, targets, WHOLE).total.backward()
    assert new.logprobs.grad is None or (new.logprobs.grad == 0).all()
    assert new.values.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_names_source_and_every_key_of_its_own(name):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert f"rl.algorithm: {name}" in page
    assert "arxiv.org/abs/" in page
    for key in set(SECTIONS[name].model_fields) - set(AlgorithmConfig.model_fields):
        assert f"`{key}`" in page, key
