"""REINFORCE++-baseline (Hu et al. 2025, arXiv 2501.03262): the group's mean as baseline, one scale for the update.

The prompt's mean reward is taken from each completion's, then the advantages of all tokens of the update are whitened
together: prompts keep their relative weight, which a division within each group would level. No critic.
"""

from __future__ import annotations

from homestretch.algorithms.actor_critic import TokenOutputs
from homestretch.algorithms.base import Algorithm, Loss, MinibatchSize, Targets, Trajectories
from homestretch.config import ReinforcePPConfig
from homestretch.ops.advantages import group_centered, over_tokens, penalized_scores, whiten
from homestretch.ops.kl import k1
from homestretch.ops.losses import clipped_surrogate


class ReinforcePP(Algorithm):
    """An action is a token. Denominator of the loss: the minibatch's tokens."""

    def __init__(self, config: ReinforcePPConfig) -> None:
        self.config = config

    def advantages(self, old: Trajectories, *, beta: float) -> Targets:
        """Group-centred rewards on every token, whitened over all tokens of the update."""
        kl_NT = k1(old.logprobs, old.reference_logprobs)
        rewards_N = penalized_scores(old.scores, kl_NT, old.mask, beta=beta)
        return Targets(whiten(over_tokens(group_centered(rewards_N, old.groups), old.mask), old.mask))

    def loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """mean_t of the clipped surrogate."""
        low, high = self.config.clip_bounds
        policy_BT, clipped_BT = clipped_surrogate(
            new.logprobs, old.logprobs, targets.advantages, clip_low=low, clip_high=high
        )
        policy = (policy_BT * old.mask).sum() / size.tokens
        return Loss(total=policy, policy=policy, clipped=(clipped_BT & old.mask).sum() / size.tokens)
