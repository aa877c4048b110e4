"""The completions being decoded side by side: their caches, how new ones join and how finished ones leave."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from homestretch.encoding import pad
from homestretch.models import LanguageModel, accepted, decoder_start_id, positions

Ids = Sequence[int]


class Rows(Protocol):
    """What the decoding loop needs of a model: logits of the next token for every row, in the rows' order."""

    def room(self) -> int:
        """How many prompts may join now, as far as the caches go; 0 if rows only join when there are none."""
        ...

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        """Append `num_samples` rows per prompt, each prompt computed once; the logits (new rows, V) after it."""
        ...

    def step(self, chosen_B: Tensor) -> Tensor:
        """Feed one token per row; logits (B, V) of the next."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (ascending indices), in this order."""
        ...


class CausalRows:
    """Rows of a causal model that takes no 4-D mask: all of one age, in transformers' own cache."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.cache: Any = None
        self.mask = torch.empty(0)

    def room(self) -> int:
        return 0 if len(self.mask) else sys.maxsize

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        self.cache, mask, logits = prefill(self.lm, prompts)
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

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.cache: Any = None
        self.mask, self.encoder_states = torch.empty(0), torch.empty(0)

    def room(self) -> int:
        return 0 if len(self.mask) else sys.maxsize

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        """Encoder and first decoder step once per prompt; the states that cross-attention reads are then repeated."""
        ids, self.mask = (
            t.to(self.lm.device) for t in pad(prompts, self.lm.codec.pad_id, up_to=self.lm.codec.data.max_prompt_tokens)
        )
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


def prefill(lm: LanguageModel, prompts: Sequence[Ids]) -> tuple[Any, Tensor, Tensor]:
    """Run left-padded prompts once: cache, mask (U, P) and the logits (U, V) of the first token."""
    ids, mask = (t.to(lm.device) for t in pad(prompts, lm.codec.pad_id, left=True, up_to=sys.maxsize))
    cache = DynamicCache()
    optional = accepted(lm.model, {"position_ids": positions(mask), "logits_to_keep": 1})
    out = lm.model(input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **optional)
    return cache, mask, torch.as_tensor(out.logits[:, -1])
