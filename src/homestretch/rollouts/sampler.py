"""The local sampling engine: each prompt is prefilled once, and finished completions make room for waiting ones.

It reads nothing from the model's own generation config. Sampling is by inverse CDF from one uniform number per
token, drawn beforehand from the seed, so that the samples do not depend on how many are decoded at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from homestretch.config import SamplingConfig
from homestretch.console import progress
from homestretch.models import LanguageModel
from homestretch.ops.logprobs import selected_logprobs
from homestretch.ops.shapes import rounded_up
from homestretch.rollouts.rows import CausalRows, Ids, Rows, Seq2SeqRows
from homestretch.rollouts.slots import SlotRows, supports_slots
from homestretch.training import MemoryBudget
from homestretch.types import Completion, Example

_SLACK = 8
"""Finished rows leave, and waiting prompts join, when they are an eighth of the rows: moving them costs as well."""


@torch.no_grad()
def generate(
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
    batch_size: int | MemoryBudget,
    sampling: SamplingConfig | None = None,
    num_samples: int = 1,
    seed: int = 0,
    description: str = "generate",
) -> list[list[Completion]]:
    """`num_samples` completions per example, in the order given; greedy if `sampling` is None.

    `max_new_tokens` counts the terminator. `batch_size` is the number of completions decoded at once (at least one
    prompt's): it bounds the memory, and is halved, with a new start, where that runs out. A budget remembers what fits
    from one call to the next. TrainingError if one prompt's completions do not fit. The model's training mode is left
    as it was; dropout is off while sampling.
    """
    budget = batch_size if isinstance(batch_size, MemoryBudget) else MemoryBudget(batch_size, "batch_size")
    prompts = [lm.codec.encode_prompt(example).ids for example in examples]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    shape = (len(examples), num_samples, max_new_tokens)
    uniforms = np.random.default_rng(seed).random(shape, dtype=np.float32)[order].reshape(-1, max_new_tokens)

    def decode(num_slots: int) -> list[tuple[list[int], list[float], bool]]:
        with progress(description, len(order)) as advance, lm.autocast():
            return _decode(
                lm, [prompts[i] for i in order], torch.from_numpy(uniforms).to(lm.device), num_samples=num_samples,
                num_slots=max(num_slots, num_samples), sampling=sampling, advance=advance,
            )  # fmt: skip

    was_training = lm.model.training
    lm.model.eval()
    smallest = f"one prompt's {num_samples} completions" if num_samples > 1 else "a single completion"
    rows = budget.spend(decode, least=num_samples, smallest=smallest)
    lm.model.train(was_training)
    results: list[list[Completion]] = [[] for _ in examples]
    for k, (ids, logprobs, terminated) in enumerate(rows):
        completion = lm.codec.decode(ids, terminated=terminated, logprobs=logprobs)
        results[order[k // num_samples]].append(completion)
    return results


@dataclass(slots=True)
class _Active:
    """The rows being decoded, (B,) each."""

    index: Tensor
    """Which completion a row is."""
    step: Tensor
    """How many tokens it has, the terminator included."""
    alive: Tensor
    """False once it has its terminator or reached the cap, until it is dropped."""

    def select(self, rows: Tensor) -> _Active:
        return _Active(*(getattr(self, f.name)[rows] for f in fields(self)))

    def with_new(self, first: int, count: int) -> _Active:
        """These rows and then completions first, first + 1, ..., without tokens yet."""
        like = self.index
        new = torch.arange(first, first + count, device=like.device)
        return _Active(
            torch.cat([self.index, new]),
            torch.cat([self.step, torch.zeros_like(new)]),
            torch.cat([self.alive, torch.ones_like(new, dtype=torch.bool)]),
        )


def _decode(
    lm: LanguageModel,
    prompts: Sequence[Ids],
    uniforms: Tensor,
    *,
    num_samples: int,
    num_slots: int,
    sampling: SamplingConfig | None,
    advance: Callable[[int], None],
) -> list[tuple[list[int], list[float], bool]]:
    """Decode every completion to its terminator or the cap.

    Of each: ids without the terminator, log-probabilities with the terminator's, whether it terminated.
    """
    num_completions, cap = uniforms.shape
    tokens = torch.full((num_completions, cap), lm.codec.pad_id, dtype=torch.long, device=lm.device)
    logprobs = torch.zeros(num_completions, cap, device=lm.device)
    lengths = torch.full((num_completions,), cap, dtype=torch.long, device=lm.device)
    rows = _build_rows(lm, prompts, num_slots, num_samples, cap)
    nobody = torch.zeros(0, dtype=torch.long, device=lm.device)
    active, chosen, started = _Active(nobody, nobody, nobody.bool()), nobody, 0
    while len(chosen) or started < len(prompts):
        logits = [rows.step(chosen)] if len(chosen) else []
        waiting = min(len(prompts) - started, rows.room())
        joining = _num_joining(waiting, len(chosen), num_slots, num_samples)
        if joining:
            logits.append(rows.admit(prompts[started : started + joining], num_samples))
            active = active.with_new(started * num_samples, joining * num_samples)
            started += joining
            advance(joining)
        logits_BV = torch.cat(logits).float() / (sampling.temperature if sampling else 1.0)
        chosen = _choose(logits_BV, uniforms[active.index, active.step.clamp(max=cap - 1)], sampling)
        alive = active.alive.nonzero().squeeze(1)
        index, step = active.index[alive], active.step[alive]
        tokens[index, step] = chosen[alive]
        logprobs[index, step] = selected_logprobs(logits_BV, chosen)[alive]
        ended = chosen[alive] == lm.codec.eos_id
        lengths[index[ended]] = step[ended]
        active.step += 1
        active.alive[alive] = ~ended & (step + 1 < cap)
        staying = _staying(active.alive, max(1, num_slots // _SLACK))
        if len(staying) == 0 or (len(chosen) - len(staying)) * _SLACK >= len(chosen):
            rows.keep(staying)
            active, chosen = active.select(staying), chosen[staying]
    found = zip(tokens.tolist(), logprobs.tolist(), lengths.tolist(), strict=True)
    return [(ids[:n], values[: n + 1], n < cap) for ids, values, n in found]


def _staying(alive: Tensor, step: int) -> Tensor:
    """The rows that are alive, and so many others that their number is a multiple of `step` if it can be; ascending."""
    count = rounded_up(int(alive.sum()), step)
    return (~alive).long().argsort(stable=True)[:count].sort().values


def _build_rows(lm: LanguageModel, prompts: Sequence[Ids], num_slots: int, num_samples: int, cap: int) -> Rows:
    if lm.family == "seq2seq":
        return Seq2SeqRows(lm)
    if not supports_slots(lm):
        return CausalRows(lm)
    longest = max((len(prompt) for prompt in prompts), default=1)
    return SlotRows(lm, num_slots=num_slots, num_samples=num_samples, max_prompt=longest, max_new=cap)


def _num_joining(num_waiting: int, num_rows: int, num_slots: int, num_samples: int) -> int:
    """How many waiting prompts start now: as many as fit, once there is room enough to be worth a prefill."""
    free = num_slots - num_rows
    if num_rows and free * _SLACK < num_slots:
        return 0
    return min(num_waiting, free // num_samples)


def _choose(logits_BV: Tensor, uniform_B: Tensor, sampling: SamplingConfig | None) -> Tensor:
    """The next token of each row: the most likely, or the one whose stretch of the CDF holds the uniform number.

    The logits have been divided by the temperature.
    """
    if sampling is None:
        return logits_BV.argmax(-1)
    probs_BV = torch.softmax(restrict(logits_BV, sampling), dim=-1)
    cdf_BV = probs_BV.cumsum(-1)
    # the largest uniform stays below 1 after rounding, and "right" skips tokens of probability 0
    target_B = uniform_B.clamp(max=1 - 2**-23) * cdf_BV[:, -1]
    chosen_B = torch.searchsorted(cdf_BV, target_B[:, None], right=True).squeeze(1)
    return chosen_B.clamp(max=logits_BV.shape[1] - 1)


def restrict(logits_BV: Tensor, sampling: SamplingConfig) -> Tensor:
    """Logits with everything outside top-k and top-p at -inf (Holtzman et al. 2020, arXiv 1904.09751)."""
    if sampling.top_k:
        kth = logits_BV.topk(min(sampling.top_k, logits_BV.shape[1]), dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth, float("-inf"))
    if sampling.top_p < 1:
        ranked_BV, index_BV = logits_BV.sort(dim=-1, descending=True)
        probs_BV = ranked_BV.softmax(-1)
        outside_BV = probs_BV.cumsum(-1) - probs_BV >= sampling.top_p
        logits_BV = logits_BV.masked_fill(outside_BV.scatter(1, index_BV, outside_BV), float("-inf"))
    return logits_BV
