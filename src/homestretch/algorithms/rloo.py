"""REINFORCE, leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740; Kool et al. 2019).

A completion is one action: its reward is the score minus beta times its KL to the SFT model, its baseline the mean
reward of the prompt's other completions, its probability the product of its tokens'. No critic.
"""

from __future__ import annotations

from homestretch.algorithms.actor_critic import TokenOutputs
from homestretch.algorithms.base import Algorithm, Loss, MinibatchSize, Targets, Trajectories
from homestretch.config import RLOOConfig
from homestretch.ops.advantages import leave_one_out, over_tokens, penalized_scores
from homestretch.ops.kl import k1
from homestretch.ops.losses import clipped_surrogate


class RLOO(Algorithm):
    """An action is a completion. Denominator of the loss: the minibatch's completions."""

    def __init__(self, config: RLOOConfig) -> None:
        self.config = config

    def advantages(self, old: Trajectories, *, beta: float) -> Targets:
        """The completion's leave-one-out advantage, written on each of its tokens."""
        kl_NT = k1(old.logprobs, old.reference_logprobs)
        rewards_N = penalized_scores(old.scores, kl_NT, old.mask, beta=beta)
        return Targets(over_tokens(leave_one_out(rewards_N, old.groups), old.mask))

    def loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """mean_i of the clipped surrogate with the ratio of whole completions; at ratio 1 its gradient is REINFORCE's.

        Later passes over the same rollouts are off-policy: there the ratio corrects, and the clip limits.
        """
        low, high = self.config.clip_bounds
        policy_B, clipped_B = clipped_surrogate(
            (new.logprobs * old.mask).sum(1), (old.logprobs * old.mask).sum(1), targets.advantages[:, 0],
            clip_low=low, clip_high=high,
        )  # fmt: skip
        policy = policy_B.sum() / size.completions
        return Loss(total=policy, policy=policy, clipped=clipped_B.sum() / size.completions)
