"""Several low-rank adapters on one trunk (peft): switched without touching what is trained, written, attached."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from homestretch.types import UserError

TRAINED_ADAPTER = "default"
"""The name of the adapter that a stage trains."""
_WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."


def is_adapted(model: Any) -> bool:
    """Whether a model is a trunk inside peft's wrapper."""
    return hasattr(model, "get_base_model")


@contextmanager
def active_adapter(model: Any, name: str | None) -> Iterator[None]:
    """The context in which a model computes with this adapter alone; None: with none, as does a model without any.

    Whatever was active and whatever was trainable before is so afterwards: peft's own switches change both.
    """
    if not is_adapted(model):
        assert name is None, f"no adapter {name!r}: the model has none"
        yield
        return
    trainable, before = trainable_ids(model), model.active_adapter
    try:
        if name is None:
            model.base_model.disable_adapter_layers()
        else:
            model.set_adapter(name)
        yield
    finally:
        model.base_model.enable_adapter_layers()
        model.set_adapter(before)
        restrict_trainable(model, trainable)


def trainable_ids(model: Any) -> set[int]:
    """The identities of the parameters that learn."""
    return {id(p) for p in model.parameters() if p.requires_grad}


def restrict_trainable(model: Any, trainable: set[int]) -> None:
    """Have these parameters, by identity, learn and no others."""
    for parameter in model.parameters():
        if parameter.requires_grad != (id(parameter) in trainable):
            parameter.requires_grad_(id(parameter) in trainable)


def write_adapter(model: Any, folder: Path) -> None:
    """Write the trained adapter as peft does: settings as JSON, weights as safetensors (with a classifier's head)."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(model, adapter_name=TRAINED_ADAPTER, save_embedding_layers=False)
    settings = copy.copy(model.peft_config[TRAINED_ADAPTER])
    settings.base_model_name_or_path = None  # it would be a path of this machine
    settings.inference_mode = True
    folder.mkdir()
    settings.save_pretrained(folder)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / _WEIGHTS_FILE)


def restore_adapter(model: Any, folder: Path) -> None:
    """Put what `write_adapter` wrote into the adapter of a model in training, made by the same recipe."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / _WEIGHTS_FILE), adapter_name=TRAINED_ADAPTER)


def attach_adapter(model: Any, folder: Path, name: str) -> tuple[Any, dict[str, Tensor]]:
    """A trunk with a written adapter beside those it has, frozen, and the written tensors that are no adapter's.

    What was active stays so (an adapter that is the first is active), as does what was trainable. The trunk must have
    the layers and hold the weights that the adapter was trained on; UserError if it lacks some of the layers.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    written = load_file(folder / _WEIGHTS_FILE)
    adapter = {key: tensor for key, tensor in written.items() if ".lora_" in key}
    settings = LoraConfig.from_pretrained(folder)
    settings.target_modules, settings.task_type, settings.modules_to_save = _layers(adapter), None, None
    trainable = trainable_ids(model)
    try:
        if is_adapted(model):
            model.add_adapter(name, settings)
        else:
            model = get_peft_model(model, settings, adapter_name=name)
    except ValueError as error:
        raise UserError(f"{folder}: {error}; run the stage that wrote it again") from error
    set_peft_model_state_dict(model, adapter, adapter_name=name)
    restrict_trainable(model, trainable)
    if get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys() != adapter.keys():
        raise UserError(f"{folder}: adapters of another model; run the stage that wrote it again")
    return model.eval(), {key.removeprefix(_PREFIX): t for key, t in written.items() if key not in adapter}


def _layers(adapter: Mapping[str, Tensor]) -> list[str]:
    """The full names of the layers that the tensors of an adapter belong to."""
    return sorted({key.removeprefix(_PREFIX).partition(".lora_")[0] for key in adapter})
