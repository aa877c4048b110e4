"""wrong_number: a number or an amount of money becomes another."""

from __future__ import annotations

import re

from homestretch.failures.swap import SwapMode
from homestretch.ops.entities import Mention

_ORDINAL = re.compile(r"\d ?(?:st|nd|rd|th)$", re.IGNORECASE)


class WrongNumber(SwapMode):
    """Swap a number or an amount. Detects numbers that the source does not have, digits and words alike."""

    name = "wrong_number"
    kinds = ("number", "money")

    @classmethod
    def shape(cls, mention: Mention) -> str:
        """Numbers of as many digits, with or without a fraction: 3 daughters do not become 29, nor a 3rd one."""
        whole, _, fraction = mention.value.split(" ")[0].partition(".")
        form = " and a fraction" if fraction else " and an ending" if _ORDINAL.search(mention.text) else ""
        return f"{len(whole)} digits{form}"

    @classmethod
    def may_agree(cls, a: Mention, b: Mention) -> bool:
        """ "30" and "30 dollars" are one number."""
        return a.value.split(" ")[0] == b.value.split(" ")[0]
