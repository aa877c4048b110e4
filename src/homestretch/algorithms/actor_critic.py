"""The policy, with a value head on its own trunk where the algorithm has a critic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homestretch.forward import response_batch, response_logprobs
from homestretch.models import LanguageModel, hidden_size

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """What the policy and its critic say of each completion token, all (B, T), float32, from the state before it.

    Everything is 0 where masked out.
    """

    logprobs: Tensor
    values: Tensor | None
    """None without a critic."""
    entropies: Tensor | None
    """Of the policy's distributions; None unless asked for."""
    mask: Tensor


class ActorCritic(nn.Module):
    """A language model and, with a critic, a zero-initialised scalar head on its last hidden states. Dropout is off."""

    def __init__(self, lm: LanguageModel, temperature: float, *, has_critic: bool = True) -> None:
        super().__init__()
        self.lm = lm
        self.policy = lm.model.eval()
        self.temperature = temperature
        self.value_head = _zero_head(lm) if has_critic else None

    def forward(
        self, prompts: Sequence[Ids], completions: Sequence[Ids], *,
        trunk_gradient: bool = True, with_entropy: bool = False,
    ) -> TokenOutputs:  # fmt: skip
        """Log-probs at the behaviour temperature, and values; without `trunk_gradient` only the head learns."""
        batch = response_batch(prompts, completions, self.lm)
        with torch.set_grad_enabled(trunk_gradient and torch.is_grad_enabled()):
            out = response_logprobs(self.lm, batch, temperature=self.temperature, with_entropy=with_entropy)
        values_BT = None
        if self.value_head is not None:
            values_BT = self.value_head(out.hidden_BTD.float()).squeeze(-1) * batch.mask_BT
        return TokenOutputs(out.logprobs_BT, values_BT, out.entropies_BT, batch.mask_BT)


def _zero_head(lm: LanguageModel) -> nn.Linear:
    head = nn.Linear(hidden_size(lm), 1).to(lm.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
