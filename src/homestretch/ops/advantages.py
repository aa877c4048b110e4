"""Advantages and returns of token-level trajectories."""

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
