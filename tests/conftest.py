"""Small real models in folders (tiny.py makes them), and the examples they read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from homestretch.models import build_base
from homestretch.types import Example
from tiny import NEW_MODELS, tiny_config, tiny_examples

torch.set_num_threads(2)


@pytest.fixture
def examples() -> list[Example]:
    return tiny_examples()


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved folder per model type."""
    root = tmp_path_factory.mktemp("models")
    for kind, new in NEW_MODELS.items():
        build_base(new, tiny_config(kind), tiny_examples(), root / kind)
    return {kind: root / kind for kind in NEW_MODELS}
