"""ops/words.py: what counts as a word, and a sentence split that loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homestretch.ops.words import WORD_PATTERN, ngrams, sentences, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't pay 3.5 or 1,000 at 17:30!", ["don't", "pay", "3.5", "or", "1,000", "at", "17:30"]),
        ("Tom’s well-known dog", ["tom's", "well", "known", "dog"]),
        ("tom ' s dog", ["tom", "s", "dog"]),
        ("<file_photo> :-)", ["file", "photo"]),
        ("Żółw śpi", ["żółw", "śpi"]),
        ("猫が好き", ["猫", "が", "好", "き"]),
        ("…", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Smith paid 3.5 euros. Then he left!", 2),
        ("He came at 5 p.m. and left. She stayed.", 2),
        ("no punctuation at all", 1),
        ("One.\n\nTwo.", 2),
        ("", 0),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count


@given(st.text(max_size=200) | st.text(alphabet="aB .!?\n'\"()1’\t\r", max_size=80))
def test_sentences_lose_nothing(text: str) -> None:
    assert "".join(sentences(text)) == text


@given(st.text(max_size=100))
def test_words_line_up_with_their_pattern(text: str) -> None:
    """Repairs find a word's place by the pattern, so both must count alike whatever lower-casing does."""
    assert len(words(text)) == len(list(WORD_PATTERN.finditer(text)))


def test_ngrams() -> None:
    assert ngrams("abcd", 2) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert ngrams([1], 2) == []
    with pytest.raises(ValueError, match="at least 1"):
        ngrams([1, 2], 0)


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 5))
def test_ngrams_against_a_plain_loop(items: list[int], n: int) -> None:
    expected = []
    for start in range(len(items)):
        if start + n <= len(items):
            expected.append(tuple(items[start + offset] for offset in range(n)))
    assert ngrams(items, n) == expected
