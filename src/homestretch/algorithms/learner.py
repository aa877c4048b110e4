"""From scored completions to an update of the policy: the passes, minibatches and guards around an algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from homestretch.algorithms import ppo
from homestretch.algorithms.actor_critic import ActorCritic, Ids
from homestretch.config import PPOConfig
from homestretch.forward import response_batch, response_states, token_logprobs
from homestretch.models import LanguageModel, reference_policy
from homestretch.ops.kl import adapted_beta
from homestretch.training import TrainingError, apply_step, build_optimizer, check_finite, grouped_microbatches
from homestretch.types import Rollout

Record = TypeVar("Record", ppo.Trajectories, ppo.Targets)


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """One update in numbers; the fields are documented on the algorithm's docs page."""

    kl: float
    entropy: float
    policy_loss: float
    value_loss: float
    clip_fraction: float
    approx_kl: float
    explained_variance: float
    ratio_first: float
    gradient_norm: float
    num_steps: int


class Learner:
    """The policy in training: its critic, its reference, its optimizer and the present KL weight."""

    def __init__(self, lm: LanguageModel, frozen: LanguageModel | None, config: PPOConfig) -> None:
        """`frozen` is the reference; None if it is the policy's own trunk with adapters off."""
        self.lm, self.frozen, self.config = lm, frozen, config
        self.actor_critic = ActorCritic(lm, config.sampling.temperature)
        self.beta = config.kl.beta
        self.num_updates = 0
        steps = config.num_updates * config.num_epochs * config.num_minibatches
        groups = [
            (lm.model.parameters(), config.optimizer.lr),
            (self.actor_critic.value_head.parameters(), config.value_lr),
        ]
        self.optimizer, self.schedule = build_optimizer(groups, config.optimizer, steps)
        self.trainable = [p for p in self.actor_critic.parameters() if p.requires_grad]

    def update(self, rollouts: Sequence[Rollout], rng: np.random.Generator) -> UpdateStats:
        """Improve the policy on the rollouts of one update. TrainingError, with nothing applied, on a bad number."""
        trajectories, entropy_NT = self._trajectories(rollouts)
        aim = ppo.targets(trajectories, self.config, beta=self.beta)
        check_finite(aim.advantages, "rl/advantages")
        sums, num_steps = self._optimize(rollouts, trajectories, aim, rng)
        count = trajectories.mask.sum()
        kl = float((trajectories.logprobs - trajectories.reference_logprobs).sum(1).mean())
        if self.config.kl.adaptive:
            kl_config = self.config.kl
            self.beta = adapted_beta(
                self.beta, kl, target=kl_config.target, horizon=kl_config.horizon, num_completions=len(rollouts)
            )
        self.num_updates += 1
        return UpdateStats(
            kl=kl,
            entropy=float(entropy_NT.sum() / count),
            explained_variance=_explained_variance(trajectories.values, aim.returns, trajectories.mask),
            num_steps=num_steps,
            **sums,
        )

    @torch.no_grad()
    def _trajectories(self, rollouts: Sequence[Rollout]) -> tuple[ppo.Trajectories, Tensor]:
        """Old log-probs recomputed with the training forward (never the sampler's), values, and the reference's."""
        width = max(len(r.completion_ids) for r in rollouts)
        shape, device = (len(rollouts), width), self.lm.device
        logprobs, values, reference, entropies = (torch.zeros(shape, device=device) for _ in range(4))
        mask = torch.zeros(shape, dtype=torch.bool, device=device)
        for part in self._parts(rollouts, range(len(rollouts))):
            prompts, completions = _ids(rollouts, part)
            out, entropies_BT = self.actor_critic.observe(prompts, completions)
            batch = response_batch(prompts, completions, self.lm)
            with reference_policy(self.lm, self.frozen) as reference_lm:
                states, temperature = response_states(reference_lm, batch), self.config.sampling.temperature
                reference_BT = token_logprobs(reference_lm, states, batch, temperature=temperature)
            place = (torch.tensor(part, device=device)[:, None], torch.arange(batch.ids_BT.shape[1], device=device))
            mask[place], logprobs[place], values[place] = out.mask, out.logprobs, out.values
            reference[place], entropies[place] = reference_BT, entropies_BT
        check_finite(logprobs, "rl/logprobs")
        check_finite(reference, "rl/reference_logprobs")
        scores = torch.tensor([r.score for r in rollouts], dtype=torch.float32, device=device)
        return ppo.Trajectories(mask, logprobs, reference, values, scores), entropies

    def _parts(self, rollouts: Sequence[Rollout], chosen: Sequence[int]) -> list[list[int]]:
        """Micro-batches of rollout indices within the token budget."""
        prompts, completions = _ids(rollouts, chosen)
        parts = grouped_microbatches(prompts, [len(c) for c in completions], self.config.tokens_per_microbatch)
        return [[chosen[k] for k in part] for part in parts]

    def _optimize(
        self, rollouts: Sequence[Rollout], old: ppo.Trajectories, aim: ppo.Targets, rng: np.random.Generator
    ) -> tuple[dict[str, float], int]:
        """The passes over the rollouts, ended early by the approximate-KL guard; the steps' means and their number."""
        steps: list[dict[str, float]] = []
        for _ in range(self.config.num_epochs):
            for chosen in _minibatches(rollouts, self.config.num_minibatches, rng):
                steps.append(self._minibatch(rollouts, old, aim, chosen, is_first=not steps))
                if steps[-1]["approx_kl"] > self.config.max_approx_kl:
                    return _mean_of(steps), len(steps)
        return _mean_of(steps), len(steps)

    def _minibatch(
        self, rollouts: Sequence[Rollout], old: ppo.Trajectories, aim: ppo.Targets, chosen: list[int], *, is_first: bool
    ) -> dict[str, float]:
        """One optimizer step; every loss is a mean over the minibatch's tokens, whatever the micro-batches."""
        config = self.config
        critic_only = self.num_updates < config.critic_warmup_updates
        count = float(old.mask[chosen].sum())
        totals = dict.fromkeys((f.name for f in fields(ppo.LossSums)), 0.0)
        for part in self._parts(rollouts, chosen):
            prompts, completions = _ids(rollouts, part)
            out = self.actor_critic(prompts, completions, trunk_gradient=not critic_only)
            rows, width = torch.tensor(part, device=self.lm.device), out.mask.shape[1]
            sums = ppo.loss_sums(out.logprobs, out.values, _rows(old, rows, width), _rows(aim, rows, width), config)
            coefficient = 1.0 if critic_only else config.value_coefficient
            loss = coefficient * sums.value / count
            if not critic_only:
                loss = loss + sums.policy / count
            check_finite(loss, "rl/loss")
            loss.backward()
            for name in totals:
                totals[name] += float(getattr(sums, name).detach())
        means = {name: total / count for name, total in totals.items()}
        if is_first and means["ratio_error"] > config.max_ratio_error:
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"rl: the first minibatch's ratio is off 1 by {means['ratio_error']:.3f} on average "
                f"(rl.max_ratio_error={config.max_ratio_error}): log-probs do not repeat; try dtype=float32"
            )
        norm = apply_step(
            self.trainable, self.optimizer, self.schedule, grad_clip=config.optimizer.grad_clip, stage="rl"
        )
        return means | {"gradient_norm": norm}


