"""Cross-attention's keys and values once per prompt, however many completions read them.

A decoder is given its encoder's states repeated, a row a completion, and would project the same prompt for each. Here
its linear layers know that tensor, project the states as they were, and repeat what comes out. Dropout inside adapters
aside, the result is that of the plain way, and so are gradients, which are added up before they reach the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def projected_once(model: Any, states_UPD: Tensor, index_B: Tensor) -> Iterator[Tensor]:
    """The context in which a model may be given the states yielded, (B, P, D), as its encoder's.

    `states_UPD` holds one row a prompt, and row b is that of prompt `index_B[b]`. The values yielded are right: a
    decoder that does not hand them to a linear layer as they are is not wrong, only slow.
    """
    repeated_BPD = states_UPD[index_B]

    def project_states(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (states_UPD, *args[1:]) if args and args[0] is repeated_BPD else None

    def repeat(layer: nn.Module, args: tuple[Any, ...], projected_UPE: Tensor) -> Tensor | None:
        return _rows(projected_UPE, index_B) if args and args[0] is states_UPD else None

    handles: list[Any] = []
    for layer in set(_linear_layers(model.get_decoder())):
        handles += [layer.register_forward_pre_hook(project_states), layer.register_forward_hook(repeat)]
    try:
        yield repeated_BPD
    finally:
        for handle in handles:
            handle.remove()


def _linear_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that treat every place alike; of one with adapters the whole, not its parts."""
    from transformers.pytorch_utils import Conv1D

    for child in module.children():
        if isinstance(getattr(child, "base_layer", child), (nn.Linear, Conv1D)):
            yield child
        else:
            yield from _linear_layers(child)


def _rows(values: Tensor, index_B: Tensor) -> Tensor:
    """`values[index_B]`: on a CPU the way with the faster gradient, elsewhere the one whose gradient has one order."""
    return values.index_select(0, index_B) if values.device.type == "cpu" else values[index_B]


@torch.no_grad()
def can_project_once(model: Any) -> bool:
    """Whether an encoder-decoder's decoder reads the encoder's states through its linear layers and in no other way.

    Tried on a few tokens, with states that are NaN to whoever else reads them. Not so where the states are projected
    to the decoder's width on their way to it.
    """
    from transformers.modeling_outputs import BaseModelOutput

    ids = torch.arange(4, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    states = model.get_encoder()(input_ids=ids).last_hidden_state
    index = torch.zeros(2, dtype=torch.long, device=model.device)

    def logits(states_BPD: Tensor) -> Tensor:
        encoded = BaseModelOutput(last_hidden_state=states_BPD)
        out = model(encoder_outputs=encoded, decoder_input_ids=ids.view(2, 2), use_cache=False)
        return torch.as_tensor(out.logits)

    with projected_once(model, states, index) as repeated:
        found = logits(repeated.fill_(torch.nan))
    return torch.allclose(found, logits(states[index]), atol=1e-3, rtol=1e-3)
