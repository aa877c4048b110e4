"""The best weights so far, held outside the model while training goes on. Safetensors only, no pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from homestretch.rundir import atomic_path


def save_trainable(model: nn.Module, path: Path) -> None:
    """Write the trainable parameters (each tied one once) to a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {n: p.detach().contiguous().cpu() for n, p in model.named_parameters() if p.requires_grad}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load_trainable(model: nn.Module, path: Path) -> None:
    """Put back what `save_trainable` wrote. KeyError if the file is of another model."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])
