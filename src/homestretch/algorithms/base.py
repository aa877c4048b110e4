"""What the Learner asks of an algorithm, and the records that pass between them.

An algorithm knows tensors only: no models, batches, optimizers or devices. The Learner does the passes, micro-batches,
reference, guards and steps for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from homestretch.algorithms.actor_critic import TokenOutputs


@dataclass(frozen=True, slots=True)
class Trajectories:
    """All rollouts of an update as tensors (N, T); `mask` is True on sampled tokens, the terminator included."""

    mask: Tensor
    logprobs: Tensor
    """Of the policy that sampled, recomputed with the training forward; 0 where masked out, as all the others."""
    reference_logprobs: Tensor
    """Of the SFT model."""
    values: Tensor | None
    """The critic's; None where the algorithm has none."""
    scores: Tensor
    """Sequence-level scores, shape (N,)."""
    groups: Tensor
    """Which example a rollout answers, shape (N,): equal numbers, same example."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses aim at, (N, T)."""

    advantages: Tensor
    returns: Tensor | None = None
    """What the critic should have said; None where there is none."""


@dataclass(frozen=True, slots=True)
class MinibatchSize:
    """The denominators of a minibatch: what an optimizer step averages over, whatever its micro-batches."""

    completions: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A micro-batch's share of its minibatch's loss: the shares of all its micro-batches add up to the whole."""

    total: Tensor
    """What is minimised."""
    policy: Tensor
    clipped: Tensor
    """Share of the actions (tokens, or completions in RLOO) where the clip was active."""
    value: Tensor | None = None
    """The critic's, before its coefficient; None where there is none."""


class Algorithm(ABC):
    """How scored completions become advantages, and advantages a loss."""

    value_lr: float | None = None
    """Peak learning rate of the critic; None: there is no critic."""
    critic_warmup_updates: int = 0
    """First updates that minimise `critic_loss` alone."""

    @property
    def needs_critic(self) -> bool:
        """Whether the policy gets a value head."""
        return self.value_lr is not None

    @abstractmethod
    def advantages(self, old: Trajectories, *, beta: float) -> Targets:
        """How much better than expected each token of an update was; `beta` is the weight of the KL in the reward."""

    @abstractmethod
    def loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """The loss of a micro-batch; `old` and `targets` hold its rows, `size` is that of the whole minibatch."""

    def critic_loss(self, new: TokenOutputs, old: Trajectories, targets: Targets, size: MinibatchSize) -> Loss:
        """The loss of the first `critic_warmup_updates`, which leaves the policy alone."""
        raise NotImplementedError
