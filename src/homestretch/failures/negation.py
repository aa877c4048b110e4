"""negation: the text says the opposite."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from homestretch.failures.base import capitalise_like, make_edit, pick, pick_reference, splice
from homestretch.types import Edit, Example, FailureMode

_BASE_OF = {
    "wants": "want", "likes": "like", "needs": "need", "thinks": "think", "knows": "know", "loves": "love",
    "works": "work", "lives": "live", "feels": "feel", "plans": "plan", "believes": "believe", "remembers": "remember",
    "understands": "understand", "agrees": "agree", "enjoys": "enjoy", "hopes": "hope", "prefers": "prefer",
    "intends": "intend", "looks": "look", "seems": "seem", "owns": "own", "goes": "go", "comes": "come",
    "wanted": "want", "liked": "like", "needed": "need", "bought": "buy", "went": "go", "came": "come", "got": "get",
    "found": "find", "saw": "see", "told": "tell", "met": "meet", "passed": "pass", "finished": "finish",
    "called": "call", "invited": "invite", "booked": "book", "sent": "send", "arrived": "arrive", "agreed": "agree",
    "enjoyed": "enjoy",
}  # fmt: skip
# A capital would be a question or a name ("Will").
_AUXILIARY = re.compile(
    r"\b(?P<word>is|are|was|were|will|can|could|should|would|must|may|might)\b(?! ?n['’]?t\b| not\b|n['’]t|['’])"
)
_PERFECT = re.compile(
    r"\b(?P<word>has|have|had)\b(?= (?:been|gone|got|had|done|made|seen|found|bought|\w{2,}ed)\b)", re.IGNORECASE
)
_MAIN_VERB = re.compile(rf"\b(?P<word>{'|'.join(_BASE_OF)})\b", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?P<word>is|are|was|were|has|have|had|do|does|did|will|could|should|would|must|may|might|can)"
    r"(?:n['’]t| n ?['’] ?t| not)\b(?! only\b)|\b(?P<short>won['’]t|can['’]t|cannot)\b",
    re.IGNORECASE,
)
_ANTONYMS = {
    "like": "dislike", "likes": "dislikes", "accepts": "refuses", "accept": "refuse", "accepted": "refused",
    "loves": "hates", "love": "hate", "loved": "hated", "buys": "sells", "buy": "sell", "bought": "sold",
    "before": "after", "more": "less", "early": "late", "earlier": "later", "happy": "unhappy", "good": "bad",
    "better": "worse", "best": "worst", "cheap": "expensive", "cheaper": "more expensive", "always": "never",
    "remembers": "forgets", "remembered": "forgot", "wins": "loses", "won": "lost", "passed": "failed",
    "passes": "fails", "open": "closed", "opens": "closes", "arrives": "leaves", "arrived": "left", "starts": "ends",
    "with": "without", "able": "unable", "easy": "hard", "agrees": "refuses", "agreed": "refused", "possible":
    "impossible", "healthy": "ill", "old": "new", "increase": "decrease", "increased": "decreased", "rise": "fall",
    "rose": "fell", "up": "down", "higher": "lower", "married": "divorced", "free": "busy", "available": "unavailable",
}  # fmt: skip
_OPPOSITES = {**{b: a for a, b in _ANTONYMS.items()}, **_ANTONYMS}
_OPPOSITE = re.compile(rf"\b(?P<word>{'|'.join(sorted(_OPPOSITES, key=len, reverse=True))})\b(?!['’])", re.IGNORECASE)
_NO_MAIN_VERB_AFTER = re.compile(
    r"(?:\b(?:is|are|was|were|be|been|being|am|has|have|had|having|do|does|did|will|would|can|could|should|must|may"
    r"|might|to|not|gets?|got|getting)|n['’]t|['’](?:s|re|ve|m|ll|d)) (?:\w+ly |also |just |already |never |ever )?$",
    re.IGNORECASE,
)
"""Before a participle or an infinitive: "was told", "has already found", "to work" have another verb to negate."""
# Words that turn up in fixed phrases ("pick up", "come with") too often to have an opposite.
_LOOSE = {"up", "down", "with", "without", "open", "old", "new", "free", "before", "after", "left", "hard"}


class Negation(FailureMode):
    """Add or remove "not" after an auxiliary, negate a common verb, or put an antonym.

    There is no `detect`: whether a text contradicts its source is for the reward model to learn.
    """

    name = "negation"

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        reference = pick_reference(example, rng)
        if reference is None:
            return None
        edits = [(match, make) for pattern, make in _RULES for match in pattern.finditer(reference)]
        edits = [(match, make) for match, make in edits if make(match) is not None]
        if not edits:
            return None
        # First the rule, then the place: else the commonest rule would make all the edits.
        rule = pick(list(dict.fromkeys(make for _, make in edits)), rng)
        match = pick([match for match, make in edits if make is rule], rng)
        written = capitalise_like(rule(match) or "", match.group())
        text, span = splice(reference, match.start(), match.end(), written)
        return make_edit(example, text, span, f"{match.group()} -> {written}")


def _add_not(match: re.Match[str]) -> str | None:
    return f"{match.group()} not"


def _negate_verb(match: re.Match[str]) -> str | None:
    if _NO_MAIN_VERB_AFTER.search(match.string, 0, match.start()):
        return None
    word = match.group().lower()
    helper = "does" if word.endswith("s") and word != "was" else "did"
    return f"{helper} not {_BASE_OF[word]}"


def _remove_not(match: re.Match[str]) -> str | None:
    before = match.string[: match.start()].lower().split()[-4:]
    if {"if", "whether", "why"} & set(before):
        return None
    if match.group("short"):
        return "will" if match.group().lower().startswith("w") else "can"
    return match.group("word")


def _put_antonym(match: re.Match[str]) -> str | None:
    word = match.group().lower()
    return None if word in _LOOSE else _OPPOSITES[word]


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]], ...] = (
    (_AUXILIARY, _add_not),
    (_PERFECT, _add_not),
    (_MAIN_VERB, _negate_verb),
    (_NEGATED, _remove_not),
    (_OPPOSITE, _put_antonym),
)