def _minibatches(rollouts: Sequence[Rollout], count: int, rng: np.random.Generator) -> list[list[int]]:
    """The rollouts in at most `count` random parts of about equal size; those of one prompt stay together."""
    groups: dict[Ids, list[int]] = {}
    for index, rollout in enumerate(rollouts):
        groups.setdefault(rollout.prompt_ids, []).append(index)
    members = list(groups.values())
    parts = np.array_split(rng.permutation(len(members)), min(count, len(members)))
    return [[i for g in part for i in members[g]] for part in parts]


def _ids(rollouts: Sequence[Rollout], part: Sequence[int]) -> tuple[list[Ids], list[Ids]]:
    return [rollouts[i].prompt_ids for i in part], [rollouts[i].completion_ids for i in part]


def _rows(of: Record, rows: Tensor, width: int) -> Record:
    """The same record with some rows, cut to a width."""
    picked = {f.name: getattr(of, f.name)[rows] for f in fields(of)}
    return type(of)(**{name: value[:, :width] if value.ndim == 2 else value for name, value in picked.items()})


def _mean_of(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {"policy": "policy_loss", "value": "value_loss", "clipped": "clip_fraction"}
    means = {names.get(k, k): float(np.mean([s[k] for s in steps])) for k in steps[0] if k != "ratio_error"}
    return means | {"ratio_first": 1.0 + steps[0]["ratio_error"]}


def _explained_variance(values_NT: Tensor, returns_NT: Tensor, mask_NT: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over counted tokens; 0 if the returns do not vary."""
    returns, values = returns_NT[mask_NT], values_NT[mask_NT]
    variance = returns.var(unbiased=False)
    return float(1 - (returns - values).var(unbiased=False) / variance) if float(variance) > 1e-12 else 0.0
