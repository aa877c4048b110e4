"""Rows of a causal model whose prompt states stand once per prompt, however many completions grow from it.

Keys and values live in buffers allocated once: prompts in one, each row's own tokens in another. Attention goes over
both and joins them by their log-sum-exp, which is exact. A decoding step of n rows over u prompts of P tokens reads
u * P + n * t cached places instead of n * (P + t).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from homestretch.console import say
from homestretch.models import LanguageModel
from homestretch.ops.shapes import rounded_up
from homestretch.rollouts.rows import CausalRows, Ids, prefill

_PREFILL_TOKENS = 8192
"""Padded prompt tokens in one prefill, so that its memory does not grow with the number of prompts."""

_ATTENTION = "homestretch_slots"


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values: of prompts (G, H, P, D) and of the tokens that rows have added (S, H, T, D)."""

    def __init__(self, rows: SlotRows) -> None:
        super().__init__()
        self.rows = rows
        self.prompts: list[Tensor] = []
        self.own: list[Tensor] = []

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate, in the dtype that attention computes in. Zeros: what nobody may look at must be finite."""
        rows, dtype = self.rows, self.rows.lm.dtype
        for states in (key_states, value_states):
            heads, width = states.shape[1], states.shape[-1]
            self.prompts.append(states.new_zeros(rows.max_groups, heads, rows.max_prompt, width, dtype=dtype))
            self.own.append(states.new_zeros(rows.num_slots, heads, rows.max_new, width, dtype=dtype))
        self.is_initialized = True

    def place(self, key_states: Tensor, value_states: Tensor, first: int) -> None:
        """Write prompts' states (U, H, P, D) into groups first, first + 1, ..."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for buffer, states in zip(self.prompts, (key_states, value_states), strict=True):
            buffer[first : first + len(states), :, : states.shape[2]] = states

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write each row's new token (B, H, 1, D) at its own place; views of the rows' own places in use."""
        rows = self.rows
        count, places = rows.num_rows, (rows.index[: rows.num_rows], rows.length[: rows.num_rows])
        for buffer, states in zip(self.own, (key_states, value_states), strict=True):
            buffer[places[0], :, places[1]] = states[:, :, 0].to(buffer.dtype)
        return self.own[0][:count, :, : rows.width], self.own[1][:count, :, : rows.width]

    def move(self, rows: tuple[Tensor, Tensor], groups: tuple[Tensor, Tensor]) -> None:
        """Copy (sources, targets): rows and groups over such that are no longer needed."""
        for buffer in self.own:
            buffer[rows[1], :, : self.rows.width] = buffer[rows[0], :, : self.rows.width]
        for buffer in self.prompts:
            buffer[groups[1]] = buffer[groups[0]]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.rows.width, 0

    def get_seq_length(self) -> int:
        return self.rows.width - 1

    def get_max_length(self) -> int:
        return int(self.rows.max_prompt + self.rows.max_new)


class SlotRows:
    """At most `num_slots` rows in groups, a group being the rows of one prompt; see `Rows`."""

    def __init__(self, lm: LanguageModel, *, num_slots: int, num_samples: int, max_prompt: int, max_new: int) -> None:
        self.lm, self.num_slots, self.num_samples = lm, num_slots, num_samples
        self.max_prompt, self.max_new = rounded_up(max_prompt), max_new
        # a group keeps its place until its last row has ended, so there are more than slots would fill at once
        self.max_groups = min(num_slots, 2 * -(-num_slots // num_samples))
        self.num_rows, self.num_groups, self.longest, self.prompt_width = 0, 0, 0, 0
        device = lm.device
        self.index = torch.arange(max(num_slots, max_new), device=device)
        self.length = torch.zeros(num_slots, dtype=torch.long, device=device)
        """Tokens that a row has added to its prompt."""
        self.group = torch.zeros(num_slots, dtype=torch.long, device=device)
        self.column = torch.arange(num_samples, device=device).repeat(self.max_groups)[:num_slots]
        """Which of its group's rows a row is."""
        self.prompt_mask = torch.zeros(self.max_groups, self.max_prompt, dtype=torch.bool, device=device)
        num_layers = int(lm.model.config.get_text_config(decoder=True).num_hidden_layers)
        self.layers = [SlotLayer(self) for _ in range(num_layers)]
        self.cache = Cache(layers=list(self.layers))
        attention = [m for m in lm.model.modules() if hasattr(m, "layer_idx") and hasattr(m, "config")]
        self.configs = list({id(m.config): m.config for m in attention}.values())
        self.grid = self.index[:0, None]

    @property
    def width(self) -> int:
        """How many of the rows' own places are looked at: those in use, and a few so that shapes repeat."""
        return min(rounded_up(self.longest, 8), self.max_new)

    def room(self) -> int:
        return self.max_groups - self.num_groups

    def admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        per_chunk = max(1, _PREFILL_TOKENS // max(len(prompt) for prompt in prompts))
        chunks = [prompts[start : start + per_chunk] for start in range(0, len(prompts), per_chunk)]
        logits = torch.cat([self._admit(chunk, num_samples) for chunk in chunks])
        self._lay_out()
        return logits

    def _admit(self, prompts: Sequence[Ids], num_samples: int) -> Tensor:
        cache, mask, logits = prefill(self.lm, prompts)
        first, last = self.num_groups, self.num_groups + len(prompts)
        for layer, filled in zip(self.layers, cache.layers, strict=True):
            layer.place(filled.keys, filled.values, first)
        self.prompt_mask[first:last] = False
        self.prompt_mask[first:last, : mask.shape[1]] = mask
        start, self.num_rows = self.num_rows, self.num_rows + len(prompts) * num_samples
        self.group[start : self.num_rows] = self.index[first:last].repeat_interleave(num_samples)
        self.column[start : self.num_rows] = self.index[:num_samples].repeat(len(prompts))
        self.length[start : self.num_rows] = 0
        self.num_groups, self.prompt_width = last, max(self.prompt_width, mask.shape[1])
        return logits.repeat_interleave(num_samples, dim=0)

    def step(self, chosen_B: Tensor) -> Tensor:
        # a row that has ended but is not dropped yet may be full: what it then overwrites is its own
        length_B1 = self.length[: self.num_rows].clamp_(max=self.max_new - 1)[:, None]
        self.longest = min(self.longest + 1, self.max_new)
        prompt_length_G = self.prompt_mask[: self.num_groups].sum(1)
        position_ids = prompt_length_G[self.group[: self.num_rows], None] + length_B1
        with self._attention():
            out = self.lm.model(
                input_ids=chosen_B[:, None], position_ids=position_ids, past_key_values=self.cache, use_cache=True,
                slot_rows=self,
            )  # fmt: skip
        self.length[: self.num_rows] += 1
        return torch.as_tensor(out.logits[:, -1])

    def keep(self, rows: Tensor) -> None:
        kept, group = self.group[rows].unique(return_inverse=True)
        moves = tuple(_moves(chosen, self.index) for chosen in (rows, kept))
        for layer in self.layers:
            layer.move(*moves)
        self.prompt_mask[moves[1][1]] = self.prompt_mask[moves[1][0]]
        self.length[: len(rows)], self.group[: len(rows)] = self.length[rows], group
        self.column[: len(rows)] = self.column[rows]
        self.num_rows, self.num_groups = len(rows), len(kept)
        self._lay_out()

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """The context in which the model's attention is `slot_attention`."""
        before = [config._attn_implementation for config in self.configs]
        try:
            for config in self.configs:
                config._attn_implementation = _ATTENTION
            yield
        finally:
            for config, name in zip(self.configs, before, strict=True):
                config._attn_implementation = name

    def _lay_out(self) -> None:
        """Where a group's rows stand side by side: `grid` (G, K) of rows, any row where there is none."""
        self.grid = self.index.new_zeros(self.num_groups, self.num_samples)
        self.grid[self.group[: self.num_rows], self.column[: self.num_rows]] = self.index[: self.num_rows]
        self.longest = int(self.length[: self.num_rows].max()) if self.num_rows else 0
        self.prompt_width = (
            int(self.prompt_mask[: self.num_groups].any(0).nonzero().max()) + 1 if self.num_groups else 0
        )


def _moves(kept: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """(sources, targets) that bring ascending places to 0, 1, ...; those already there are left out."""
    targets = index[: len(kept)]
    moved = kept != targets
    return kept[moved], targets[moved]


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    slot_rows: SlotRows,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """One token per row over its prompt and its own tokens; `query` (B, H, 1, D), `key`, `value` (B, J, T, D).

    H is a multiple of J (grouped-query attention). ValueError on extra terms in the scores (a soft cap, sinks).
    """
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "sliding_window")):
        raise ValueError("attention scores with further terms")
    rows, layer = slot_rows, slot_rows.layers[int(module.layer_idx)]  # type: ignore[arg-type]
    num_rows, num_heads, _, width = query.shape
    num_groups, num_columns = rows.grid.shape
    per_key = num_heads // key.shape[1]
    query_BJRD = query.view(num_rows, -1, per_key, width) * scaling
    prompt_keys, prompt_values = (states[:num_groups, :, : rows.prompt_width] for states in layer.prompts)
    group_B, column_B = rows.group[:num_rows], rows.column[:num_rows]

    query_GJCD = query_BJRD[rows.grid].transpose(1, 2).flatten(2, 3)
    hidden = ~rows.prompt_mask[:num_groups, None, None, : rows.prompt_width]
    mixed, total = _attend(query_GJCD, prompt_keys, prompt_values, hidden)
    mixed, total = (t.unflatten(2, (num_columns, per_key))[group_B, :, column_B] for t in (mixed, total))

    hidden = rows.index[: rows.width] > rows.length[:num_rows, None, None, None]
    own_mixed, own_total = _attend(query_BJRD, key, value, hidden)
    share = torch.sigmoid(total - own_total)
    out_BJRD = share * mixed + (1 - share) * own_mixed
    return out_BJRD.reshape(num_rows, 1, num_heads, -1).to(query.dtype), None


