"""Proximal policy optimization on completions (Schulman et al. 2017, arXiv 1707.06347; Ziegler et al. 2019).

Score on the last token, k1 KL to the SFT model on every token, GAE with a critic on the policy's trunk, whitened
advantages, clipped policy and value losses. Details as in Huang et al. 2024, arXiv 2403.17031.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from homestretch.config import PPOConfig
from homestretch.ops.advantages import gae, token_rewards, whiten
from homestretch.ops.kl import k1
from homestretch.ops.losses import clipped_surrogate, clipped_value_loss


@dataclass(frozen=True, slots=True)
class Trajectories:
    """All rollouts of an update as tensors (N, T); `mask` is True on sampled tokens, the terminator included."""

    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor
    scores: Tensor
    """Sequence-level scores, shape (N,)."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses aim at, (N, T)."""

    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums over a micro-batch's tokens; the caller divides by the minibatch's number of tokens."""

    policy: Tensor
    value: Tensor
    clipped: Tensor
    approx_kl: Tensor
    ratio_error: Tensor


def targets(trajectories: Trajectories, config: PPOConfig, *, beta: float) -> Targets:
    """Whitened advantages and unwhitened returns."""
    t = trajectories
    rewards_NT = token_rewards(t.scores, k1(t.logprobs, t.reference_logprobs), t.mask, beta=beta)
    advantages_NT = gae(rewards_NT, t.values, t.mask, gamma=config.gamma, lam=config.gae_lambda)
    return Targets(whiten(advantages_NT, t.mask), (advantages_NT + t.values) * t.mask)


def loss_sums(logprobs_BT: Tensor, values_BT: Tensor, old: Trajectories, aim: Targets, config: PPOConfig) -> LossSums:
    """The clipped losses summed over counted tokens, with what is monitored; `old` and `aim` hold the same rows."""
    mask_BT = old.mask
    policy_BT, clipped_BT = clipped_surrogate(logprobs_BT, old.logprobs, aim.advantages, clip_range=config.clip_range)
    value_BT = clipped_value_loss(values_BT, old.values, aim.returns, clip_range=config.value_clip_range)
    with torch.no_grad():
        log_ratio_BT = (logprobs_BT - old.logprobs) * mask_BT
        ratio_error_BT = torch.expm1(log_ratio_BT)
        approx_kl_BT = ratio_error_BT - log_ratio_BT
    return LossSums(
        policy=(policy_BT * mask_BT).sum(),
        value=(value_BT * mask_BT).sum(),
        clipped=(clipped_BT & mask_BT).sum(),
        approx_kl=approx_kl_BT.sum(),
        ratio_error=ratio_error_BT.abs().sum(),
    )
