"""What a run ran on: versions, machine, command. No user names, and no paths but those the command itself gives."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import homestretch

_GIT_SECONDS = 10.0


def describe() -> dict[str, Any]:
    """The environment as JSON-ready values; imports torch to name the device."""
    import torch

    return {
        "schema": 1,
        "homestretch": homestretch.__version__,
        "git_commit": git_commit(),
        "command": ["homestretch", *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_count": cpu_count(),
        "memory_gb": memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": dependency_versions(),
    }


def dependency_versions() -> dict[str, str]:
    """Installed versions of the packages that homestretch names as its dependencies."""
    versions = {}
    for requirement in requires("homestretch") or ():
        match = re.match(r"[\w.-]+", requirement)
        if match is None or "extra ==" in requirement:
            continue
        try:
            versions[match.group()] = version(match.group())
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of the source tree that is running ("+changes" if it was edited); None for an installed package."""
    folder = Path(homestretch.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                check=False,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--", "__init__.py"):  # a virtual environment may lie inside someone else's repository
        return None
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if git("status", "--porcelain", "--", ".") else commit


def cpu_name() -> str:
    """The processor's model name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        return match.group(1).strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float:
    """The machine's memory in GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def quiet_libraries() -> None:
    """Switch off transformers' own progress bars and notices, which say little and spoil a log file."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def peak_memory_gb() -> float:
    """The most memory, in GiB, that this process has held so far."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)
