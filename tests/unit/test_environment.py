"""What is recorded of the machine and the code."""

from __future__ import annotations

import subprocess

import pytest

from homestretch import environment


def test_git_is_asked_without_taking_the_repository_s_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is cut off for time would leave the lock behind, and no commit could be made after."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="something", stderr="")

    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment.git_commit() == "something+changes"
    assert len(asked) == 3
    assert all(command[:2] == ["git", "--no-optional-locks"] for command in asked)
