"""From scored completions to an update of the policy: the passes, minibatches and guards around any algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from homestretch.algorithms import build_algorithm
from homestretch.algorithms.actor_critic import ActorCritic, Ids
from homestretch.algorithms.base import MinibatchSize, Targets, Trajectories
from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import RLConfig
from homestretch.encoding import EncodedPair
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import LanguageModel, reference_policy
from homestretch.ops.advantages import num_equal_groups
from homestretch.ops.kl import adapted_beta, k1, k3
from homestretch.training import (
    MemoryBudget,
    TrainingError,
    apply_step,
    build_optimizer,
    check_finite,
    grouped_microbatches,
    microbatches,
    summed_nll,
)
from homestretch.types import Rollout, UserError

Record = TypeVar("Record", Trajectories, Targets)


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """One update in numbers, documented in docs/algorithms; None where algorithm or recipe has no such thing."""

    kl: float
    kl_k3: float
    entropy: float
    equal_groups: int
    policy_loss: float
    clip_fraction: float
    approx_kl: float
    ratio_first: float
    sampling_gap: float
    gradient_norm: float
    num_steps: int
    value_loss: float | None = None
    explained_variance: float | None = None
    sft_loss: float | None = None


@dataclass(frozen=True, slots=True)
class _Update:
    """What all steps of an update see: the rollouts, and as tensors in the same order what was and what is aimed at."""

    rollouts: Sequence[Rollout]
    old: Trajectories
    targets: Targets


class Learner:
    """The policy in training: its algorithm, its critic if any, its reference, its optimizer, the present KL weight."""

    def __init__(
        self,
        lm: LanguageModel,
        frozen: LanguageModel | None,
        config: RLConfig,
        *,
        references: Sequence[EncodedPair] = (),
    ) -> None:
        """`frozen` is the reference; None if it is the policy's own trunk with adapters off.

        `references` are the labelled training pairs that `rl.sft_mix` draws from.
        """
        if config.sft_mix.coefficient and not references:
            raise UserError("rl.sft_mix: there are no references to learn from; set rl.sft_mix.coefficient=0")
        self.lm, self.frozen, self.config, self.references = lm, frozen, config, references
        self.algorithm = build_algorithm(config, max_completion_tokens=lm.codec.data.max_completion_tokens)
        self.actor_critic = ActorCritic(lm, config.sampling.temperature, has_critic=self.algorithm.needs_critic)
        self.beta, self.least_beta = config.kl.beta, 0.0
        self.num_updates = 0
        """Of these weights: going back goes back to fewer, and the critic's warm-up is repeated if it had not ended."""
        self.num_saved_updates = 0
        self.budget = MemoryBudget(config.tokens_per_microbatch, "rl.tokens_per_microbatch")
        groups = [(lm.model.parameters(), config.optimizer.lr)]
        if self.actor_critic.value_head is not None and self.algorithm.value_lr is not None:
            groups.append((self.actor_critic.value_head.parameters(), self.algorithm.value_lr))
        steps = config.num_updates * config.num_epochs * config.num_minibatches
        self.optimizer, self.schedule = build_optimizer(groups, config.optimizer, steps)
        self.trainable = [p for p in self.actor_critic.parameters() if p.requires_grad]

    def update(self, rollouts: Sequence[Rollout], rng: np.random.Generator) -> UpdateStats:
        """Improve the policy on the rollouts of one update. TrainingError, with nothing applied, on a bad number."""
        old, entropy_NT = self.budget.spend_on(_pairs(rollouts), lambda tokens: self._observed(rollouts, tokens))
        _check_observed(old)
        targets = self.algorithm.advantages(old, beta=self.beta)
        check_finite(targets.advantages, "rl/advantages")
        means = self._optimize(_Update(rollouts, old, targets), rng)
        kl = float(k1(old.logprobs, old.reference_logprobs).sum(1).mean())
        if self.config.kl.adaptive:
            kl_config = self.config.kl
            adapted = adapted_beta(
                self.beta, kl, target=kl_config.target, horizon=kl_config.horizon, num_completions=len(rollouts)
            )
            self.beta = max(self.least_beta, adapted)
        self.num_updates += 1
        return UpdateStats(
            kl=kl,
            kl_k3=float(k3(old.logprobs, old.reference_logprobs).sum(1).mean()),
            entropy=float(entropy_NT.sum() / old.mask.sum()),
            equal_groups=num_equal_groups(old.scores, old.groups),
            sampling_gap=_sampling_gap(rollouts, old),
            explained_variance=_explained_variance(old, targets),
            **means,  # type: ignore[arg-type]
        )

    def save(self, path: Path) -> None:
        """Write what is trained, policy and critic, for `roll_back`."""
        save_trainable(self.lm.model, path, **self._critic())
        self.num_saved_updates = self.num_updates

    def roll_back(self, path: Path, *, beta_factor: float) -> None:
        """Go back to the weights that `save` wrote last, the KL weight multiplied, and never adapted to less again.

        The optimizer's moments, which led away from there, start from nothing; its schedule goes on.
        """
        load_trainable(self.lm.model, path, **self._critic())
        self.num_updates = self.num_saved_updates
        self.optimizer.state.clear()
        self.beta *= beta_factor
        self.least_beta = self.beta

    def _critic(self) -> dict[str, nn.Module]:
        head = self.actor_critic.value_head
        return {} if head is None else {"value_head": head}

    @torch.no_grad()
    def _observed(self, rollouts: Sequence[Rollout], tokens: int) -> tuple[Trajectories, Tensor]:
        """Old log-probs recomputed with the training forward, never the sampler's; what goes with them; entropies."""
        width, device = max(len(r.completion_ids) for r in rollouts), self.lm.device
        logprobs, values, reference, entropies = torch.zeros(4, len(rollouts), width, device=device)
        mask = torch.zeros(len(rollouts), width, dtype=torch.bool, device=device)
        for part in _parts(rollouts, range(len(rollouts)), tokens):
            prompts, completions = _ids(rollouts, part)
            out = self.actor_critic(prompts, completions, with_entropy=True)
            batch = response_batch(prompts, completions, self.lm)
            with reference_policy(self.lm, self.frozen) as reference_lm:
                of_reference = response_logprobs(reference_lm, batch, temperature=self.config.sampling.temperature)
            place = (torch.tensor(part, device=device)[:, None], torch.arange(batch.ids_BT.shape[1], device=device))
            mask[place], logprobs[place], entropies[place] = out.mask, out.logprobs, out.entropies
            reference[place] = of_reference.logprobs_BT
            if out.values is not None:
                values[place] = out.values
        numbers: dict[str, int] = {}
        groups = torch.tensor([numbers.setdefault(r.example.id, len(numbers)) for r in rollouts], device=device)
        scores = torch.tensor([r.score for r in rollouts], dtype=torch.float32, device=device)
        of_critic = values if self.algorithm.needs_critic else None
        return Trajectories(mask, logprobs, reference, of_critic, scores, groups), entropies

    def _optimize(self, update: _Update, rng: np.random.Generator) -> dict[str, float]:
        """The passes over the rollouts, ended early by the approximate-KL guard; the means of the steps, by field."""
        steps: list[dict[str, float]] = []
        for _ in range(self.config.num_epochs):
            for chosen in _minibatches(update.rollouts, self.config.num_minibatches, rng):
                steps.append(self._minibatch(update, chosen, self._mixed_in(rng)))
                if len(steps) == 1:
                    self._check_first_ratio(steps[0]["ratio_error"])
                steps[-1]["gradient_norm"] = self._step()
                if steps[-1]["approx_kl"] > self.config.max_approx_kl:
                    return _mean_of(steps)
        return _mean_of(steps)

    def _minibatch(self, update: _Update, chosen: list[int], mixed_in: Sequence[EncodedPair]) -> dict[str, float]:
        """The gradients of one optimizer step, from zero; losses are over the minibatch, whatever the micro-batches."""
        size = MinibatchSize(len(chosen), int(update.old.mask[chosen].sum()))

        def accumulate(tokens: int) -> dict[str, float]:
            self.optimizer.zero_grad(set_to_none=True)
            totals: dict[str, float] = {}
            for part in _parts(update.rollouts, chosen, tokens):
                for name, value in self._backward(update, part, size).items():
                    totals[name] = totals.get(name, 0.0) + value
            return totals | self._sft_backward(mixed_in, tokens)

        pairs = [*_pairs([update.rollouts[i] for i in chosen]), *mixed_in]
        return self.budget.spend_on(pairs, accumulate)

    def _backward(self, update: _Update, part: list[int], size: MinibatchSize) -> dict[str, float]:
        """Add a micro-batch's gradients; its share of the minibatch's means."""
        critic_only = self.num_updates < self.algorithm.critic_warmup_updates
        new = self.actor_critic(*_ids(update.rollouts, part), trunk_gradient=not critic_only)
        rows, width = torch.tensor(part, device=self.lm.device), new.mask.shape[1]
        old, targets = _rows(update.old, rows, width), _rows(update.targets, rows, width)
        compute = self.algorithm.critic_loss if critic_only else self.algorithm.loss
        loss = compute(new, old, targets, size)
        check_finite(loss.policy, "rl/policy_loss")
        if loss.value is not None:
            check_finite(loss.value, "rl/value_loss")
        loss.total.backward()
        with torch.no_grad():
            log_ratio_BT = (new.logprobs - old.logprobs) * old.mask
            ratio_error_BT = torch.expm1(log_ratio_BT)
        shares = {
            "policy_loss": loss.policy,
            "clip_fraction": loss.clipped,
            "approx_kl": (ratio_error_BT - log_ratio_BT).sum() / size.tokens,
            "ratio_error": ratio_error_BT.abs().sum() / size.tokens,
        } | ({} if loss.value is None else {"value_loss": loss.value})
        return {name: float(share.detach()) for name, share in shares.items()}

    def _mixed_in(self, rng: np.random.Generator) -> list[EncodedPair]:
        """The references whose likelihood the next step raises as well; drawn here, so that a retry has the same."""
        mix = self.config.sft_mix
        if not mix.coefficient or self.num_updates < self.algorithm.critic_warmup_updates:
            return []
        count = min(mix.examples_per_step, len(self.references))
        return [self.references[i] for i in rng.choice(len(self.references), count, replace=False)]

    def _sft_backward(self, pairs: Sequence[EncodedPair], tokens: int) -> dict[str, float]:
        """Add the gradients of coefficient * the mean loss per reference token; that mean."""
        count, mean = sum(len(completion) for _, completion in pairs), 0.0
        for part in microbatches([len(p) + len(c) for p, c in pairs], tokens):
            loss = summed_nll(self.lm, [pairs[i] for i in part]) / count
            check_finite(loss, "rl/sft_loss")
            (self.config.sft_mix.coefficient * loss).backward()
            mean += float(loss.detach())
        return {"sft_loss": mean} if pairs else {}

    def _check_first_ratio(self, error: float) -> None:
        if error > self.config.max_ratio_error:
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"rl: the first minibatch's ratio is off 1 by {error:.3f} on average "
                f"(rl.max_ratio_error={self.config.max_ratio_error}): log-probs do not repeat; try dtype=float32"
            )

    def _step(self) -> float:
        grad_clip = self.config.optimizer.grad_clip
        return apply_step(self.trainable, self.optimizer, self.schedule, grad_clip=grad_clip, stage="rl")


