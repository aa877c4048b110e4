"""Losses as pure functions. Every reduction names its denominator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

_MAX_LOGPROB = -1e-5
"""Nearer to 0 than this, 1 - p has no digits left in float32, and -log(1 - p) no bound."""


def clipped_surrogate(
    logprob: Tensor, old_logprob: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's policy loss per action, and where the clip was active; all of one shape.

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = exp(logprob - old_logprob). An action is a token
    (B, T), or a whole completion (B,) with the sum of its tokens' log-probs.
    Source: Schulman et al. 2017, arXiv 1707.06347, equation 7; two ends as in DAPO, Yu et al. 2025, arXiv 2503.14476.
    """
    ratio = torch.exp(logprob - old_logprob)
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return -torch.minimum(plain, clipped), clipped < plain


def token_sums(loss_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each completion's loss summed over its counted tokens, shape (B,)."""
    return (loss_BT * mask_BT).sum(1)


def token_means(loss_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each completion's loss divided by its own number of tokens |o|, shape (B,): GRPO as published.

    Source: Shao et al. 2024, arXiv 2402.03300, equation 3. Length then scales what a token is worth (Liu et al. 2025).
    """
    return (loss_BT * mask_BT).sum(1) / mask_BT.sum(1)


def clipped_value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, *, clip_range: float) -> Tensor:
    """PPO's value loss per token, shape (B, T): 0.5 * max((V - R)^2, (clip(V, V_old +- c) - R)^2).

    Source: baselines' ppo2 (Dhariwal et al. 2017), as discussed in Huang et al. 2024, arXiv 2403.17031.
    """
    clipped_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values_BT - returns_BT) ** 2, (clipped_BT - returns_BT) ** 2)


def smoothed_bce(logits_N: Tensor, labels_N: Tensor, *, smoothing: float) -> Tensor:
    """Binary cross-entropy per item, shape (N,), with labels moved to [smoothing, 1 - smoothing]."""
    targets_N = labels_N * (1 - 2 * smoothing) + smoothing
    return binary_cross_entropy_with_logits(logits_N, targets_N, reduction="none")


def bradley_terry(logits_N: Tensor, labels_N: Tensor, group_N: Tensor) -> Tensor:
    """Pairwise loss within groups, shape (G,): mean over a group's (good, bad) pairs of -log sigmoid(s_good - s_bad).

    A good item has label > 0.5. Denominator: the group's number of pairs; groups without a pair are left out.
    Source: Bradley and Terry 1952, as in Ouyang et al. 2022, arXiv 2203.02155, equation 1.
    """
    good_N = labels_N > 0.5
    losses = []
    for group in torch.unique(group_N):
        of_group_N = group_N == group
        good, bad = logits_N[of_group_N & good_N], logits_N[of_group_N & ~good_N]
        if len(good) and len(bad):
            losses.append(softplus(bad[None, :] - good[:, None]).mean())
    return torch.stack(losses) if losses else logits_N.new_zeros(0)


def dpo(
    chosen_N: Tensor, rejected_N: Tensor, reference_chosen_N: Tensor, reference_rejected_N: Tensor, *, beta: float
) -> Tensor:
    """DPO's loss per pair, shape (N,), from completions' summed log-probs, the policy's and the reference model's.

    -log sigmoid(beta * (log pi(y_w) / ref(y_w) - log pi(y_l) / ref(y_l))); y_w is preferred to y_l.
    Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """
    margin_N = (chosen_N - reference_chosen_N) - (rejected_N - reference_rejected_N)
    return softplus(-beta * margin_N)


def unlikelihood(logprob: Tensor) -> Tensor:
    """-log(1 - p) per token that should not have been said, in the shape of its log-probabilities.

    p counts as at most exp(-1e-5); above that the gradient is 0, as in the authors' code.
    Source: Welleck et al. 2020, arXiv 1908.04319, equation 4.
    """
    return -torch.log1p(-torch.exp(logprob.clamp(max=_MAX_LOGPROB)))
