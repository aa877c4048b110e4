"""finder.py: which finder a recipe gets, what spaCy adds, and that modes and metrics use it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import homestretch.finder
from homestretch.config import RunConfig
from homestretch.failures import build_modes
from homestretch.finder import Finder, build_finder, load_find
from homestretch.metrics import build_metric
from homestretch.metrics.scoring import MetricContext
from homestretch.ops.entities import Mention, mentions
from homestretch.types import Completion, Corpus, Example, UserError

EXAMPLES = tuple(
    Example(
        str(i),
        f"{a}: I met {b} at {i + 3} pm, it cost {i + 20} dollars\n{b}: see you on Friday, {a}",
        "",
        references=(f"{a} met {b} at {i + 3} pm. They will meet again on Friday.",),
    )
    for i, (a, b) in enumerate([("Ada", "Bo"), ("Cleo", "Dan"), ("Eve", "Finn"), ("Gus", "Hal"), ("Ivo", "Jan")])
)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    load_find.cache_clear()


def test_the_rules_are_the_default_and_know_the_names_of_the_task() -> None:
    finder = build_finder("rules", EXAMPLES)
    assert finder.find is mentions
    assert [m.text for m in finder.mentions("ada waits")] == ["ada"]
    assert [m.text for m in finder.mentions("zoe waits")] == []
    assert [m.text for m in finder.mentions("zoe waits", also=frozenset({"zoe"}))] == ["zoe"]
    assert [m.text for m in finder.mentions_for(Example("x", "Zoe: hi", ""), "zoe waits")] == ["zoe"]


def test_unknown_finders_are_refused() -> None:
    with pytest.raises(UserError, match="'nltk' is no finder; give `rules` or `spacy:MODEL`"):
        load_find("nltk")


def test_without_spacy_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"^data.entities: 'spacy:m' needs spaCy: pip install 'homestretch\[spacy\]'$"):
        load_find("spacy:m")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a finder of names with an x was asked about, in place of the one that the recipe names."""
    texts: list[str] = []

    def find(text: str, lexicon: frozenset[str]) -> list[Mention]:
        texts.append(text)
        at = text.find("x-")
        return [Mention("name", text[at : at + 4], at, at + 4, text[at : at + 4])] if at >= 0 else []

    monkeypatch.setattr(homestretch.finder, "load_find", lambda name: {"spacy:x": find}[name])
    return texts


@pytest.mark.parametrize("name", ["irrelevant", "omission", "addition", "wrong_entity", "wrong_number", "wrong_date"])
def test_modes_use_the_recipe_s_finder(asked: list[str], name: str) -> None:
    (mode,) = build_modes([name], Corpus(EXAMPLES, 0, "spacy:x"))
    mode.detect(EXAMPLES[0], Completion("He met x-ab."))

    mode.corrupt(EXAMPLES[0], np.random.default_rng(0))
    assert asked


def test_wrong_speaker_uses_the_recipe_s_finder(asked: list[str]) -> None:

    (mode,) = build_modes(["wrong_speaker"], Corpus(EXAMPLES, 0, "spacy:x"))
    assert mode.corrupt(EXAMPLES[0], np.random.default_rng(0)) is None  # it finds no speaker, so there is none to swap
    assert EXAMPLES[0].references[0] in asked


def test_metrics_use_the_recipe_s_finder(asked: list[str]) -> None:
    config = RunConfig.model_validate({"data": {"task": "chats", "entities": "spacy:x"}, "model": {"path": "x"}})
    metric = build_metric("entity_precision", MetricContext(config, EXAMPLES))
    scores = metric.scorer(EXAMPLES[:2], [Completion("He met x-ab."), Completion("He met Zoe.")])
    assert scores[0] == 0.0
    assert scores[1] != scores[1], "this finder finds nothing there"


# --- spaCy itself ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A pipeline on disk that knows a few names by heart: no trained model is needed, nor can one be downloaded."""
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    patterns = {"the United Nations": "ORG", "Zed": "PERSON", "Zed's": "PERSON", "Channel 4": "ORG", "two": "CARDINAL"}
    pipeline.add_pipe("entity_ruler").add_patterns(
        [{"label": label, "pattern": text} for text, label in patterns.items()]
    )
    pipeline.to_disk(tmp_path / "pipeline")
    return str(tmp_path / "pipeline")


def found(finder: Finder, text: str) -> list[tuple[str, str]]:
    return [(m.kind, m.text) for m in finder.mentions(text)]


def test_spacy_finds_the_names_and_the_rules_the_rest(folder: str) -> None:
    finder = build_finder(f"spacy:{folder}", ())
    assert found(finder, "Zed left the United Nations at 5 pm.") == [
        ("name", "Zed"), ("name", "United Nations"), ("time", "5 pm")
    ]  # fmt: skip
    assert found(finder, "He saw Zed's two dogs and Rex.") == [("name", "Zed"), ("number", "two")]
    assert found(finder, "It was on Channel 4.") == [("name", "Channel 4")]


def test_known_names_that_spacy_misses_are_found(folder: str) -> None:
    finder = build_finder(f"spacy:{folder}", EXAMPLES)
    assert found(finder, "ada met zoe") == [("name", "ada")]
    assert found(finder, "Ada met Zoe and Zed") == [("name", "Ada"), ("name", "Zed")]
    assert found(finder, "Zoe: hi\nZed: hello Zoe") == [("name", "Zoe"), ("name", "Zed"), ("name", "Zoe")]


def test_a_missing_model_is_told_with_the_command(folder: str) -> None:
    with pytest.raises(UserError, match="no model or folder 'no_such_model': python -m spacy download no_such_model"):
        load_find("spacy:no_such_model")


def test_a_pipeline_that_finds_nothing_is_refused(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UserError, match=r"finds no entities \(it has nothing\); give a pipeline with `ner`"):
        load_find(f"spacy:{tmp_path / 'blank'}")