def _parts(rollouts: Sequence[Rollout], chosen: Sequence[int], tokens: int) -> list[list[int]]:
    """Micro-batches of rollout indices within the token budget."""
    prompts, completions = _ids(rollouts, chosen)
    parts = grouped_microbatches(prompts, [len(c) for c in completions], tokens)
    return [[chosen[k] for k in part] for part in parts]


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


def _pairs(rollouts: Sequence[Rollout]) -> list[EncodedPair]:
    return [(r.prompt_ids, r.completion_ids) for r in rollouts]


def _rows(of: Record, rows: Tensor, width: int) -> Record:
    """The same record with some rows, cut to a width."""
    picked: dict[str, Any] = {f.name: getattr(of, f.name) for f in fields(of)}
    for name, value in picked.items():
        if value is not None:
            picked[name] = value[rows, :width] if value.ndim == 2 else value[rows]
    return type(of)(**picked)


def _check_observed(old: Trajectories) -> None:
    check_finite(old.logprobs, "rl/logprobs")
    check_finite(old.reference_logprobs, "rl/reference_logprobs")
    check_finite(old.scores, "rl/score")
    if old.values is not None:
        check_finite(old.values, "rl/values")


def _mean_of(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {name: float(np.mean([s[name] for s in steps])) for name in steps[0] if name != "ratio_error"}
    return means | {"ratio_first": 1.0 + steps[0]["ratio_error"], "num_steps": len(steps)}


def _sampling_gap(rollouts: Sequence[Rollout], old: Trajectories) -> float:
    """Mean distance in nats between a sampled token's log-prob as the sampler saw it and by the training forward."""
    sampled = torch.tensor([value for r in rollouts for value in r.completion.logprobs], device=old.mask.device)
    recorded = torch.tensor([bool(r.completion.logprobs) for r in rollouts], device=old.mask.device)
    recomputed = old.logprobs[recorded][old.mask[recorded]]
    return float((sampled - recomputed).abs().mean()) if len(sampled) else 0.0


def _explained_variance(old: Trajectories, targets: Targets) -> float | None:
    """1 - Var(returns - values) / Var(returns) over counted tokens; 0 if the returns do not vary; None: no critic."""
    if old.values is None or targets.returns is None:
        return None
    returns, values = targets.returns[old.mask], old.values[old.mask]
    variance = returns.var(unbiased=False)
    return float(1 - (returns - values).var(unbiased=False) / variance) if float(variance) > 1e-12 else 0.0