def _attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention over the places that are not hidden, and the log-sum-exp (..., 1) of the scores; float32."""
    scores = (query @ key.transpose(-1, -2)).float().masked_fill(hidden, torch.finfo(torch.float32).min)
    total = scores.logsumexp(-1, keepdim=True)
    return ((scores - total).exp().to(value.dtype) @ value).float(), total


AttentionInterface.register(_ATTENTION, slot_attention)

_supported: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def supports_slots(lm: LanguageModel) -> bool:
    """Whether a causal model's attention goes through transformers' interface, so that `SlotRows` are exact for it.

    Tried once per model on a few tokens, against its own cache.
    """
    if lm.model not in _supported:
        _supported[lm.model] = lm.shares_prompts and _agrees(replace(lm, dtype=torch.float32))
        if lm.shares_prompts and not _supported[lm.model]:
            say(f"{lm.model.config.model_type}: attention of its own, so prompt states are kept for every completion")
    return _supported[lm.model]


def _agrees(lm: LanguageModel) -> bool:
    ids = torch.arange(6, device=lm.device) % lm.model.get_input_embeddings().num_embeddings
    prompts, chosen = [ids[:3].tolist(), ids[3:5].tolist()], ids[1:5]
    slots, plain = SlotRows(lm, num_slots=4, num_samples=2, max_prompt=3, max_new=2), CausalRows(lm)
    with torch.autocast(lm.device.type, enabled=False):
        try:
            slots.admit(prompts, 2)
            found = slots.step(chosen)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError):
            return False
        plain.admit(prompts, 2)
        return torch.allclose(found, plain.step(chosen), atol=1e-3, rtol=1e-3)
