"""Write docs/config.md and docs/recipe.schema.json from the config models.

python -m homestretch.config_docs           write both
python -m homestretch.config_docs --check   exit with 1 if a file is not what would be written
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from homestretch.config import RunConfig
from homestretch.recipe import variants

_INTRODUCTION = """# Config reference

Every key of a recipe, generated from `config.py` and `config_*.py` by `make docs`. A recipe gives those it wants to
change; `a.b=value` behind a command replaces one (`homestretch run recipe.yaml rl.kl.beta=0.1`). Unknown keys, wrong
types and duplicate keys are errors. YAML is read as version 1.2: `1e-5` is a number, `no` a word.
The JSON schema for editors is [recipe.schema.json](recipe.schema.json).
"""


def config_markdown() -> str:
    """The reference as Markdown: one table per section, in the recipe's order."""
    return _INTRODUCTION + "".join(_section_lines(RunConfig, ""))


def config_schema() -> str:
    """The JSON schema of a recipe."""
    return json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _section_lines(model: type[BaseModel], path: str) -> Iterator[str]:
    yield from _table_lines(model, f"`{path}`" if path else "Top level", path, model.model_fields)
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        if union := variants(field.annotation):
            yield from _union_lines(union, key)
        else:
            for section in _sections(field.annotation):
                yield from _section_lines(section, key)


def _union_lines(union: Mapping[str, type[BaseModel]], path: str) -> Iterator[str]:
    """The keys that all members have from their common base, then what each has of its own."""
    bases = [set(model.__mro__) for model in union.values()]
    common = next(base for base in next(iter(union.values())).__mro__ if all(base in mro for mro in bases))
    yield from _section_lines(common, path)
    for tag, model in union.items():
        own = {name: field for name, field in model.model_fields.items() if _is_own(name, field, common)}
        yield from _table_lines(model, f"`{path}` with `algorithm: {tag}`", path, own)


def _is_own(name: str, field: FieldInfo, common: type[BaseModel]) -> bool:
    shared = common.model_fields.get(name)
    return shared is None or (name != "algorithm" and _type_text(field) != _type_text(shared))


def _table_lines(model: type[BaseModel], title: str, path: str, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    yield f"\n## {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n"
    if not fields:
        return
    yield "\n| key | type | default | meaning |\n|---|---|---|---|\n"
    for name, field in fields.items():
        key = f"{path}.{name}" if path else name
        cells = (f"`{key}`", _type_text(field), _default_text(field), " ".join((field.description or "").split()))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _sections(argument)


def _type_text(field: FieldInfo) -> str:
    bounds = [text for item in field.metadata for text in _bounds(item)]
    return ", ".join([_annotation_text(field.annotation), *bounds])


def _bounds(item: Any) -> Iterator[str]:
    signs: tuple[tuple[type, str, str], ...] = (
        (Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"), (MinLen, "min_length", "length >="),
    )  # fmt: skip
    for kind, attribute, sign in signs:
        if isinstance(item, kind):
            yield f"{sign} {getattr(item, attribute)}"
    if isinstance(item, FieldInfo):
        for inner in item.metadata:
            yield from _bounds(inner)


def _annotation_text(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = [text for item in arguments[1:] for text in _bounds(item)]
        return " ".join([_annotation_text(arguments[0]), *bounds])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_annotation_text(argument) for argument in arguments))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_annotation_text(arguments[0])}"
    if origin is dict:
        return f"map of {_annotation_text(arguments[0])} to {_annotation_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "`true` or `false`",
        type(None): "null",
        Any: "anything",
    }
    return names[annotation]


def _default_text(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        changed = field.default.model_dump(exclude_unset=True)
        return ", ".join(f"`{key}: {_value_text(value)}`" for key, value in changed.items()) or "as below"
    return f"`{_value_text(field.default)}`"


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m homestretch.config_docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where the files are")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in (("config.md", config_markdown()), ("recipe.schema.json", config_schema())):
        path = options.folder / name
        if options.check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    for path in stale:
        print(f"{path} is out of date; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
