"""Names by rule, behind `ops/entities.py`: capitals, the place in the sentence, and a lexicon of known names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from homestretch.ops.quantities import MONTHS, WEEKDAYS

Span = tuple[int, int]

# "Anna", "O'Neill", "Jean-Luc", "St. Moritz"; with the dots of "U.S." and "J.R.".
_WORD = re.compile(r"(?:[A-Z]\.)+[A-Z]\b\.?|(?:St\. )?[^\W\d_]+(?:['’.\-](?=[^\W\d_])[^\W\d_]+)*")
_SPEAKER_WORD = r"(?:[\w'’\-]{1,3}\.|Prof\.|[\w'’\-]+(?:\.[\w'’\-]+)*)"
_SPEAKER = re.compile(rf"^[ \t]*((?=[^\W\d_]){_SPEAKER_WORD}(?: {_SPEAKER_WORD}){{0,3}}?) ?:(?=\s|$)", re.MULTILINE)
_MAIL_HEADERS = ("bcc", "cc", "date", "forward", "from", "fw", "fwd", "note", "ps", "re", "sent", "subject", "to")
_CLITIC = re.compile(r"['’](?:s|re|ll|ve|d|m)?$", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['’]s$")
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]|^[A-Z]['’][A-Z]")
# "Bank of England", "Harlow & Finch", "Luca De Santis"; alone these words are no names.
_PARTICLES = ("da", "de", "del", "der", "du", "van", "von")
_LINK = re.compile(rf" (?:of|of the|&|de la|van der|(?i:di|{'|'.join(_PARTICLES)})) ")
_TITLES = (
    "mr", "mrs", "ms", "dr", "prof", "sir", "miss", "lady", "lord", "president", "prime", "minister",
    "uncle", "aunt", "auntie",
)  # fmt: skip
_ORDINARY = (
    "i i'm i'll i've i'd im ok okay oh hi hey hello bye yes yeah no nope not lol omg btw asap tv pc dvd cd faq diy fyi "
    "ps pm am a the an he she it we you they his her its our their my your this that these those there here what when "
    "where who why how which and or but so if then than as at by for from in into of on to with after before during "
    "is are was were be been do does did has have had will would can could may might must shall should both all some "
    "one two three let's let lets thanks thank please sorry well also now just only "
    "mine yours ours theirs each every either neither many much most more few several another other others any none "
    "such same everyone everybody everything someone somebody something anyone anybody anything nobody nothing "
    "while since because although though unless until whether once however therefore meanwhile maybe perhaps still "
    "even again too always never often xd wtf wth idk imo imho tbh thx np cu brb lmao rofl rotfl xoxo ceo cfo mp mps "
    "phd ai it's actually additionally afterwards anyway apparently currently eventually finally fortunately later "
    "luckily otherwise recently suddenly then unfortunately usually yesterday today tonight tomorrow"
)
_NOT_NAMES = frozenset((*_ORDINARY.split(), *_TITLES, *_PARTICLES))


def fold(text: str) -> str:
    """Case and the spelling of apostrophes do not make a different name."""
    return text.casefold().replace("’", "'")


def speaker_words(source: str) -> frozenset[str]:
    """The words of the speakers' names, folded."""
    return frozenset(fold(word) for speaker in speakers(source) for word in speaker.split())


def speakers(source: str) -> list[str]:
    """The names that stand before a colon at the start of a line, each once, in order of appearance."""
    found = (match.group(1).strip() for match in _SPEAKER.finditer(source))
    return list(dict.fromkeys(name for name in found if fold(name) not in _MAIL_HEADERS))


def name_lexicon(texts: Iterable[str]) -> frozenset[str]:
    """Lower-cased words that are (parts of) names in these texts: speakers, and words that are capitalised where that
    means a name more often than they stand in lower case. Ordinary words ("will") stay out, whoever is called so.
    """
    capitals: Counter[str] = Counter()
    lower: Counter[str] = Counter()
    for text in texts:
        for speaker in speakers(text):
            capitals.update(fold(word) for word in speaker.split())
        for token in _tokens(text):
            if not token.is_capital:
                lower[token.folded] += 1
            elif not token.is_shouted:
                capitals[token.folded] += not token.is_initial or token.is_marked
    return frozenset(word for word, n in capitals.items() if n > lower[word] and len(word) > 1 and _may_be_name(word))


