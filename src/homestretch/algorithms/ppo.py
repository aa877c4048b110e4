"""Proximal policy optimization on completions (Schulman et al. 2017, arXiv 1707.06347; Ziegler et al. 2019).

Score on the last token, k1 KL to the SFT model on every token, GAE with a critic on the policy's trunk, whitened
advantages, clipped policy and value losses. Details as in Huang et al. 2024, arXiv 2403.17031.
"""

from __future__ import annotations

from dataclasses import replace

from homestretch.algorithms.actor_critic import TokenOutputs
from homestretch.algorithms.base import Algorithm, Loss, MinibatchSize, Targets, Trajectories
from homestretch.config import PPOConfig
from homestretch.ops.advantages import gae, token_rewards, whiten
from homestretch.ops.kl import k1
from homestretch.ops.losses import clipped_surrogate, clipped_value_loss


class PPO(Algorithm):
    """An action is a token. Denominator of both losses: the minibatch's tokens."""

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self.value_lr = config.value_lr
        self.critic_warmup_updates = config.critic_warmup_updates

    def advantages(self, old: Trajectories, *, beta: float) -> Targets:
        """Whitened advantages and unwhitened returns."""
        assert old.values is not None
        rewards_NT = token_rewards(old.scores, k1(old.logprobs, old.reference_logprobs), old.mask, beta=beta)
        advantages_NT = gae(rewards_NT, old.values, old.mask, gamma=self.config.gamma, lam=self.config.gae_lambda)
        return Targets(whiten(advantages_NT, old.mask), (advantages_NT + old.values) * old.mask)

    def loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """mean_t of the clipped policy loss, plus value_coefficient * mean_t of the clipped value loss."""
        assert new.values is not None
        assert old.values is not None
        assert targets.returns is not None
        low, high = self.config.clip_bounds
        policy_BT, clipped_BT = clipped_surrogate(
            new.logprobs, old.logprobs, targets.advantages, clip_low=low, clip_high=high
        )
        value_BT = clipped_value_loss(
            new.values, old.values, targets.returns, clip_range=self.config.value_clip_range
        )  # fmt: skip
        policy, value = (policy_BT * old.mask).sum(), (value_BT * old.mask).sum()
        return Loss(
            total=self.config.value_coefficient * value / size.tokens + policy / size.tokens,
            policy=policy / size.tokens,
            value=value / size.tokens,
            clipped=(clipped_BT & old.mask).sum() / size.tokens,
        )

    def critic_loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """The value loss alone, at full weight."""
        loss = self.loss(new, old, targets, size)
        assert loss.value is not None
        return replace(loss, total=loss.value)
