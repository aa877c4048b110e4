"""Built-in tasks: generated data with exact facts, so that a wrong fact in an output is known, not guessed."""

from __future__ import annotations

from homestretch.registry import resolve
from homestretch.tasks.base import SPLITS, Task

__all__ = ["SPLITS", "TASKS", "Task", "build_task"]

TASKS: dict[str, str] = {"chats": "homestretch.tasks.chats:Chats"}
"""Name in a recipe (`data.task`) -> "module:Class"."""


def build_task(name: str) -> Task:
    """The task of that name: a built-in one, a plug-in's, or `package.module:Class`. UserError if there is none."""
    task: Task = resolve(name, TASKS, group="homestretch.tasks", kind="task")()
    return task