def name_spans(text: str, lexicon: frozenset[str], is_free: Callable[[int, int], bool]) -> list[Span]:
    """Where the names are, in order and without overlaps; only where `is_free(start, end)`.

    A capitalised word is a name unless it starts a sentence; there it must be known from the lexicon or the rest of
    the text, or stand where hardly anything but a name does. In lower case, or where all is in capitals, only words of
    the lexicon and speakers are names.
    """
    known = lexicon | speaker_words(text)
    tokens = list(_tokens(text))
    is_cased = any(token.is_capital for token in tokens)
    known |= {token.folded for token in tokens if token.is_capital and not token.is_initial and not token.is_shouted}
    found: list[Span] = []
    for token in tokens:
        is_known = token.folded in known
        if token.is_shouted or not is_cased:
            is_name = is_known
        else:
            is_name = token.is_capital and (not token.is_initial or is_known or token.is_marked)
        if not is_name or not _may_be_name(token.folded) or not is_free(token.start, token.end):
            continue
        is_joined = found and not token.is_initial and _joins(text[found[-1][1] : token.start])
        found.append((found.pop()[0] if is_joined else token.start, token.end))
    return found


def _joins(between: str) -> bool:
    return between == " " or _LINK.fullmatch(between) is not None


def _may_be_name(folded: str) -> bool:
    is_calendar = folded.rstrip("s") in WEEKDAYS or folded in MONTHS
    return folded not in _NOT_NAMES and not is_calendar


# --- words ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    """A word, without its possessive or hyphenated tail, and what its surroundings say."""

    folded: str
    start: int
    end: int
    is_capital: bool
    is_initial: bool
    """Starts a sentence, a line or a speaker's turn, where every word has a capital."""
    is_shouted: bool
    """All in capitals, and so are its neighbours: a headline, or somebody who shouts."""
    is_marked: bool
    """A name even where every word has a capital: "Tom's car", "Tom and Anna", "Tom, Bo and Anna", "McDonald"."""


def _tokens(text: str) -> Iterator[_Token]:
    """The text's words."""
    matches = list(_WORD.finditer(text))
    words = [_name_part(match.group()) for match in matches]
    gaps = [text[a.end() : b.start()] for a, b in pairwise(matches)]
    for i, (match, word) in enumerate(zip(matches, words, strict=True)):
        if not word:
            continue
        near = [words[j] for j, gap in ((i - 1, i - 1), (i + 1, i)) if 0 <= gap < len(gaps) and gaps[gap] == " "]
        following = [m.group() for m in matches[i + 1 : i + 3]]
        yield _Token(
            folded=fold(word),
            start=match.start(),
            end=match.start() + len(word),
            is_capital=word[0].isupper() or (len(word) > 2 and _INNER_CAPITAL.match(word) is not None),
            is_initial=_is_initial(text, match.start()),
            is_shouted=len(word) > 1 and word.isupper() and bool(near) and all(other.isupper() for other in near),
            is_marked=_is_marked(match.group(), following, gaps[i : i + 2]),
        )


def _name_part(word: str) -> str:
    """The word without a possessive and without "-based" or "-owned"; empty if that leaves a letter ("T-shirt")."""
    part = _CLITIC.sub("", word) if "'" in word or "’" in word else word
    head, hyphen, tail = part.partition("-")
    if hyphen and head[0].isupper() and tail.islower():
        return head if len(head) > 1 else ""
    return part


def _is_initial(text: str, start: int) -> bool:
    before = text[max(0, start - 24) : start].rstrip(" \t\"'“”‘(*[<-–—")
    is_after_title = before.endswith(".") and before[:-1].split()[-1:] and fold(before[:-1].split()[-1]) in _TITLES
    return not is_after_title and (not before or before[-1] in ".!?:;\n\r…")


def _is_marked(word: str, following: list[str], gaps: list[str]) -> bool:
    if _POSSESSIVE.search(word) or _INNER_CAPITAL.search(word):
        return True
    if len(following) < 2 or gaps[1] not in {" ", ", "}:
        return False
    if gaps[0] == " " and following[0] in {"and", "or"}:
        return _is_capital_name(following[1])
    is_list = gaps[1] == ", " or following[1] in {"and", "or"}
    return gaps[0] == ", " and is_list and _is_capital_name(following[0])


def _is_capital_name(word: str) -> bool:
    part = _name_part(word)
    return part[:1].isupper() and _may_be_name(fold(part))
