"""wrong_date: a day, date or time becomes another."""

from __future__ import annotations

from homestretch.failures.swap import SwapMode
from homestretch.ops.entities import Mention
from homestretch.ops.quantities import MONTHS, WEEKDAYS

_OVERLAPPING = (
    frozenset({"today", "tonight"}),
    frozenset({"christmas", "christmas eve"}),
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
        head, _, rest = mention.value.partition(" ")
        if head in MONTHS:
            return "day of a month" if rest else "month"
        if head in WEEKDAYS:
            return "weekdays" if mention.text[-1] in "sS" else "weekday"
        return "year" if head.isdigit() else _direction(mention)

    @classmethod
    def may_agree(cls, a: Mention, b: Mention) -> bool:
        """Equal, or one may lie within the other ("tonight" in "today"), or the half of the day is open."""
        if a.kind == "time" and b.kind == "time":
            return _on_the_dial(a.value) == _on_the_dial(b.value)
        return super().may_agree(a, b) or any({a.value, b.value} <= group for group in _OVERLAPPING)


def _on_the_dial(value: str) -> tuple[int, str]:
    hour, _, minute = value.rstrip("?").partition(":")
    return int(hour) % 12, minute


def _direction(mention: Mention) -> str:
    """Which way a relative date points, so that a swap keeps the tense."""
    first = mention.value.split(" ")[0]
    if first in {"yesterday", "last"} or mention.value == "day before yesterday":
        return "past"
    if first in {"christmas", "easter", "halloween", "new"}:
        return "holiday"
    return "noun" if mention.text.lower() == "weekend" else "coming"
