"""From a recipe (YAML and `a.b=value` overrides) to a checked `RunConfig`, and back.

YAML is read as version 1.2 is: `1e-5` is a float, `no` and `on` are words, `2024-01-02` is text, a key given twice is
an error. Every mistake is reported, one line each, with its place and the nearest key.
"""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from homestretch.config import RunConfig
from homestretch.registry import look_in
from homestretch.types import UserError

COMMAND_LINE = "command line"

# The core schema of YAML 1.2 (section 10.3.2); PyYAML's own patterns are those of 1.1.
_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, and with text keys that may not repeat."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _error(f"the key {key!r} must be text: put it in quotes", key_node)
            if key in mapping:
                raise _error(f"the key {key!r} is given twice", key_node)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping

    def _int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        try:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        except ValueError as error:
            raise _error("a number has more digits than can be read", node) from error

    def _float(self, node: yaml.ScalarNode) -> float:
        text = str(self.construct_scalar(node)).lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))

    def _unwanted(self, node: yaml.Node) -> None:
        raise _error(f"a recipe has no use for {node.tag.replace('tag:yaml.org,2002:', '!!')}; write it as text", node)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that also quotes what only YAML 1.2 would not read back as text ("1e-5")."""


_Loader.yaml_implicit_resolvers = {}
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, re.compile(_pattern), ["" if c == "\0" else c for c in _first])
for _tag in ("timestamp", "binary", "set", "omap", "pairs"):  # a recipe has none of these, and JSON neither
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader._unwanted)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader._int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader._float)
_Loader.add_constructor(
    "tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(typing.cast(yaml.MappingNode, node))
)


def _error(message: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, apply `a.b=value` overrides in order and check the whole.

    Classes of one's own that it names (`module:Class`) are looked for among what is installed or on PYTHONPATH, then in
    the recipe's folder, then in the current one.
    Raises UserError with one line per mistake: "recipes/x.yaml: rl.kl.betta: unknown key; did you mean 'beta'?".
    """
    values = _read(path)
    look_in(path.parent, Path.cwd())
    changed = [apply_override(values, override) for override in overrides]
    return _checked(values, str(path), changed)


def parse_yaml(text: str, place: str) -> Any:
    """The value that a YAML text stands for. Raises UserError with the line of the mistake."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = " ".join(part for part in (error.problem, error.note) if part)
        raise UserError(f"{place}:{line}: {message or 'not valid YAML'}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not valid YAML: {str(error).splitlines()[0]}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such recipe; `homestretch init` writes one for your own data") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory; give a recipe file (a finished run's is its config.yaml)") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of keys to values, this is {_shown(values)}")
    return values


def apply_override(values: dict[str, Any], override: str) -> str:
    """Put one `a.b=value` into the recipe's values, in place; returns the key path "a.b".

    The value is YAML (`1e-5`, `null`, `[a, b]`, `{r: 8}`); a text with a colon stays text. Sections that the recipe
    does not have are made. Raises UserError if it is not of that form.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"{COMMAND_LINE}: {override!r} is not of the form a.b=value")
    if not text.strip():
        raise UserError(
            f"{COMMAND_LINE}: {key}= has no value; write {key}=null to unset it, or {key}=\"''\" for no text"
        )
    try:
        value = parse_yaml(text, COMMAND_LINE)
    except UserError as error:
        raise UserError(f"{COMMAND_LINE}: {key}: {text!r} is not a YAML value; put a text in double quotes") from error
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        value = text
    section = values
    for i, part in enumerate(parts[:-1]):
        below = section.get(part)
        if below is None:
            below = section[part] = {}
        if not isinstance(below, dict):
            here = ".".join(parts[: i + 1])
            raise UserError(f"{COMMAND_LINE}: {key}: {here} is {_shown(below)}, not a section")
        section = below
    section[parts[-1]] = value
    return ".".join(parts)


def _checked(values: Mapping[str, Any], place: str, changed: Sequence[str]) -> RunConfig:
    try:
        return RunConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        lines = [_line(details, values, place, changed) for details in error.errors()]
        raise UserError("\n".join(lines)) from error


def _line(details: ErrorDetails, values: Mapping[str, Any], place: str, changed: Sequence[str]) -> str:
    keys, section = _walk(details["loc"])
    if details["type"].startswith("union_tag"):
        keys.append("algorithm")
    key = ".".join(keys)
    if any(key == c or key.startswith(f"{c}.") for c in changed):
        place = COMMAND_LINE
    message = _message(details, section)
    if details["type"] == "value_error":
        message += _way_out(key, values, changed)
    return ": ".join(part for part in (place, key, message) if part)


