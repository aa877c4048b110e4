"""The prompt: the task's document inside a template."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass

from homestretch.types import UserError


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt as literal texts and column names in turn; `{document}` stands in it once."""

    parts: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs beside the document."""
        return tuple(name for _, name in self.parts if name not in (None, "document"))

    def fill(self, document: str, values: Mapping[str, str]) -> tuple[str, tuple[int, int]]:
        """The prompt, and the half-open character range of the document in it."""
        prompt, span = "", (0, 0)
        for literal, name in self.parts:
            prompt += literal
            if name == "document":
                span = (len(prompt), len(prompt) + len(document))
                prompt += document
            elif name is not None:
                prompt += values[name]
        return prompt, span


def parse_template(template: str) -> PromptTemplate:
    """Read a template such as "Summarize ({style}): {document}"; `{{` and `}}` are braces.

    Raises UserError if it is not one or does not hold {document} exactly once.
    """
    parts = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if name is not None and (spec or conversion or not re.fullmatch(r"[^\[\].!:]+", name)):
                raise UserError(f"data.template: {{{name}}} must be a column's name alone")
            parts.append((literal, name))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data.template: {error}; a literal brace is written {{{{ or }}}}") from error
    if [name for _, name in parts].count("document") != 1:
        raise UserError("data.template: {document} must stand in it exactly once")
    return PromptTemplate(tuple(parts))


def flat(text: str) -> str:
    """The text with each run of line breaks, and the white space around it, as one space."""
    return re.sub(r"\s*[\r\n]\s*", " ", text.strip())
