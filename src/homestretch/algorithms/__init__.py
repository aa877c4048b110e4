"""One file per algorithm, each readable alone; `base.py` is what they have in common, `learner.py` does the updates."""

from __future__ import annotations

from homestretch.algorithms.base import Algorithm
from homestretch.algorithms.grpo import GRPO
from homestretch.algorithms.ppo import PPO
from homestretch.algorithms.reinforce_pp import ReinforcePP
from homestretch.algorithms.rloo import RLOO
from homestretch.config import GRPOConfig, PPOConfig, ReinforcePPConfig, RLConfig, RLOOConfig


def build_algorithm(config: RLConfig, *, max_completion_tokens: int) -> Algorithm:
    """The algorithm of a recipe's section `rl`."""
    match config:
        case PPOConfig():
            return PPO(config)
        case RLOOConfig():
            return RLOO(config)
        case GRPOConfig():
            return GRPO(config, max_completion_tokens)
        case ReinforcePPConfig():
            return ReinforcePP(config)
