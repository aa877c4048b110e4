"""Which finder of names, numbers, dates and times a run uses (`data.entities`), with the names of its task known.

The rules of `ops/entities.py` need nothing but the text. A spaCy pipeline may find the names instead; numbers, money,
dates and times stay with the rules in any case, since they are compared by value and a tagger gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from homestretch.ops.entities import Mention, mentions, with_names
from homestretch.ops.names import Span, fold, name_lexicon, name_spans, speaker_words
from homestretch.types import Example, UserError

_SPACY = "spacy:"
_NAME_LABELS = (
    "PERSON", "PER", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE", "MISC",
)  # fmt: skip
_ARTICLE = re.compile(r"(?:the|a|an) ", re.IGNORECASE)
_POSSESSIVE = re.compile(r" ?['’]s?$")

Find = Callable[[str, frozenset[str]], list[Mention]]
"""A text and a lexicon of lower-cased name words -> the mentions, in order and without overlaps."""


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds the mentions in a text of a task whose names it knows."""

    lexicon: frozenset[str]
    """Lower-cased words that are (parts of) names in the task."""
    find: Find
    """What finds the mentions, given a lexicon."""

    def mentions(self, text: str, *, also: frozenset[str] = frozenset()) -> list[Mention]:
        """Every mention in the text; `also` holds further known words, lower-cased."""
        return self.find(text, self.lexicon if also <= self.lexicon else self.lexicon | also)

    def mentions_for(self, example: Example, text: str) -> list[Mention]:
        """The mentions in a text about the example, the names of the example's own source known as well."""
        names = (m.value for m in self.mentions(example.source) if m.kind == "name")
        return self.mentions(text, also=frozenset(word for name in names for word in name.split()))


def build_finder(name: str, examples: Iterable[Example]) -> Finder:
    """The finder that `data.entities` names, with the names in the examples' sources and references known.

    UserError, in one line with the command that helps, if spaCy or its model is missing.
    """
    texts = tuple(text for example in examples for text in (example.source, *example.references))
    return Finder(_lexicon(texts), load_find(name))


@lru_cache(maxsize=4)
def _lexicon(texts: tuple[str, ...]) -> frozenset[str]:
    # Several modes and metrics learn the same examples' names.
    return name_lexicon(texts)


@lru_cache(maxsize=2)
def load_find(name: str) -> Find:
    """The rules, or a spaCy pipeline for the names and rules for the rest. Raises UserError as `build_finder` does."""
    if name == "rules":
        return mentions
    if not name.startswith(_SPACY):
        raise UserError(f"data.entities: {name!r} is no finder; give `rules` or `spacy:MODEL` (a folder, or its name)")
    return _spacy_find(_pipeline(name, name.removeprefix(_SPACY)))


def _pipeline(name: str, model: str) -> Any:
    try:
        import spacy
    except ImportError as error:
        raise UserError(f"data.entities: {name!r} needs spaCy: pip install 'homestretch[spacy]'") from error
    try:
        pipeline = spacy.load(model)
    except OSError as error:
        raise UserError(
            f"data.entities: spaCy has no model or folder {model!r}: python -m spacy download {model}"
        ) from error
    except (ValueError, ImportError) as error:  # a part of it is of another version, or not installed
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"data.entities: spaCy cannot load {model!r}: {said}") from error
    if not any("doc.ents" in pipeline.get_pipe_meta(pipe).assigns for pipe in pipeline.pipe_names):
        found = ", ".join(pipeline.pipe_names) or "nothing"
        raise UserError(f"data.entities: {name!r} finds no entities (it has {found}); give a pipeline with `ner`")
    return pipeline


def _spacy_find(pipeline: Any) -> Find:
    """spaCy's names, and known ones that it misses: speakers and words of the lexicon, above all in lower case."""

    @lru_cache(maxsize=32768)
    def tagged(text: str) -> tuple[Span, ...]:
        found = (e for e in pipeline(text).ents if e.label_ in _NAME_LABELS)
        return tuple(span for e in found for span in [_trimmed(text, e.start_char, e.end_char)] if span[0] < span[1])

    def find(text: str, lexicon: frozenset[str]) -> list[Mention]:
        spans = tagged(text)
        others = name_spans(text, lexicon, lambda start, end: all(end <= s or e <= start for s, e in spans))
        known = lexicon | speaker_words(text)
        missed = [(start, end) for start, end in others if known.issuperset(fold(text[start:end]).split())]
        return with_names(text, [*spans, *missed])

    return find


def _trimmed(text: str, start: int, end: int) -> Span:
    """The span without an article before the name and a possessive after it, as the rules give it."""
    article = _ARTICLE.match(text, start, end)
    possessive = _POSSESSIVE.search(text[:end])
    return article.end() if article else start, max(start, possessive.start()) if possessive else end
