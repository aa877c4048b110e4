"""Log-probabilities of chosen tokens, and entropies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def selected_logprobs(logits_BTV: Tensor, ids_BT: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability of each chosen token, shape (B, T), float32: log softmax(logits / temperature)[ids].

    The temperature is that of the behaviour policy; old, new and reference log-probs must all be given the same one.
    """
    scaled_BTV = logits_BTV.float()
    if temperature != 1.0:
        scaled_BTV = scaled_BTV / temperature
    return -cross_entropy(scaled_BTV.flatten(0, 1), ids_BT.flatten(), reduction="none").view(ids_BT.shape)


def entropy(logits_BTV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of each next-token distribution, shape (B, T), float32."""
    logprobs_BTV = torch.log_softmax(logits_BTV.float() / temperature, dim=-1)
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where `mask` is True (denominator: their number); ValueError if there is none."""
    count = mask.sum()
    if count == 0:
        raise ValueError("masked_mean over an empty mask")
    return (values * mask).sum() / count
