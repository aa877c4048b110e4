"""The failure mode of examples/invalid_json, loaded from its file: what the example says is what the tests run."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[1] / "examples" / "invalid_json"


def load_example(name: str) -> Any:
    """A module of the example, by its file, without a place in `sys.modules`."""
    spec = spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
