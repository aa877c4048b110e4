"""The training forward: what a language model says of completions' tokens, each from the state before it.

A prompt is computed once for all its completions, and the vocabulary only for tokens that count, in chunks: no tensor
of batch x length x vocabulary exists.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_end

from homestretch.cross_attention import projected_once
from homestretch.encoding import pad
from homestretch.inspection import max_positions
from homestretch.models import LanguageModel, accepted, additive_mask, decoder_start_id
from homestretch.ops.logprobs import entropy, in_chunks, selected_logprobs
from homestretch.ops.packing import pack, states_after
from homestretch.ops.shapes import rounded_up

_MAX_LOGITS = 2**25
"""Elements of the logits that exist at once (128 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class ResponseBatch:
    """Completions of a few prompts, padded. Each prompt stands once; `prompt_index_B` says whose a row is."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    prompt_index_B: Tensor
    ids_BT: Tensor
    mask_BT: Tensor


def response_batch(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], lm: LanguageModel
) -> ResponseBatch:
    """Pad (prompt, completion) id pairs; equal prompts are kept once. Prompts are left-padded for causal models."""
    unique = {tuple(prompt): None for prompt in prompts}
    places = {prompt: i for i, prompt in enumerate(unique)}
    prompt_ids, prompt_mask = _padded_prompts(list(unique), lm)
    ids_BT, mask_BT = pad(completions, lm.codec.pad_id)
    index_B = torch.tensor([places[tuple(prompt)] for prompt in prompts])
    return ResponseBatch(*(t.to(lm.device) for t in (prompt_ids, prompt_mask, index_B, ids_BT, mask_BT)))


def with_prompts(batch: ResponseBatch, prompts: Sequence[Sequence[int]], lm: LanguageModel) -> ResponseBatch:
    """The same completions after other prompts, one in place of each of the batch's, which may be equal."""
    ids, mask = _padded_prompts(prompts, lm)
    return replace(batch, prompt_ids=ids.to(lm.device), prompt_mask=mask.to(lm.device))


def _padded_prompts(prompts: Sequence[Sequence[int]], lm: LanguageModel) -> tuple[Tensor, Tensor]:
    causal = lm.family == "causal"
    # a causal model's positions come from the mask; an encoder-decoder counts padding, and has only so many
    up_to = sys.maxsize if causal else lm.codec.data.max_prompt_tokens
    return pad(prompts, lm.codec.pad_id, left=causal, up_to=up_to)


@dataclass(frozen=True, slots=True)
class ResponseStates:
    """What a forward says of the completions' positions: position t predicts token t."""

    hidden_BTD: Tensor
    """The trunk's last hidden states."""
    unprojected_BTD: Tensor
    """What the output projection reads; the logits themselves where they are more than that projection."""
    project: Callable[[Tensor], Tensor]
    """From those to logits (..., V)."""


def response_states(lm: LanguageModel, batch: ResponseBatch) -> ResponseStates:
    """One pass over the batch, the vocabulary not yet computed."""
    with lm.autocast():
        return _seq2seq_states(lm, batch) if lm.family == "seq2seq" else _causal_states(lm, batch)


@dataclass(frozen=True, slots=True)
class ResponseLogprobs:
    """What training needs of the completions' tokens, (B, T), float32; 0 where masked out."""

    logprobs_BT: Tensor
    entropies_BT: Tensor | None
    """Of the next-token distributions, in nats, without gradient; None unless asked for."""
    hidden_BTD: Tensor
    """The trunk's last hidden states, from which a head may predict."""


def response_logprobs(
    lm: LanguageModel, batch: ResponseBatch, *, temperature: float = 1.0, with_entropy: bool = False
) -> ResponseLogprobs:
    """Log-probs of the completions' tokens under softmax(logits / temperature); `_MAX_LOGITS` logits at once."""
    states, mask_BT = response_states(lm, batch), batch.mask_BT

    def of(unprojected_ND: Tensor, ids_N: Tensor) -> tuple[Tensor, ...]:
        logits_NV = states.project(unprojected_ND)
        logprobs_N = selected_logprobs(logits_NV, ids_N, temperature=temperature)
        if not with_entropy:
            return (logprobs_N,)
        with torch.no_grad():
            return logprobs_N, entropy(logits_NV, temperature=temperature)

    chunk = max(1, _MAX_LOGITS // vocabulary_size(lm))
    unprojected_ND, ids_N = states.unprojected_BTD[mask_BT], batch.ids_BT[mask_BT]
    count, extra = len(ids_N), rounded_up(len(ids_N)) - len(ids_N)
    with lm.autocast():
        found = in_chunks(of, pad_end(unprojected_ND, (0, 0, 0, extra)), pad_end(ids_N, (0, extra)), chunk=chunk)
    zeros_BT = torch.zeros(mask_BT.shape, device=lm.device)
    logprobs_BT, *entropies = (zeros_BT.masked_scatter(mask_BT, values_N[:count]) for values_N in found)
    return ResponseLogprobs(logprobs_BT, entropies[0] if entropies else None, states.hidden_BTD)


def vocabulary_size(lm: LanguageModel) -> int:
    """Width of the logits."""
    return int(lm.model.get_output_embeddings().weight.shape[0])


def _causal_states(lm: LanguageModel, batch: ResponseBatch) -> ResponseStates:
    width, index_B = batch.ids_BT.shape[1], batch.prompt_index_B
    if lm.shares_prompts and len(batch.prompt_ids) < len(batch.ids_BT):
        packed = pack(batch.prompt_ids, batch.prompt_mask, index_B, batch.ids_BT, batch.mask_BT)
        mask, position_ids = additive_mask(packed.allowed, lm.dtype), packed.positions
        kept = _run_trunk(lm, packed.num_kept, input_ids=packed.ids, attention_mask=mask, position_ids=position_ids)
        before_BT = torch.arange(width, device=lm.device).expand(len(index_B), -1)
        hidden_BTD, unprojected_BTD = (states_after(s, packed, index_B, before_BT) for s in kept)
    else:
        ids, length_B = _joined(lm, batch)
        num_kept = ids.shape[1] - int(length_B.min()) + 1
        kept = _run_trunk(lm, num_kept, input_ids=ids)
        before_BT = (length_B - length_B.min())[:, None] + torch.arange(width, device=lm.device)
        places = (torch.arange(len(ids), device=lm.device)[:, None], before_BT.clamp(max=num_kept - 1))
        hidden_BTD, unprojected_BTD = (s[places] for s in kept)
    return ResponseStates(hidden_BTD, unprojected_BTD, _projection(lm))


def _joined(lm: LanguageModel, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """Rows [prompt, completion] and the prompts' lengths; padding is at the end, where a causal model never looks."""
    prompt_mask = batch.prompt_mask[batch.prompt_index_B]
    length_B = prompt_mask.sum(1)
    end_B1 = (length_B + batch.mask_BT.sum(1))[:, None]
    longest, limit = int(end_B1.max()), max_positions(lm.model.config)
    width = rounded_up(longest) if limit is None else max(longest, min(rounded_up(longest), limit))
    place_L = torch.arange(width, device=lm.device)
    ids = torch.full((len(length_B), len(place_L)), lm.codec.pad_id, device=lm.device)
    is_prompt = place_L < length_B[:, None]
    ids[is_prompt] = batch.prompt_ids[batch.prompt_index_B][prompt_mask]
    ids[~is_prompt & (place_L < end_B1)] = batch.ids_BT[batch.mask_BT]
    return ids, length_B


def _run_trunk(lm: LanguageModel, num_kept: int, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Last hidden states and what the output projection reads, at the last `num_kept` places (B, num_kept, D)."""
    keep = accepted(lm.model, {"logits_to_keep": num_kept})
    with _unprojected(lm) as caught:
        out = lm.model(**inputs, **keep, use_cache=False, output_hidden_states=not lm.projects_last)
    if lm.projects_last:
        return caught[0][:, -num_kept:], caught[0][:, -num_kept:]
    return out.hidden_states[-1][:, -num_kept:], out.logits[:, -num_kept:]


def _seq2seq_states(lm: LanguageModel, batch: ResponseBatch) -> ResponseStates:
    """The encoder and cross-attention's projections run once per prompt."""
    from transformers.modeling_outputs import BaseModelOutput

    encoder = lm.model.get_encoder()
    states = encoder(input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask.long()).last_hidden_state
    index_B = batch.prompt_index_B
    once = lm.projects_once and len(states) < len(index_B)
    repeated = projected_once(lm.model, states, index_B) if once else nullcontext(states[index_B])
    start_B1 = torch.full_like(batch.ids_BT[:, :1], decoder_start_id(lm.model))
    width = batch.ids_BT.shape[1]
    extra = (0, max(0, min(rounded_up(width), lm.codec.data.max_completion_tokens) - width))
    with _unprojected(lm) as caught, repeated as states_BPD:
        out = lm.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states_BPD),
            attention_mask=batch.prompt_mask[index_B].long(),
            decoder_input_ids=pad_end(torch.cat([start_B1, batch.ids_BT[:, :-1]], dim=1), extra),
            decoder_attention_mask=pad_end(
                torch.cat([batch.mask_BT[:, :1], batch.mask_BT[:, :-1]], dim=1), extra
            ).long(),
            use_cache=False,
            output_hidden_states=True,
        )
    unprojected_BTD = (caught[0] if lm.projects_last else out.logits)[:, :width]
    return ResponseStates(out.decoder_hidden_states[-1][:, :width], unprojected_BTD, _projection(lm))


def _projection(lm: LanguageModel) -> Callable[[Tensor], Tensor]:
    head: nn.Module = lm.model.get_output_embeddings()
    return head if lm.projects_last else nn.Identity()


@contextmanager
def _unprojected(lm: LanguageModel) -> Iterator[list[Tensor]]:
    """The context in which the model's output projection catches what it is given and computes one place only."""
    caught: list[Tensor] = []
    if not lm.projects_last:
        yield caught
        return

    def catch(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        caught.append(args[0])
        return (args[0][:, :1], *args[1:])

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()
