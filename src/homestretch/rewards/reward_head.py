"""The head of a reward model that is a language model: what a likelihood and a last state come to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PRIOR_WEIGHT = 0.5
"""c before training: between .5 and .75 a likelihood ranked best by held-out metrics (LOG.md)."""


class RewardHead(nn.Module):
    """From a language model's state after a completion, and its log-likelihood, to a logit.

    logit = w . h + a * (log p(completion | prompt) - c * log p(completion | prompt without its document)) + b.
    A linear map of one state hardly learns from a few thousand examples whether a name or a date is the right one; the
    likelihood, which compares every token with what the prompt calls for, knows it from SFT (LOG.md). Training the
    logit trains the trunk's own probabilities, as in Rafailov et al. 2023 (arXiv 2305.18290), against many classes of
    bad completions. A likelihood also pays for what is likely whatever the document says - usual words, repeats -
    and the second term takes that off: with c = 1 the rest is the pointwise mutual information with the document
    (Li et al. 2016, arXiv 1510.03055; for hallucinations van der Poel et al. 2022, arXiv 2210.13210).
    """

    def __init__(self, width: int, *, likelihood: bool, prior: bool = False) -> None:
        """`likelihood`: with the terms a and b, else w alone; `prior`: with c as well."""
        super().__init__()
        self.prior = nn.Parameter(torch.tensor(PRIOR_WEIGHT)) if prior else None
        self.weight = nn.Parameter(torch.zeros(1, width) if likelihood else 0.02 * torch.randn(1, width))
        self.likelihood = nn.Parameter(torch.tensor([1.0, 0.0])) if likelihood else None
        """a and b: the log-likelihood itself until `standardise` or a file gives them."""

    def forward(self, state_BD: Tensor, logprob_B: Tensor | None) -> Tensor:
        """Logits (B,), float32. `logprob_B`, in nats, is what a multiplies, if anything."""
        logit_B = (state_BD.float() @ self.weight.T)[:, 0]
        if self.likelihood is None:
            return logit_B
        assert logprob_B is not None
        return logit_B + self.likelihood[0] * logprob_B + self.likelihood[1]

    @torch.no_grad()
    def standardise(self, logprob_N: Tensor) -> None:
        """Start with a mean of 0 and a standard deviation of 1 over these completions, such as references."""
        assert self.likelihood is not None
        scale = 1 / logprob_N.std(unbiased=False).clamp(min=1e-3)
        self.likelihood.copy_(torch.stack([scale, -scale * logprob_N.mean()]))
