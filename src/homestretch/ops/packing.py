"""One sequence per prompt: [prompt, c1, ..., ck] under a block mask, so that the prompt is computed once.

Each completion sees its prompt and itself, and its positions continue the prompt's. Dropout aside, the result is that
of k separate passes, for P + k * T tokens instead of k * (P + T).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """U prompts of width P, each with at most K completions of width T, as rows of length L = P + K * T."""

    ids: Tensor
    """(U, L)."""
    positions: Tensor
    """(U, L)."""
    allowed: Tensor
    """(U, 1, L, L), True where the query (third axis) may look at the key (fourth)."""
    slot_B: Tensor
    """Which of its prompt's K completions a row of the batch is."""
    num_kept: int
    """K * T + 1: the places at the end of a row, from the prompt's last token on, whose states say something."""


def pack(prompt_ids: Tensor, prompt_mask: Tensor, index_B: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Packed:
    """Lay left-padded prompts (U, P) and right-padded completions (B, T) out, one row a prompt.

    `index_B` says which prompt a completion belongs to; masks are True where a token counts.
    """
    num_prompts, prompt_width = prompt_ids.shape
    width = ids_BT.shape[1]
    same_BB = index_B[:, None] == index_B[None]
    slot_B = torch.tril(same_BB, diagonal=-1).sum(1)
    num_slots = int(slot_B.max()) + 1
    body_ids = ids_BT.new_zeros(num_prompts, num_slots, width)
    body_mask = mask_BT.new_zeros(num_prompts, num_slots, width)
    body_ids[index_B, slot_B], body_mask[index_B, slot_B] = ids_BT, mask_BT
    ids = torch.cat([prompt_ids, body_ids.flatten(1)], dim=1)
    counts = torch.cat([prompt_mask, body_mask.flatten(1)], dim=1)

    prompt_positions = (prompt_mask.long().cumsum(1) - 1).clamp(min=0)
    steps = torch.arange(width, device=ids.device).repeat(num_slots)
    positions = torch.cat([prompt_positions, prompt_mask.sum(1, keepdim=True) + steps], dim=1)

    slots = torch.arange(num_slots, device=ids.device).repeat_interleave(width)
    branch = torch.cat([torch.full((prompt_width,), -1, device=ids.device), slots])
    visible = (branch[None] == -1) | (branch[None] == branch[:, None])
    causal = torch.ones(len(branch), len(branch), dtype=torch.bool, device=ids.device).tril()
    itself = torch.eye(len(branch), dtype=torch.bool, device=ids.device)  # padding looks at itself: no empty softmax
    allowed = ((visible & causal)[None] & counts[:, None, :]) | itself
    return Packed(ids, positions, allowed[:, None], slot_B, num_slots * width + 1)


def states_after(kept: Tensor, packed: Packed, index_B: Tensor, count_BT: Tensor, width: int) -> Tensor:
    """From states of the kept places (U, K * T + 1, ...) to those after a completion's first n tokens (B, T, ...).

    `count_BT` holds the n; 0 is the prompt's last token. `width` is T.
    """
    place_BT = torch.where(count_BT == 0, 0, (packed.slot_B * width)[:, None] + count_BT)
    return kept[index_B[:, None], place_BT]
