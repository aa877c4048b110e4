"""The policy with a value head on its own trunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homestretch.forward import (
    ResponseBatch,
    ResponseStates,
    response_batch,
    response_states,
    token_logprobs,
    token_logprobs_and_entropies,
)
from homestretch.models import LanguageModel, hidden_size

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """What the policy and its critic say of each completion token, all (B, T), float32, from the state before it."""

    logprobs: Tensor
    values: Tensor
    mask: Tensor


class ActorCritic(nn.Module):
    """A language model and a zero-initialised scalar head on its last hidden states. Dropout is always off."""

    def __init__(self, lm: LanguageModel, temperature: float) -> None:
        super().__init__()
        self.lm = lm
        self.policy = lm.model.eval()
        self.temperature = temperature
        self.value_head = nn.Linear(hidden_size(lm), 1).to(lm.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(
        self, prompts: Sequence[Ids], completions: Sequence[Ids], *, trunk_gradient: bool = True
    ) -> TokenOutputs:
        """Log-probs at the behaviour temperature, and values; without `trunk_gradient` only the head learns."""
        batch = response_batch(prompts, completions, self.lm)
        with torch.set_grad_enabled(trunk_gradient and torch.is_grad_enabled()):
            states = response_states(self.lm, batch)
            logprobs_BT = token_logprobs(self.lm, states, batch, temperature=self.temperature)
        return TokenOutputs(logprobs_BT, self._values(states, batch), batch.mask_BT)

    @torch.no_grad()
    def observe(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> tuple[TokenOutputs, Tensor]:
        """The same without gradient, and the entropies (B, T) of the policy's distributions, 0 where masked out."""
        batch = response_batch(prompts, completions, self.lm)
        states = response_states(self.lm, batch)
        logprobs_BT, entropies_BT = token_logprobs_and_entropies(self.lm, states, batch, temperature=self.temperature)
        return TokenOutputs(logprobs_BT, self._values(states, batch), batch.mask_BT), entropies_BT

    def _values(self, states: ResponseStates, batch: ResponseBatch) -> Tensor:
        return torch.as_tensor(self.value_head(states.hidden_BTD.float()).squeeze(-1) * batch.mask_BT)
