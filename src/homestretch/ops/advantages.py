"""Advantages: of tokens (rewards, GAE) and of whole completions against the others of their prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(score_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, beta: float) -> Tensor:
    """Rewards r_t = -beta * kl_t, plus the score on the last token of each completion; shape (B, T).

    Source: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.1; kl_t is k1.
    Every row of `mask_BT` must count at least one token.
    """
    rewards_BT = -beta * kl_BT * mask_BT
    last_B = mask_BT.shape[1] - 1 - mask_BT.flip(1).int().argmax(1)
    rows_B = torch.arange(mask_BT.shape[0], device=mask_BT.device)
    rewards_BT[rows_B, last_B] += score_B
    return rewards_BT


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalized advantage estimates, shape (B, T), zero where masked out.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lam * A_{t+1}; the value after the last token is 0.
    Source: Schulman et al. 2016, arXiv 1506.02438, equation 16. The mask counts a contiguous run from position 0.
    """
    values_BT = values_BT * mask_BT
    rewards_BT = rewards_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    running_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = torch.zeros_like(running_B)
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        running_B = (delta_B + gamma * lam * running_B) * mask_BT[:, t]
        next_value_B = values_BT[:, t]
        advantages_BT[:, t] = running_B
    return advantages_BT


def whiten(values_BT: Tensor, mask_BT: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Shift and scale the counted positions to mean 0 and variance 1 (denominator: their number); others become 0."""
    count = mask_BT.sum()
    mean = (values_BT * mask_BT).sum() / count
    variance = (((values_BT - mean) ** 2) * mask_BT).sum() / count
    return (values_BT - mean) * torch.rsqrt(variance + eps) * mask_BT


def penalized_scores(score_N: Tensor, kl_NT: Tensor, mask_NT: Tensor, *, beta: float) -> Tensor:
    """The completion's reward as one number, shape (N,): score - beta * sum_t kl_t.

    Source: Ahmadian et al. 2024, arXiv 2402.14740; kl_t is k1, and its sum, not its mean, that of the completion.
    """
    return score_N - beta * (kl_NT * mask_NT).sum(1)


def leave_one_out(score_N: Tensor, group_N: Tensor) -> Tensor:
    """A_i = s_i - mean over the other completions of the prompt, shape (N,): RLOO's unbiased baseline.

    Source: Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740. ValueError if a prompt has only one.
    """
    count_N = _group_sizes(group_N)
    return group_centered(score_N, group_N) * (count_N / (count_N - 1)).to(score_N.dtype)


def group_centered(score_N: Tensor, group_N: Tensor) -> Tensor:
    """A_i = s_i - mean over the prompt's completions, itself included, shape (N,).

    Source: Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), and the first step of REINFORCE++-baseline (Hu et al. 2025,
    arXiv 2501.03262). ValueError if a prompt has only one completion.
    """
    _group_sizes(group_N)
    return score_N - _group_mean(score_N, group_N)


def group_standardized(score_N: Tensor, group_N: Tensor, *, eps: float = 1e-4) -> Tensor:
    """A_i = (s_i - mean) / (std + eps) within the prompt, shape (N,); std's denominator is the group's size minus 1.

    Source: GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). ValueError if a prompt has only one completion.
    """
    centered_N = group_centered(score_N, group_N)
    count_N = _group_sizes(group_N)
    variance_N = _group_mean(centered_N**2, group_N) * (count_N / (count_N - 1)).to(score_N.dtype)
    return centered_N / (variance_N.sqrt() + eps)


def over_tokens(advantage_N: Tensor, mask_NT: Tensor) -> Tensor:
    """Every counted token of a completion gets the completion's advantage, shape (N, T); 0 where masked out."""
    return advantage_N[:, None] * mask_NT


def num_equal_groups(score_N: Tensor, group_N: Tensor) -> int:
    """How many prompts with at least two completions have the same score for all: no baseline tells them apart."""
    index_N, count_G = _indexed(group_N)
    low_G, high_G = (
        torch.zeros(len(count_G), dtype=score_N.dtype, device=score_N.device).scatter_reduce(
            0, index_N, score_N, reduce=kind, include_self=False
        )
        for kind in ("amin", "amax")
    )
    return int(((low_G == high_G) & (count_G > 1)).sum())


def _group_mean(value_N: Tensor, group_N: Tensor) -> Tensor:
    """The mean over the prompt's completions, for each of them; float64 inside, so that equal values give exactly 0."""
    index_N, count_G = _indexed(group_N)
    total_G = torch.zeros(len(count_G), dtype=torch.float64, device=value_N.device)
    total_G.index_add_(0, index_N, value_N.double())
    mean_N: Tensor = (total_G / count_G)[index_N]
    return mean_N.to(value_N.dtype)


def _group_sizes(group_N: Tensor) -> Tensor:
    """How many completions the prompt of each has; ValueError if one has no other."""
    index_N, count_G = _indexed(group_N)
    if bool((count_G < 2).any()):
        raise ValueError("a prompt has a single completion, which has no others to be compared with")
    return count_G[index_N]


def _indexed(group_N: Tensor) -> tuple[Tensor, Tensor]:
    """The groups numbered from 0 up, shape (N,), and how many members each has, shape (G,)."""
    _, index_N, count_G = torch.unique(group_N, return_inverse=True, return_counts=True)
    return index_N, count_G
