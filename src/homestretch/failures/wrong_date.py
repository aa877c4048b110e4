"""wrong_date: a day, date or time becomes another."""

from __future__ import annotations

import re

from homestretch.failures.swap import SwapMode
from homestretch.ops.entities import Mention
from homestretch.ops.quantities import MONTHS, WEEKDAYS

_OVERLAPPING = (
    frozenset({"today", "tonight", "this morning", "this afternoon", "this evening"}),
    frozenset({"yesterday", "last night"}),
    frozenset({"christmas", "christmas eve", "christmas day"}),
    frozenset({"new year", "new years eve", "new years day"}),
    frozenset({"weekend", "saturday", "sunday", "next weekend"}),
    frozenset({"tomorrow", "next week", "this week", "weekend"}),
    frozenset({"yesterday", "last week", "this week", "last weekend"}),
    frozenset({"today", "this week", "this month", "this year"}),
)


class WrongDate(SwapMode):
    """Swap a date for a date of the same form, or a time for a time. Detects those the source does not have."""

    name = "wrong_date"
    kinds = ("date", "time")

    @classmethod
    def shape(cls, mention: Mention) -> str:
        """A weekday for a weekday, a day of a month for another, a past day for a past day, a time for a time."""
        if mention.kind == "time":
            return "time with am or pm" if mention.text[-1] in "mM." else "time"
        head, *rest = mention.value.split()
        if head in MONTHS:
            return " ".join(["month", *("year" if len(part) == 4 else "day" for part in rest)])
        if head in WEEKDAYS:
            return "weekdays" if mention.text[-1] in "sS" else "weekday"
        if head[0].isdigit():
            return re.sub(r"\d", "0", head)
        return _direction(mention)

    @classmethod
    def may_agree(cls, a: Mention, b: Mention) -> bool:
        """Equal, or one may lie within the other ("tonight" in "today"), or the half of the day is open."""
        if a.kind == "time" and b.kind == "time":
            return _on_the_dial(a.value) == _on_the_dial(b.value)
        if a.value.split()[0] in MONTHS:
            return f"{a.value} ".startswith(f"{b.value} ") or f"{b.value} ".startswith(f"{a.value} ")
        return super().may_agree(a, b) or any({a.value, b.value} <= group for group in _OVERLAPPING)


def _on_the_dial(value: str) -> tuple[int, str]:
    hour, _, minute = value.rstrip("?").partition(":")
    return int(hour) % 12, minute


def _direction(mention: Mention) -> str:
    """Which way a relative date points, so that a swap keeps the tense."""
    first = mention.value.split(" ")[0]
    if first in {"yesterday", "last"} or mention.value == "day before yesterday":
        return "past"
    if first in {"christmas", "easter", "halloween", "new", "thanksgiving", "black", "boxing", "valentines"}:
        return "holiday"
    if mention.value in {"this morning", "this afternoon", "this evening"}:
        return "part of the day"
    return "noun" if mention.text.lower().startswith("weekend") else "coming"
