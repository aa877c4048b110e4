"""From a name in a recipe to a class or function: the literal table, then entry points, then `module:attribute`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from homestretch.types import UserError


def resolve(name: str, table: Mapping[str, str], group: str, kind: str) -> Any:
    """Return what `name` stands for.

    `table` maps our own names to "module:attribute"; `group` is the entry-point group that packages may extend;
    `kind` is the word for messages ("failure mode"). Raises UserError that suggests the nearest name.
    """
    if name in table:
        return _load(table[name], kind)
    plugins = {point.name: point.value for point in entry_points(group=group)}
    if name in plugins:
        return _load(plugins[name], kind)
    if ":" in name:
        return _load(name, kind)
    known = sorted({*table, *plugins})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}; your own: `package.module:Name`"
    raise UserError(f"unknown {kind} {name!r}: {hint}")


def _load(target: str, kind: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} {target!r}: no module {error.name!r} (is it installed or on PYTHONPATH?)") from error
    except AttributeError as error:
        raise UserError(f"{kind} {target!r}: module {module_name!r} has no {attribute!r}") from error
