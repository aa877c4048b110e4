"""The local sampling engine: each prompt is prefilled once, whatever the number of completions.

It reads nothing from the model's own generation config. Sampling is by inverse CDF from one uniform number per
token, drawn beforehand from the seed, so that the samples do not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homestretch.config import SamplingConfig
from homestretch.console import progress
from homestretch.encoding import pad
from homestretch.models import LanguageModel, accepted, decoder_start_id, positions
from homestretch.types import Completion, Example


@torch.no_grad()
def generate(
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    max_new_tokens: int,
    batch_size: int,
    sampling: SamplingConfig | None = None,
    num_samples: int = 1,
    seed: int = 0,
    description: str = "generate",
) -> list[list[Completion]]:
    """`num_samples` completions per example, in the order given; greedy if `sampling` is None.

    `max_new_tokens` counts the terminator. `batch_size` is the number of completions decoded at once (at least one
    prompt's). The model's training mode is left as it was; dropout is off while sampling.
    """
    prompts = [lm.codec.encode_prompt(example).ids for example in examples]
    uniforms = np.random.default_rng(seed).random((len(examples), num_samples, max_new_tokens), dtype=np.float32)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    per_batch = max(1, batch_size // num_samples)
    results: list[list[Completion]] = [[] for _ in examples]
    was_training = lm.model.training
    lm.model.eval()
    with progress(description, len(order)) as advance:
        for start in range(0, len(order), per_batch):
            chosen = order[start : start + per_batch]
            noise = torch.from_numpy(uniforms[chosen].reshape(-1, max_new_tokens)).to(lm.device)
            rows = _decode(lm, [prompts[i] for i in chosen], noise, num_samples, sampling)
            for k, (ids, terminated) in enumerate(rows):
                results[chosen[k // num_samples]].append(lm.codec.decode(ids, terminated=terminated))
            advance(len(chosen))
    lm.model.train(was_training)
    return results


@dataclass(slots=True)
class _State:
    """What the next decoding step needs; its rows are the completions still growing."""

    cache: Any
    mask: Tensor
    """Which cached positions count (causal), or the source mask (encoder-decoder)."""
    encoder_states: Tensor | None

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]
        if self.encoder_states is not None:
            self.encoder_states = self.encoder_states[rows]


def _decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    num_samples: int,
    sampling: SamplingConfig | None,
) -> list[tuple[list[int], bool]]:
    """Decode every row to its terminator or the cap; (ids without the terminator, terminated) per row."""
    num_rows, max_new_tokens = uniforms.shape
    state, logits = _prefill(lm, prompts, num_samples)
    tokens = torch.full((num_rows, max_new_tokens), lm.codec.pad_id, dtype=torch.long, device=lm.device)
    lengths = torch.full((num_rows,), max_new_tokens, dtype=torch.long, device=lm.device)
    terminated = torch.zeros(num_rows, dtype=torch.bool, device=lm.device)
    alive = torch.arange(num_rows, device=lm.device)
    for step in range(max_new_tokens):
        chosen = _choose(logits, uniforms[alive, step], sampling)
        ended = chosen == lm.codec.eos_id
        tokens[alive, step] = chosen
        terminated[alive[ended]] = True
        lengths[alive[ended]] = step
        if bool(ended.all()) or step == max_new_tokens - 1:
            break
        if bool(ended.any()):
            keep = (~ended).nonzero().squeeze(1)
            state.keep(keep)
            alive, chosen = alive[keep], chosen[keep]
        logits = _step(lm, state, chosen)
    rows = zip(tokens.tolist(), lengths.tolist(), terminated.tolist(), strict=True)
    return [(ids[:length], end) for ids, length, end in rows]


def _choose(logits_BV: Tensor, uniform_B: Tensor, sampling: SamplingConfig | None) -> Tensor:
    """The next token of each row: the most likely, or the one whose stretch of the CDF holds the uniform number."""
    if sampling is None:
        return logits_BV.argmax(-1)
    probs_BV = torch.softmax(restrict(logits_BV.float() / sampling.temperature, sampling), dim=-1)
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


def _prefill(lm: LanguageModel, prompts: Sequence[Sequence[int]], num_samples: int) -> tuple[_State, Tensor]:
    """Run each prompt once, then repeat its cache for its samples; returns the logits of the first token."""
    from transformers import DynamicCache, EncoderDecoderCache

    ids, mask = (t.to(lm.device) for t in pad(prompts, lm.codec.pad_id, left=lm.family == "causal"))
    repeated_mask = mask.repeat_interleave(num_samples, dim=0)
    with lm.autocast():
        if lm.family == "seq2seq":
            encoder_states = lm.model.get_encoder()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            encoder_states = encoder_states.repeat_interleave(num_samples, dim=0)
            state = _State(EncoderDecoderCache(DynamicCache(), DynamicCache()), repeated_mask, encoder_states)
            start = torch.full((len(repeated_mask),), decoder_start_id(lm.model), device=lm.device)
            return state, _step(lm, state, start)
        cache = DynamicCache()
        optional = accepted(lm.model, {"position_ids": positions(mask), "logits_to_keep": 1})
        out = lm.model(input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **optional)
    cache.batch_repeat_interleave(num_samples)
    return _State(cache, repeated_mask, None), out.logits[:, -1].repeat_interleave(num_samples, dim=0)


def _step(lm: LanguageModel, state: _State, chosen_B: Tensor) -> Tensor:
    """Feed one token per row; the logits (B, V) of the next."""
    from transformers.modeling_outputs import BaseModelOutput

    with lm.autocast():
        if state.encoder_states is not None:
            out = lm.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=state.encoder_states),
                attention_mask=state.mask.long(),
                decoder_input_ids=chosen_B[:, None],
                past_key_values=state.cache,
                use_cache=True,
            )
            return torch.as_tensor(out.logits[:, -1])
        state.mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
        optional = accepted(lm.model, {"position_ids": positions(state.mask)[:, -1:]})
        out = lm.model(
            input_ids=chosen_B[:, None], attention_mask=state.mask.long(), past_key_values=state.cache, use_cache=True,
            **optional,
        )  # fmt: skip
    return torch.as_tensor(out.logits[:, -1])
