"""The completions being decoded side by side: their caches, how new ones join and how finished ones leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import BaseModelOutput

from homestretch.encoding import pad
from homestretch.models import LanguageModel, accepted, additive_mask, decoder_start_id, positions

Ids = Sequence[int]

_PREFILL_TOKENS = 8192
"""Padded prompt tokens in one prefill, so that its memory does not grow with the number of prompts."""


class Rows(Protocol):
    """What the decoding loop needs of a model: logits of the next token for every row, in the rows' order."""

    can_refill: bool
    """Whether rows may join while others are being decoded; else only when there are none."""

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        """Append `num_samples` rows per prompt, each prompt computed once; the logits (new rows, V) after it."""
        ...

    def step(self, chosen_B: Tensor) -> Tensor:
        """Feed one token per row; logits (B, V) of the next."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (ascending indices), in this order."""
        ...


def build_rows(lm: LanguageModel, num_slots: int, max_length: int) -> Rows:
    """Rows with caches allocated once and refilled where the model takes 4-D masks; else transformers' own caches.

    `max_length` is the longest prompt with its completion, in tokens.
    """
    if lm.family == "seq2seq":
        return Seq2SeqRows(lm)
    return SlotRows(lm, num_slots, max_length) if lm.shares_prompts else CausalRows(lm)


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in `num_slots` rows of `max_length` places; the first `num_rows` rows are in use."""

    def __init__(self, slots: SlotRows) -> None:
        super().__init__()
        self.slots = slots
        self.buffers: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate, in the dtype that attention computes in. Zeros: what nobody may look at must be finite."""
        shape, dtype = (self.slots.num_slots, key_states.shape[1], self.slots.max_length), self.slots.lm.dtype
        keys, values = (s.new_zeros(*shape, s.shape[-1], dtype=dtype) for s in (key_states, value_states))
        self.buffers = (keys, values)
        self.is_initialized = True

    def place(self, key_states: Tensor, value_states: Tensor, first: int, num_samples: int) -> None:
        """Write prompts' states (U, H, P, D) into rows first, first + 1, ..., each `num_samples` times."""
        if self.buffers is None:
            self.lazy_initialization(key_states, value_states)
        assert self.buffers is not None
        count, width = len(key_states) * num_samples, key_states.shape[2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            rows = buffer[first : first + count].unflatten(0, (-1, num_samples))
            rows[:, :, :, :width] = states[:, None]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write each row's new token (B, H, 1, D) at its own place; views of all places in use."""
        assert self.buffers is not None
        count, width = self.slots.num_rows, self.slots.width
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[self.slots.index[:count], :, self.slots.lengths[:count]] = states[:, :, 0].to(buffer.dtype)
        keys, values = self.buffers
        return keys[:count, :, :width], values[:count, :, :width]

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Copy rows over rows that are no longer needed."""
        for buffer in self.buffers or ():
            buffer[targets, :, : self.slots.width] = buffer[sources, :, : self.slots.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.width, 0

    def get_seq_length(self) -> int:
        return self.slots.width - 1

    def get_max_length(self) -> int:
        return self.slots.max_length


class SlotRows:
    """Rows of a causal model, each with its own length, in caches allocated once."""

    can_refill = True

    def __init__(self, lm: LanguageModel, num_slots: int, max_length: int) -> None:
        self.lm, self.num_slots, self.max_length = lm, num_slots, max_length
        self.num_rows, self.width = 0, 0
        self.index = torch.arange(num_slots, device=lm.device)
        self.lengths = torch.zeros(num_slots, dtype=torch.long, device=lm.device)
        self.visible = torch.zeros(num_slots, max_length, dtype=torch.bool, device=lm.device)
        num_layers = int(lm.model.config.get_text_config(decoder=True).num_hidden_layers)
        self.layers = [SlotLayer(self) for _ in range(num_layers)]
        self.cache = Cache(layers=list(self.layers))

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        per_chunk = max(1, _PREFILL_TOKENS // max(len(prompt) for prompt in prompts))
        chunks = [prompts[start : start + per_chunk] for start in range(0, len(prompts), per_chunk)]
        return torch.cat([self._admit(chunk, num_samples) for chunk in chunks])

    def _admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        cache, mask, logits = _prefill(self.lm, prompts)
        first, count = self.num_rows, len(prompts) * num_samples
        for layer, filled in zip(self.layers, cache.layers, strict=True):
            layer.place(filled.keys, filled.values, first, num_samples)
        self.num_rows += count
        self.lengths[first : self.num_rows] = mask.shape[1]
        self.visible[first : self.num_rows] = False
        self.visible[first : self.num_rows, : mask.shape[1]] = mask.repeat_interleave(num_samples, dim=0)
        self.width = max(self.width, mask.shape[1])
        return logits.repeat_interleave(num_samples, dim=0)

    def step(self, chosen_B: Tensor) -> Tensor:
        # a finished row that is not dropped yet may be at the end already; what it writes there is its own
        here_B = self.lengths[: self.num_rows].clamp_(max=self.max_length - 1)
        self.width = min(self.width + 1, self.max_length)
        visible = self.visible[: self.num_rows, : self.width]
        position_ids = visible.sum(1, keepdim=True)
        visible[self.index[: self.num_rows], here_B] = True
        out = self.lm.model(
            input_ids=chosen_B[:, None], attention_mask=additive_mask(visible[:, None, None], self.lm.dtype),
            position_ids=position_ids, past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        here_B += 1
        return torch.as_tensor(out.logits[:, -1])

    def keep(self, rows: Tensor) -> None:
        count = len(rows)
        moved = (rows != self.index[:count]).nonzero().squeeze(1)
        sources = rows[moved]
        for layer in self.layers:
            layer.move(sources, moved)
        self.lengths[moved], self.visible[moved] = self.lengths[sources], self.visible[sources]
        self.num_rows = count
        self.width = int(self.lengths[:count].max()) if count else 0


class CausalRows:
    """Rows of a causal model that takes no 4-D mask: all of one age, in transformers' own cache."""

    can_refill = False

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.cache: Any = None
        self.mask = torch.empty(0)

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        self.cache, mask, logits = _prefill(self.lm, prompts)
        self.cache.batch_repeat_interleave(num_samples)
        self.mask = mask.repeat_interleave(num_samples, dim=0)
        return logits.repeat_interleave(num_samples, dim=0)

    def step(self, chosen_B: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        optional = accepted(self.lm.model, {"position_ids": positions(self.mask)[:, -1:]})
        out = self.lm.model(
            input_ids=chosen_B[:, None], attention_mask=self.mask.long(), past_key_values=self.cache, use_cache=True,
            **optional,
        )  # fmt: skip
        return torch.as_tensor(out.logits[:, -1])

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class Seq2SeqRows:
    """Rows of an encoder-decoder: all of one age, as decoders count positions for the whole batch at once."""

    can_refill = False

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.cache: Any = None
        self.mask, self.encoder_states = torch.empty(0), torch.empty(0)

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        """Encoder and first decoder step once per prompt; the states that cross-attention reads are then repeated."""
        ids, self.mask = (t.to(self.lm.device) for t in pad(prompts, self.lm.codec.pad_id))
        encoder = self.lm.model.get_encoder()
        self.encoder_states = encoder(input_ids=ids, attention_mask=self.mask.long()).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = torch.full((len(prompts),), decoder_start_id(self.lm.model), device=self.lm.device)
        logits = self.step(start)
        self.cache.batch_repeat_interleave(num_samples)
        self.mask = self.mask.repeat_interleave(num_samples, dim=0)
        self.encoder_states = self.encoder_states.repeat_interleave(num_samples, dim=0)
        return logits.repeat_interleave(num_samples, dim=0)

    def step(self, chosen_B: Tensor) -> Tensor:
        out = self.lm.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoder_states), attention_mask=self.mask.long(),
            decoder_input_ids=chosen_B[:, None], past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        return torch.as_tensor(out.logits[:, -1])

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.encoder_states = self.mask[rows], self.encoder_states[rows]


def _prefill(lm: LanguageModel, prompts: Sequence[Ids]) -> tuple[Any, Tensor, Tensor]:
    """Run left-padded prompts once: cache, mask (U, P) and the logits (U, V) of the first token."""
    ids, mask = (t.to(lm.device) for t in pad(prompts, lm.codec.pad_id, left=True))
    cache = DynamicCache()
    optional = accepted(lm.model, {"position_ids": positions(mask), "logits_to_keep": 1})
    out = lm.model(input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **optional)
    return cache, mask, torch.as_tensor(out.logits[:, -1])
