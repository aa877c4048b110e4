"""Log-probabilities of chosen tokens, and entropies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint


def selected_logprobs(logits_BTV: Tensor, ids_BT: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-probability of each chosen token, shape (B, T), float32: log softmax(logits / temperature)[ids].

    Any leading dimensions will do in place of (B, T).

    The temperature is that of the behaviour policy; old, new and reference log-probs must all be given the same one.
    """
    scaled_BTV = logits_BTV.float()
    if temperature != 1.0:
        scaled_BTV = scaled_BTV / temperature
    return -cross_entropy(scaled_BTV.flatten(0, -2), ids_BT.flatten(), reduction="none").view(ids_BT.shape)


def entropy(logits_BTV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of each next-token distribution, shape (B, T), float32."""
    logprobs_BTV = torch.log_softmax(logits_BTV.float() / temperature, dim=-1)
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def in_chunks(of: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """of(*inputs) for a function that works row by row, on `chunk` rows at a time.

    What a chunk computes on the way is not kept but computed again for its gradient (Chen et al. 2016, arXiv
    1604.06174), so that the memory is that of one chunk. A single chunk is computed directly.
    """
    if len(inputs[0]) <= chunk:
        return of(*inputs)
    run = partial(checkpoint, of, use_reentrant=False) if torch.is_grad_enabled() else of
    parts = [run(*part) for part in zip(*(t.split(chunk) for t in inputs), strict=True)]
    return tuple(torch.cat(results) for results in zip(*parts, strict=True))
