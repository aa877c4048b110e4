"""How the report writes numbers, and how it makes text of unknown origin safe to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

DASH = "–"

_BIDI_CONTROLS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_VISIBLE |= {0x7F: 0x2421} | dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000), *_BIDI_CONTROLS), 0xFFFD)


def clean(text: object) -> str:
    """The text with what a page cannot hold or what would disguise it made visible.

    C0 controls become their Unicode pictures; C1 controls, lone surrogates and bidirectional overrides become U+FFFD.
    Tabs and line breaks stay. Escaping for HTML is not done here: the template does that.
    """
    return str(text).replace("\r\n", "\n").translate(_VISIBLE)


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is a finite number (and no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object, digits: int = 3) -> str:
    """A number with fixed decimals and a real minus sign; a dash where there is none."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else DASH


def signed(value: object, digits: int = 3) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−") if is_number(value) else DASH


def interval(cell: Mapping[str, Any], digits: int = 3) -> str:
    """`[low, high]` of a cell, or nothing where either end is missing."""
    low, high = cell.get("low"), cell.get("high")
    return f"[{number(low, digits)}, {number(high, digits)}]" if is_number(low) and is_number(high) else ""


def p_value(value: object) -> str:
    """A p-value as "< .001" or ".042"; a dash where there is none."""
    if not is_number(value):
        return DASH
    if value < 0.001:
        return "< .001"
    return "1" if value >= 0.9995 else f"{value:.3f}".removeprefix("0")


def percent(value: object, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f} %" if is_number(value) else DASH


def duration(seconds: object) -> str:
    """Seconds as "42 s", "6 min 5 s" or "1 h 2 min"."""
    if not is_number(seconds):
        return DASH
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"