def _walk(loc: Sequence[int | str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The key path of an error, and the models that could hold its last key."""
    keys: list[str] = []
    holders: list[type[BaseModel]] = [RunConfig]
    of_tag: dict[str, type[BaseModel]] = {}
    for i, part in enumerate(loc):
        if part in of_tag:  # the tag of a discriminated union, which is no key of the recipe
            holders, of_tag = [of_tag[str(part)]], {}
            continue
        if isinstance(part, int):  # the place in a list, whose items `holders` describes already
            keys.append(str(part))
            continue
        annotations = [m.model_fields[part].annotation for m in holders if part in m.model_fields]
        keys.append(str(part))
        if i < len(loc) - 1:
            holders = [model for annotation in annotations for model in _models(annotation)]
            of_tag = {tag: model for annotation in annotations for tag, model in variants(annotation).items()}
    return keys, holders


def variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """The models of a discriminated union by their tags; empty for any other annotation."""
    found: dict[str, type[BaseModel]] = {}
    for member in typing.get_args(annotation):
        parts = typing.get_args(member)
        found |= {part.tag: parts[0] for part in parts[1:] if isinstance(part, Tag)}
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models(argument)]


def _message(details: ErrorDetails, section: Sequence[type[BaseModel]]) -> str:
    kind, value = details["type"], details["input"]
    if kind.startswith("union_tag"):
        return _unknown_variant(str(details["loc"][-1]), value)
    if kind == "extra_forbidden":
        return _unknown_key(str(details["loc"][-1]), section)
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ")
    if isinstance(value, str) and kind in ("float_type", "int_type", "bool_type") and _is_quoted_number(value):
        return f"{value!r} is text, not a number; write it without quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"should be a whole number; write {int(value)}"
    if kind == "string_type" and isinstance(value, dict | int | float):
        return f"should be text, is {_shown(value)}; put it in quotes"
    if kind == "literal_error":
        expected = details.get("ctx", {}).get("expected", "")
        return f"{_shown(value)} is not one of {expected.replace(' or ', ', ')}"
    message = details["msg"][:1].lower() + details["msg"][1:]
    return f"{message.removeprefix('input ')}, is {_shown(value)}"


def _is_quoted_number(text: str) -> bool:
    resolvers = _Loader.yaml_implicit_resolvers.get(text[:1], [])
    return any(pattern.match(text) for tag, pattern in resolvers if not tag.endswith(":null"))


def _unknown_variant(key: str, value: Mapping[str, Any]) -> str:
    names = list(variants(RunConfig.model_fields[key].annotation))
    given = value["algorithm"]
    near = difflib.get_close_matches(str(given), names, n=1)
    return f"{_shown(given)} is not one of {', '.join(names)}" + (f"; did you mean {near[0]!r}?" if near else "")


def _key_of_another(key: str, section: Sequence[type[BaseModel]]) -> str | None:
    """What to say of a key that another member of the section's union has: "is a key of ppo, not of grpo; ..."."""
    for name, info in RunConfig.model_fields.items():
        of_tag = variants(info.annotation)
        own = [tag for tag, model in of_tag.items() if model in section]
        if own and (others := [tag for tag, model in of_tag.items() if key in model.model_fields]):
            way_out = f"take it out, or use {name}.algorithm={others[0]}"
            return f"is a key of {', '.join(others)}, not of {own[0]}; {way_out}"
    return None


def _unknown_key(key: str, section: Sequence[type[BaseModel]]) -> str:
    if message := _key_of_another(key, section):
        return message
    known = sorted({name for model in section for name in model.model_fields})
    if near := difflib.get_close_matches(key, known, n=1):
        return f"unknown key; did you mean {near[0]!r}?"
    if elsewhere := dict.fromkeys(path for path in key_paths(RunConfig) if path.rpartition(".")[2] == key):
        return f"unknown key; there is {', '.join(elsewhere)}"
    return f"unknown key; known here: {', '.join(known)}" if known else "unknown key"


def key_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key path of a model: "data.columns.document"."""
    for name, info in model.model_fields.items():
        yield prefix + name
        for below in _models(info.annotation):
            yield from key_paths(below, f"{prefix}{name}.")


_RIVALS = (("data.path", "data.task"), ("data.train", "data.task"), ("data.task", "data.path"),
           ("model.path", "model.new"), ("model.new", "model.path"))  # fmt: skip


def _way_out(key: str, values: Mapping[str, Any], changed: Sequence[str]) -> str:
    """What to add to the command when an override gives the second of two keys that exclude each other."""
    for given, rival in _RIVALS:
        section, name = rival.split(".")
        is_given = any(c == given or c.startswith(f"{given}.") for c in changed)
        if section == key and is_given and isinstance(values[section], dict) and values[section].get(name) is not None:
            return f"; add `{rival}=null` to use {given} instead of the recipe's {rival}"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def dump_recipe(config: RunConfig) -> str:
    """The resolved config as a recipe with every value in it; `load_recipe` reads back an equal config."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """What `new` changes of `old`, as lines "rl.kl.beta: 0.05 -> 0.1".

    Where a run lies (name, output_dir) does not count.
    """
    before, after = (_leaves(c.model_dump(mode="json", exclude={"name", "output_dir"})) for c in (old, new))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {_or_unset(before, key)} -> {_or_unset(after, key)}" for key in changed]


def _or_unset(leaves: Mapping[str, Any], key: str) -> str:
    return _shown(leaves[key]) if key in leaves else "unset"


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, below in value.items():
        if isinstance(below, dict) and below:
            leaves |= _leaves(below, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = below
    return leaves
