"""Virtual environments for the contenders: TRL is installed only there."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

from benchmarks.common import ENVS
from benchmarks.protocol import ROOT

VERSIONS = {"trl_1_12": "1.12.0", "trl_current": "1.16.0"}
"""The last release with PPO, and the current one. Both take the torch and transformers of constraints.txt."""
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "tokenizers", "requests")
"""requests: trl 1.12 imports it and does not ask for it."""


def trl_python(contender: str) -> Path:
    """The interpreter of a contender's environment, made on first use."""
    version = next(version for prefix, version in VERSIONS.items() if contender.startswith(prefix))
    folder = ENVS / f"trl-{version}"
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    if not stamp.exists():
        print(f"installing trl {version} into {folder.relative_to(ROOT)}; this takes a few minutes")
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*install, f"trl=={version}", *_PACKAGES], check=True)
        stamp.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed there."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, "trl", *_PACKAGES], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))
