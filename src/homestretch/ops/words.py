"""Words, sentences and n-grams of a text: the units every lexical check counts in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

Item = TypeVar("Item")

# Scripts written without spaces: one character is a word. Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD_PATTERN = re.compile(
    r"\d+(?:[.,:]\d+)+"  # 3.5  1,000  17:30
    rf"|[{_UNSPACED}]"
    rf"|(?:(?![{_UNSPACED}])[^\W_])+(?:['’](?:(?![{_UNSPACED}])[^\W_])+)*"  # don't  O'Brien  5pm
)
"""One word or number. Punctuation, underscores and spaces belong to no word."""


def words(text: str) -> list[str]:
    """The text's words and numbers, lower-cased, in order; a typographic apostrophe counts as a plain one."""
    return list(_words(text))


@lru_cache(maxsize=32768)
def _words(text: str) -> tuple[str, ...]:
    # Lower-cased after the split: a few characters change their number when they change their case.
    return tuple(match.lower().replace("’", "'") for match in WORD_PATTERN.findall(text))


def sentences(text: str) -> list[str]:
    """Split into sentences with their trailing white space: `"".join(sentences(text)) == text`.

    The split is sentencex's (rules, no model); abbreviations ("Dr. Smith") and decimals do not end a sentence.
    """
    return list(_sentences(text))


@lru_cache(maxsize=16384)
def _sentences(text: str) -> tuple[str, ...]:
    from sentencex import segment

    parts: list[str] = []
    for part in segment("en", text):
        # sentencex returns the gap between paragraphs as an item of its own; it belongs to the sentence before.
        if parts and (not part.strip() or not parts[-1].strip()):
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def ngrams(items: Sequence[Item], n: int) -> list[tuple[Item, ...]]:
    """All runs of n neighbouring items, in order; empty if there are fewer than n. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
