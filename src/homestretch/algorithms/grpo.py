"""Group relative policy optimization (Shao et al. 2024, arXiv 2402.03300), in the form of Dr. GRPO.

Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) leaves out the original's division by a group's standard deviation, which
weighs prompts by how little they vary, and by each completion's own length, which pays for short successes and long
failures: length is an outcome here. Both divisions are options. No critic.
"""

from __future__ import annotations

from homestretch.algorithms.actor_critic import TokenOutputs
from homestretch.algorithms.base import Algorithm, Loss, MinibatchSize, Targets, Trajectories
from homestretch.config import GRPOConfig
from homestretch.ops.advantages import group_centered, group_standardized, over_tokens, penalized_scores
from homestretch.ops.kl import k1
from homestretch.ops.losses import clipped_surrogate, token_means, token_sums


class GRPO(Algorithm):
    """An action is a token. Denominator of the loss: the minibatch's completions times a constant number of tokens.

    With `divide_by_length`: its completions, after a mean over each one's own tokens.
    """

    def __init__(self, config: GRPOConfig, max_completion_tokens: int) -> None:
        self.config = config
        self.group_advantages = group_standardized if config.divide_by_std else group_centered
        self.per_completion = token_means if config.divide_by_length else token_sums
        self.token_denominator = 1 if config.divide_by_length else config.token_denominator or max_completion_tokens

    def advantages(self, old: Trajectories, *, beta: float) -> Targets:
        """The completion's reward relative to its group's, written on each of its tokens."""
        kl_NT = k1(old.logprobs, old.reference_logprobs)
        rewards_N = penalized_scores(old.scores, kl_NT, old.mask, beta=beta)
        return Targets(over_tokens(self.group_advantages(rewards_N, old.groups), old.mask))

    def loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """The clipped surrogate of every token, reduced over the completion, then its mean over completions."""
        low, high = self.config.clip_bounds
        policy_BT, clipped_BT = clipped_surrogate(
            new.logprobs, old.logprobs, targets.advantages, clip_low=low, clip_high=high
        )
        policy = self.per_completion(policy_BT, old.mask).sum() / (size.completions * self.token_denominator)
        return Loss(total=policy, policy=policy, clipped=(clipped_BT & old.mask).sum() / size.tokens)
