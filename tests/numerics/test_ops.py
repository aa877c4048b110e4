"""The RL mathematics, recomputed by plain loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from homestretch.ops.advantages import (
    gae,
    group_centered,
    group_standardized,
    leave_one_out,
    num_equal_groups,
    over_tokens,
    penalized_scores,
    token_rewards,
    whiten,
)
from homestretch.ops.kl import adapted_beta, k1, k3
from homestretch.ops.logprobs import entropy, selected_logprobs
from homestretch.ops.losses import (
    bradley_terry,
    clipped_surrogate,
    clipped_value_loss,
    dpo,
    smoothed_bce,
    token_means,
    token_sums,
    unlikelihood,
)

LENGTHS = [1, 4, 7, 3]


def random_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 4, 7, generator=generator)
    mask = torch.arange(7)[None] < torch.tensor(LENGTHS)[:, None]
    return rewards, values, mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_sum_of_discounted_deltas(gamma, lam):
    rewards, values, mask = random_batch()
    found = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for b, length in enumerate(LENGTHS):
        r, v = rewards[b].tolist(), [*values[b, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, length))
            assert found[b, t].item() == pytest.approx(expected, abs=1e-5)
        assert (found[b, length:] == 0).all()


def test_with_lambda_1_advantages_are_returns_minus_values():
    rewards, values, mask = random_batch()
    found = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    returns = (rewards * mask).flip(1).cumsum(1).flip(1)
    assert torch.allclose(found, (returns - values) * mask, atol=1e-5)


def test_the_score_stands_on_the_last_token_and_kl_on_every_one():
    _, kl, mask = random_batch()
    score = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rewards = token_rewards(score, kl, mask, beta=0.1)
    for b, length in enumerate(LENGTHS):
        for t in range(7):
            expected = (-0.1 * kl[b, t].item() if t < length else 0.0) + (score[b].item() if t == length - 1 else 0.0)
            assert rewards[b, t].item() == pytest.approx(expected, abs=1e-6)


def test_whitened_values_have_mean_0_and_variance_1_over_the_mask():
    _, values, mask = random_batch()
    white = whiten(values, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].var(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    assert (white[~mask] == 0).all()


def test_selected_logprobs_and_entropy_are_those_of_the_tempered_softmax():
    logits, ids = torch.randn(2, 3, 11), torch.randint(0, 11, (2, 3))
    reference = torch.log_softmax(logits / 0.7, -1)
    assert torch.allclose(
        selected_logprobs(logits, ids, temperature=0.7), reference.gather(-1, ids[..., None])[..., 0], atol=1e-6
    )
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    assert torch.allclose(entropy(logits, temperature=0.7), expected, atol=1e-6)


def test_kl_estimators_are_unbiased():
    p, q = torch.softmax(torch.tensor([0.5, 1.0, -1.0]), 0), torch.softmax(torch.tensor([0.0, 0.3, 0.2]), 0)
    exact = (p * (p / q).log()).sum()
    assert (p * k1(p.log(), q.log())).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(exact.item(), abs=1e-6)
    assert (k3(p.log(), q.log()) >= 0).all()


def test_beta_rises_above_the_target_and_falls_below_it():
    assert adapted_beta(0.1, 8.0, target=4.0, horizon=100, num_completions=50) == pytest.approx(0.1 * 1.1)
    assert adapted_beta(0.1, 2.0, target=4.0, horizon=100, num_completions=50) == pytest.approx(0.1 * 0.9)
    assert adapted_beta(0.1, 4.0, target=4.0, horizon=100, num_completions=50) == pytest.approx(0.1)


def test_at_ratio_1_the_policy_loss_is_minus_the_mean_advantage():
    advantages, logprobs, mask = random_batch()
    loss, clipped = clipped_surrogate(logprobs, logprobs, advantages, clip_low=0.2, clip_high=0.2)
    assert loss[mask].mean().item() == pytest.approx(-advantages[mask].mean().item(), abs=1e-6)
    assert not clipped.any()


def test_the_clip_stops_only_moves_that_would_gain():
    old = torch.zeros(1, 4)
    new = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, clipped = clipped_surrogate(new, old, advantages, clip_low=0.2, clip_high=0.2)
    assert torch.allclose(loss, torch.tensor([[-1.2, 1.5, -0.5, 0.8]]))
    assert clipped.tolist() == [[True, False, False, True]]


def test_the_upper_end_of_the_clip_may_be_another():
    new = torch.tensor([1.25, 1.5, 0.75]).log()
    loss, clipped = clipped_surrogate(new, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), clip_low=0.2, clip_high=0.28)
    assert loss.tolist() == pytest.approx([-1.25, -1.28, 0.8])
    assert clipped.tolist() == [False, True, True]


GROUPS = [5, 0, 5, 0, 0, 5, 9, 9]


def random_scores() -> list[float]:
    return torch.randn(len(GROUPS), generator=torch.Generator().manual_seed(1)).tolist()


def rivals(i: int) -> list[int]:
    return [j for j in range(len(GROUPS)) if GROUPS[j] == GROUPS[i]]


def test_leave_one_out_compares_with_the_others():
    scores = random_scores()
    found = leave_one_out(torch.tensor(scores), torch.tensor(GROUPS)).tolist()
    for i, score in enumerate(scores):
        others = [scores[j] for j in rivals(i) if j != i]
        assert found[i] == pytest.approx(score - sum(others) / len(others), abs=1e-6)


def test_centred_and_standardized_groups():
    scores = random_scores()
    centred = group_centered(torch.tensor(scores), torch.tensor(GROUPS)).tolist()
    standardized = group_standardized(torch.tensor(scores), torch.tensor(GROUPS), eps=1e-4).tolist()
    for i, score in enumerate(scores):
        of_group = [scores[j] for j in rivals(i)]
        assert centred[i] == pytest.approx(score - statistics.mean(of_group), abs=1e-6)
        expected = (score - statistics.mean(of_group)) / (statistics.stdev(of_group) + 1e-4)
        assert standardized[i] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("advantage", [leave_one_out, group_centered, group_standardized])
def test_equal_scores_give_exactly_0_and_a_single_completion_is_refused(advantage):
    scores = torch.full((3,), 0.1)
    assert (advantage(scores, torch.tensor([4, 4, 4])) == 0).all()
    with pytest.raises(ValueError, match="no others"):
        advantage(scores, torch.tensor([4, 4, 7]))


def test_equal_groups_are_counted_without_those_of_one():
    scores = torch.tensor([1.0, 1.0, 2.0, 3.0, 0.5, 0.5, 0.5, -1.0])
    assert num_equal_groups(scores, torch.tensor([3, 3, 1, 1, 8, 8, 8, 2])) == 2


def test_the_sequence_kl_is_taken_from_the_score():
    _, kl, mask = random_batch()
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = penalized_scores(scores, kl, mask, beta=0.1)
    for b, length in enumerate(LENGTHS):
        assert found[b].item() == pytest.approx(scores[b].item() - 0.1 * sum(kl[b, :length].tolist()), abs=1e-5)
    assert over_tokens(found, mask).tolist() == [[s if t < n else 0.0 for t in range(7)]
                                                 for s, n in zip(found.tolist(), LENGTHS, strict=True)]  # fmt: skip


def test_token_losses_are_summed_or_averaged_per_completion():
    losses, _, mask = random_batch()
    for b, length in enumerate(LENGTHS):
        total = sum(losses[b, :length].tolist())
        assert token_sums(losses, mask)[b].item() == pytest.approx(total, abs=1e-5)
        assert token_means(losses, mask)[b].item() == pytest.approx(total / length, abs=1e-5)


def test_the_value_loss_takes_the_larger_of_both():
    loss = clipped_value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0]), clip_range=0.2)
    assert loss.item() == pytest.approx(0.5 * 1.8**2)
    loss = clipped_value_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.0]), clip_range=0.2)
    assert loss.item() == pytest.approx(0.5)


def test_bradley_terry_averages_over_the_pairs_of_each_group():
    logits, labels = torch.tensor([1.0, 0.0, -1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    group = torch.tensor([0, 0, 0, 1, 1])
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    assert bradley_terry(logits, labels, group).tolist() == pytest.approx([expected])


def test_smoothed_bce_moves_the_labels():
    loss = smoothed_bce(torch.tensor([0.3]), torch.tensor([1.0]), smoothing=0.1)
    p = 1 / (1 + math.exp(-0.3))
    assert loss.item() == pytest.approx(-(0.9 * math.log(p) + 0.1 * math.log(1 - p)), abs=1e-6)


def test_dpo_is_minus_log_sigmoid_of_the_difference_of_log_ratios():
    values = [[-3.0, -5.0, -2.0], [-4.0, -1.0, -2.5], [-3.5, -5.5, -2.0], [-3.9, -2.0, -2.5]]
    found = dpo(*(torch.tensor(v, dtype=torch.float64) for v in values), beta=0.3)
    for i, (chosen, rejected, ref_chosen, ref_rejected) in enumerate(zip(*values, strict=True)):
        margin = (chosen - ref_chosen) - (rejected - ref_rejected)
        assert found[i].item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.3 * margin))), rel=1e-9)
    assert found[2].item() == pytest.approx(math.log(2))  # at the reference model itself
    assert dpo(*(torch.tensor([x]) for x in (0.0, -9e4, -9e4, 0.0)), beta=1.0).item() == 0.0  # no overflow
    assert torch.isfinite(dpo(*(torch.tensor([x]) for x in (-9e4, 0.0, 0.0, -9e4)), beta=1.0)).all()


def test_dpo_s_gradient_is_beta_times_the_chance_that_the_order_is_wrong():
    chosen, rejected = torch.tensor([-3.0, -1.0], requires_grad=True), torch.tensor([-2.0, -5.0], requires_grad=True)
    reference = torch.tensor([-2.5, -2.5]), torch.tensor([-2.5, -2.5])
    dpo(chosen, rejected, *reference, beta=0.5).sum().backward()
    wrong = torch.sigmoid(-0.5 * (chosen - rejected)).detach()
    assert torch.allclose(chosen.grad, -0.5 * wrong)  # descent raises the reference's log-prob
    assert torch.allclose(rejected.grad, 0.5 * wrong)  # and lowers the negative's
    assert wrong[0] > 0.5 > wrong[1]


def test_unlikelihood_is_minus_log_of_one_minus_p():
    probabilities = [0.5, 0.01, 0.9, 1e-7]
    logprobs = torch.tensor([math.log(p) for p in probabilities], requires_grad=True)
    losses = unlikelihood(logprobs)
    losses.sum().backward()
    for i, p in enumerate(probabilities):
        assert losses[i].item() == pytest.approx(-math.log1p(-p), rel=1e-4)
        assert logprobs.grad[i].item() == pytest.approx(p / (1 - p), rel=1e-4)  # positive: descent makes it rarer


def test_unlikelihood_is_finite_for_a_token_that_is_certain():
    logits = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    logprob = selected_logprobs(logits, torch.tensor([0]))
    assert logprob.item() == 0.0
    loss = unlikelihood(logprob).sum()
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e5), rel=1e-3)
    assert torch.isfinite(logits.grad).all()
