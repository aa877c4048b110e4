"""The best weights so far, held outside the model while training goes on. Safetensors only, no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from homestretch.rundir import atomic_path


def save_trainable(model: nn.Module, path: Path, **beside: nn.Module) -> None:
    """Write the trainable parameters (each tied one once) to a safetensors file, whole or not at all.

    Those of further modules are written as "NAME.parameter"; the model's own have their plain names.
    """
    from safetensors.torch import save_file

    tensors = {n: p.detach().contiguous().cpu() for n, p in _trainable(model, beside)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load_trainable(model: nn.Module, path: Path, **beside: nn.Module) -> None:
    """Put back what `save_trainable` wrote; without the modules beside it, the model's own parameters alone.

    KeyError if the file is of another model.
    """
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in _trainable(model, beside):
            parameter.copy_(tensors[name])


def _trainable(model: nn.Module, beside: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for prefix, module in (("", model), *((f"{name}.", module) for name, module in beside.items())):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield prefix + name, parameter
