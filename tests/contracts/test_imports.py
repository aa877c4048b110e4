"""The shape of the package: imports point one way, `--help` is light, and no file opens the network."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import homestretch

ROOT = Path(homestretch.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"types"}),
    frozenset({"config_base"}),
    frozenset({"config_audit", "config_baselines", "config_rl"}),
    frozenset({"audit_findings", "config", "console", "ops", "prompts", "registry", "rundir", "tables"}),
    frozenset({"environment", "recipe", "tasks", "tokenizers"}),
    frozenset({"adapters", "checkpoint", "config_docs", "cross_attention", "data", "encoding", "finder", "inspection"}),
    frozenset({"labelled", "models"}),
    frozenset({"forward"}),
    frozenset({"training"}),
    frozenset({"rollouts"}),
    frozenset({"algorithms", "failures", "metrics", "report", "rewards"}),
    frozenset({"scorers"}),
    frozenset({"baselines", "refresh"}),
    frozenset({"stages", "validation"}),
    frozenset({"generation", "pipeline", "reward_check"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""A module or folder imports from the layers above it in this list, and from its own folder; from nowhere else."""

NETWORK = frozenset({"socket", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "ssl"})
UNSAFE = frozenset({"pickle", "dill", "cloudpickle", "marshal", "shelve"})


def area(path: Path) -> str:
    """The module of a file of the package, or the folder it is in: "data", "stages"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] != "__init__" else ""


def imported_modules(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "homestretch":
                yield from (f"homestretch.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield node.module


def own_areas(path: Path) -> set[str]:
    names = (name.split(".") for name in imported_modules(path))
    return {parts[1] for parts in names if parts[0] == "homestretch" and len(parts) > 1}


def layer(name: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if name in names]
    assert found, f"{name} has no place in LAYERS: say where it stands"
    return found[0]


@pytest.mark.parametrize("path", [f for f in FILES if area(f)], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    here = area(path)
    wrong = {name for name in own_areas(path) - {here} if layer(name) >= layer(here)}
    assert not wrong, f"{here} must not import {sorted(wrong)}"


def test_stages_do_not_import_each_other() -> None:
    for path in (ROOT / "stages").glob("*.py"):
        assert not [name for name in imported_modules(path) if name.startswith("homestretch.stages.")], path


def test_nothing_opens_the_network_or_unpickles() -> None:
    for path in FILES:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & (NETWORK | UNSAFE), path
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8"), path


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from homestretch.cli import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print('heavy:', sorted({'torch', 'transformers', 'datasets', 'sklearn', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.strip().endswith("heavy: []")


def test_help_takes_less_than_a_second() -> None:
    def seconds() -> float:
        """Of processor time: other work on the machine is not ours to time."""
        before = os.times()
        subprocess.run([sys.executable, "-m", "homestretch", "--help"], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 1.0
