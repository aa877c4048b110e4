"""wrong_entity: a name becomes another name."""

from __future__ import annotations

from homestretch.failures.swap import SwapMode
from homestretch.ops.entities import Mention
from homestretch.ops.words import words


class WrongEntity(SwapMode):
    """Swap a name. Detects names that the source does not have."""

    name = "wrong_entity"
    kinds = ("name",)

    @classmethod
    def may_agree(cls, a: Mention, b: Mention) -> bool:
        """Names that share a word, or begin alike, may be one person ("Kate", "Katie", "Kate Miller")."""
        return any(x[:3] == y[:3] for x in words(a.value) for y in words(b.value))
