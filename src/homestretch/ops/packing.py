"""One sequence per prompt: [prompt, c1, ..., ck] under a block mask, so that the prompt is computed once.

Each completion sees its prompt and itself, and its positions continue the prompt's. Completions follow each other
without padding. Dropout aside, the result is that of k separate passes, for P + |c1| + ... + |ck| tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from homestretch.ops.shapes import rounded_up


@dataclass(frozen=True, slots=True)
class Packed:
    """U prompts of width P, each with its completions, of W tokens in all at most, as rows of length L = P + W."""

    ids: Tensor
    """(U, L)."""
    positions: Tensor
    """(U, L)."""
    allowed: Tensor
    """(U, 1, L, L), True where the query (third axis) may look at the key (fourth)."""
    start_B: Tensor
    """How many tokens of other completions stand between a row of the batch and its prompt."""
    num_kept: int
    """W + 1: the places at the end of a row, from the prompt's last token on, whose states say something."""


def pack(prompt_ids: Tensor, prompt_mask: Tensor, index_B: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Packed:
    """Lay left-padded prompts (U, P) and right-padded completions (B, T) out, one row a prompt.

    `index_B` says which prompt a completion belongs to; masks are True where a token counts.
    """
    num_prompts, prompt_width = prompt_ids.shape
    length_B = mask_BT.sum(1)
    earlier_BB = torch.tril(index_B[:, None] == index_B[None], diagonal=-1)
    start_B = (earlier_BB * length_B).sum(1)
    width = rounded_up(int((start_B + length_B).max()))

    step_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    rows = index_B[:, None].expand_as(ids_BT)[mask_BT]
    places = (rows, (prompt_width + start_B[:, None] + step_BT)[mask_BT])
    ids = torch.cat([prompt_ids, prompt_ids.new_zeros(num_prompts, width)], dim=1)
    ids[places] = ids_BT[mask_BT]
    positions = torch.zeros_like(ids)
    positions[:, :prompt_width] = (prompt_mask.long().cumsum(1) - 1).clamp(min=0)
    positions[places] = prompt_mask.sum(1)[rows] + step_BT[mask_BT]
    # whose a place is: 0 the prompt's, 1 + b completion b's, -1 nobody's
    owner = torch.full_like(ids, -1)
    owner[:, :prompt_width] = prompt_mask.long() - 1
    owner[places] = (1 + torch.arange(len(ids_BT), device=ids.device))[:, None].expand_as(ids_BT)[mask_BT]

    visible = (owner[:, None] == 0) | ((owner[:, None] == owner[:, :, None]) & (owner[:, None] > 0))
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    itself = torch.eye(len(causal), dtype=torch.bool, device=ids.device)  # padding looks at itself: no empty softmax
    return Packed(ids, positions, ((visible & causal) | itself)[:, None], start_B, width + 1)


def states_after(kept: Tensor, packed: Packed, index_B: Tensor, count_BT: Tensor) -> Tensor:
    """From states of the kept places (U, W + 1, ...) to those after a completion's first n tokens (B, T, ...).

    `count_BT` holds the n; 0 is the prompt's last token. Where n is more than the completion has, any state stands.
    """
    place_BT = torch.where(count_BT == 0, 0, packed.start_B[:, None] + count_BT)
    return kept[index_B[:, None], place_BT.clamp(max=packed.num_kept - 1)]
