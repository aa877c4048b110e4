"""Estimators of KL(policy || reference) from sampled tokens, and the controller of its weight."""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprob_BT: Tensor, reference_logprob_BT: Tensor) -> Tensor:
    """log p - log q per token: unbiased, may be negative. Source: Schulman 2020, "Approximating KL Divergence"."""
    return logprob_BT - reference_logprob_BT


def k3(logprob_BT: Tensor, reference_logprob_BT: Tensor) -> Tensor:
    """(q/p - 1) - log(q/p) per token: unbiased, never negative; a monitor. Source: Schulman 2020."""
    log_ratio_BT = reference_logprob_BT - logprob_BT
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def adapted_beta(beta: float, observed_kl: float, *, target: float, horizon: int, num_completions: int) -> float:
    """The next KL weight: beta * (1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon).

    Source: Ziegler et al. 2019, section 2.2. KL and target are nats per completion.
    """
    error = min(max(observed_kl / target - 1.0, -0.2), 0.2)
    return beta * (1.0 + error * num_completions / horizon)
