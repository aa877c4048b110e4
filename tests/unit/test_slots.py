"""Meaning representations: reading them, finding their values in a text, and what counts as an error."""

from __future__ import annotations

import numpy as np
import pytest

from failure_corpus import boat, corpus, fitted, make_example, unseen
from homestretch.config import NegativesConfig, RunConfig
from homestretch.failures import PRESETS, SLOT_MODES, task_mode_names
from homestretch.metrics import build_metrics, build_selection
from homestretch.ops.meaning import normal_words, slots, surfaces, written
from homestretch.ops.slots import SlotErrors, SlotLexicon, is_data_to_text, slot_lexicon
from homestretch.types import Completion, Example

BOATS = corpus(SLOT_MODES[0]).examples
LEXICON = slot_lexicon(BOATS, 0)


def errors(document: str, text: str, lexicon: SlotLexicon = LEXICON) -> SlotErrors:
    found = lexicon.errors(document, text)
    assert found is not None
    return found


def lexicon_of(*texts: tuple[str, str], times: int = 60) -> SlotLexicon:
    return SlotLexicon([(document, (reference,)) for document, reference in texts] * times)


# --- reading --------------------------------------------------------------


def test_attributes_are_read() -> None:
    found = slots("boat[Sea Otter], home port[Port Ellen],crew[12]")
    assert [(s.name, s.value, s.role) for s in found] == [
        ("boat", "Sea Otter", "boat"), ("home port", "Port Ellen", "home port"), ("crew", "12", "crew")]  # fmt: skip


def test_triples_are_read() -> None:
    found = slots('Sea_Otter | homePort | Port_Ellen && Port_Ellen | island | "Islay"')
    assert [(s.name, s.value, s.role) for s in found] == [
        ("subject of homePort", "Sea_Otter", "subject"), ("homePort", "Port_Ellen", "object"),
        ("subject of island", "Port_Ellen", "subject"), ("island", '"Islay"', "object")]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        "", "The Sea Otter is a ferry.", "Ada: [laughs] hello\nBoris: hi", "see figure[3] for more", "list[0] = 1",
        "boat[Sea Otter] is a ferry", "boat[], kind[]", "boat[a[b]]", "boat[Sea Otter], and so on",
        "a | b", "the first cell | the second cell | the third cell", "a | b | c\nd | e | f", "| a | b | c |",
        "a | | c", "a | b | c | d", "Ada | said && left",
    ],
)  # fmt: skip
def test_other_texts_are_no_meaning_representation(document: str) -> None:
    assert slots(document) == ()


def test_a_task_is_data_to_text_if_most_documents_are() -> None:
    chats = corpus().examples
    assert is_data_to_text(BOATS)
    assert is_data_to_text((*BOATS[:3], *chats[:2]))
    assert not is_data_to_text((*BOATS[:2], *chats[:2]))
    assert not is_data_to_text(chats)
    assert not is_data_to_text(())


# --- finding ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Sea_Otter", "SEA otter"), ("Café Noir", "cafe noir"), ("5 knots", "five knots"), ("3500.0", "3,500"),
        ("Albany,_Oregon", "Albany"), ("Albany,_Oregon", "Albany, Oregon"), ("Otter_(boat)", "Otter"),
        ("1923-10-08", "October 8th, 1923"), ("1923-10-08", "8 October 1923"), ("Tugboats", "tugboat"),
        ('"Islay"', "Islay's"), ("family-friendly", "family friendly"),
    ],
)  # fmt: skip
def test_a_value_is_realised_by(value: str, text: str) -> None:
    assert normal_words(text) in surfaces(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("Port Ellen", "Ellen"), ("cheap", "cheaper"), ("Bacon, eggs", "Bacon"), ("12", "120"), ("12", "1.2")],
)
def test_a_value_is_not_realised_by(value: str, text: str) -> None:
    assert normal_words(text) not in surfaces(value)


def test_written_values_have_no_underscores_quotes_or_notes() -> None:
    found = [written(v) for v in ("Sea_Otter_(boat)", '"Islay"', "3500.0", "28.5 (metres)", "(all)")]
    assert found == ["Sea Otter", "Islay", "3500", "28.5", "(all)"]


def test_the_longest_value_is_found() -> None:
    texts = ("boat[The Golden Palace], port[Palace]", "The Golden Palace lies in Palace.")
    lexicon = lexicon_of(texts)
    assert errors(texts[0], "The Golden Palace lies in a port.", lexicon).missing == ("palace",)
    assert errors(texts[0], "The Palace lies in Palace.", lexicon).missing == ("the golden palace",)
    assert errors(texts[0], texts[1], lexicon).rate == 0


# --- errors -----------------------------------------------------------------


def test_each_error_counts_once_and_in_its_kind() -> None:
    document = "boat[Pelican], kind[ferry], harbour[Skagen], crew[12]"
    right = errors(document, "Pelican is a ferry in Skagen. It carries 12 people.")
    assert (right.missing, right.hallucinated, right.wrong, right.rate) == ((), (), (), 0.0)
    missing = errors(document, "Pelican is a ferry. It carries twelve people.")
    assert (missing.missing, missing.hallucinated, missing.wrong) == (("skagen",), (), ())
    wrong = errors(document, "Pelican is a ferry in Hanko. It carries 12 people.")
    assert (wrong.missing, wrong.hallucinated, wrong.wrong) == ((), (), ("hanko",))
    both = errors(document, "Pelican is a ferry from Hanko in Skagen. It carries 12 people.")
    assert (both.missing, both.hallucinated, both.wrong) == ((), ("hanko",), ())
    assert missing.rate == wrong.rate == both.rate == 0.25
    assert errors(document, "").missing == ("pelican", "ferry", "skagen", "12")
    assert errors(document, "").rate == 1.0


def test_a_value_of_no_training_document_is_looked_for_all_the_same() -> None:
    document = "boat[Flying Fish], kind[ferry]"
    assert errors(document, "Flying Fish is a ferry.").rate == 0
    assert errors(document, "It is a ferry.").missing == ("flying fish",)


def test_a_slot_said_in_other_words_is_never_missing() -> None:
    assert LEXICON.unchecked() == ([], ["paint"])
    document = "boat[Pelican], kind[ferry], paint[navy]"
    assert errors(document, "Pelican is a ferry.").rate == 0


def test_a_slot_that_is_seldom_literal_is_neither_made_nor_checked() -> None:
    texts = [(f"boat[Pelican], open[{yes}]", "Pelican is open to guests.") for yes in ("yes", "no")]
    lexicon = lexicon_of(*texts)
    assert lexicon.unchecked()[0] == ["open"]
    assert errors("boat[Pelican], open[yes]", "Pelican: no!", lexicon).rate == 0


def test_words_that_references_use_without_their_document_are_not_made_up() -> None:
    texts = [("boat[Pelican], kind[vessel]", "Pelican is a vessel."), ("boat[Marigold]", "Marigold is a fine vessel."),
             ("boat[Marigold], kind[tugboat]", "Marigold is a tugboat.")]  # fmt: skip
    lexicon = lexicon_of(*texts)
    assert errors("boat[Marigold]", "Marigold is a vessel.", lexicon).rate == 0
    assert errors("boat[Marigold]", "Marigold is a tugboat.", lexicon).hallucinated == ("tugboat",)


def test_values_that_people_say_for_each_other_are_no_contradiction() -> None:
    texts = [(f"boat[Pelican], size[{size}]", f"Pelican is {size}.") for size in ("tiny", "little")] * 8
    apart = lexicon_of(*texts, times=10)
    assert errors("boat[Pelican], size[tiny]", "Pelican is little.", apart).wrong == ("little",)
    mixed = lexicon_of(*texts, ("boat[Pelican], size[tiny]", "Pelican is tiny, little and old."), times=10)
    assert errors("boat[Pelican], size[tiny]", "Pelican is little.", mixed).wrong == ()


def test_part_of_a_longer_value_is_not_made_up() -> None:
    texts = [("boat[Pelican], port[Hanko, Finland]", "Pelican lies in Hanko, Finland."),
             ("boat[Marigold], country[Finland]", "Marigold is from Finland.")]  # fmt: skip
    lexicon = lexicon_of(*texts)
    assert errors(texts[0][0], "Pelican lies in Hanko in Finland.", lexicon).rate == 0


def test_no_errors_without_a_meaning_representation() -> None:
    assert LEXICON.errors("Ada: is the Pelican in Skagen?", "Pelican is in Skagen.") is None
    assert SlotLexicon(()).errors("boat[Pelican]", "Pelican.") is None


# --- corrupt ---------------------------------------------------------------


def made(name: str, source: str, *references: str, seeds: int = 12) -> set[str]:
    example = make_example("x", source, *references)
    found = [fitted(name).corrupt(example, np.random.default_rng(seed)) for seed in range(seeds)]
    return {edit.completion.text for edit in found if edit is not None}


def test_what_is_made_has_its_error_and_no_other() -> None:
    kinds = {"missing_slot": "missing", "hallucinated_slot": "hallucinated", "wrong_slot": "wrong"}
    for name, kind in kinds.items():
        edits = [(e, fitted(name).corrupt(e, np.random.default_rng(i))) for i, e in enumerate(unseen(name))]
        assert sum(edit is not None for _, edit in edits) > 0.6 * len(edits)
        for example, edit in edits:
            if edit is not None:
                found = errors(example.source, edit.completion.text)
                assert {k for k in kinds.values() if getattr(found, k)} == {kind}, edit.completion.text


def test_a_phrase_is_taken_out_whole() -> None:
    texts = made("missing_slot", "boat[Sea Otter], kind[ferry], harbour[Leith]", "Sea Otter is a ferry in Leith.")
    assert texts == {"Sea Otter is a ferry."}


def test_a_wrong_value_is_put_everywhere_with_its_article() -> None:
    source = "boat[Pelican], kind[ferry], harbour[Leith]"
    texts = made("wrong_slot", source, "Pelican is a ferry. Pelican lies in Leith.", seeds=60)
    assert "Old Tom is a ferry. Old Tom lies in Leith." in texts
    assert not any("Pelican" in text and "ferry" in text and "Leith" in text for text in texts)


def test_a_value_that_another_reference_says_is_never_put_in() -> None:
    source = "boat[Pelican], kind[ferry]"
    references = ("Pelican is a ferry.", "Pelican is a ferry, no tugboat or trawler.")
    for name in ("wrong_slot", "hallucinated_slot"):
        for seed in range(60):
            edit = fitted(name).corrupt(make_example("x", source, *references), np.random.default_rng(seed))
            if edit is not None:
                changed = edit.completion.text[slice(*edit.span)]
                assert "tugboat" not in changed or edit.completion.text.endswith("trawler.")


def test_a_made_up_value_is_of_a_slot_that_the_document_has_not() -> None:
    source = "boat[Sea Otter], kind[ferry], crew[12]"
    texts = made("hallucinated_slot", source, "Sea Otter is a ferry and carries 12 people.")
    harbours = {"Port Ellen", "Skagen", "Old Harbour", "Trondheim", "Hanko", "Saint Malo", "Leith", "Cork Quay"}
    assert texts
    assert all(any(harbour in text for harbour in harbours) for text in texts)


def test_severity_is_half_and_half_the_share() -> None:
    example = make_example("x", "boat[Pelican], kind[ferry]", "Pelican is a ferry.")
    mode = fitted("missing_slot")
    assert mode.detect(example, Completion("Pelican is a ferry.")) == 0
    assert mode.detect(example, Completion("It is a ferry.")) == 0.75
    assert mode.detect(example, Completion("It floats.")) == 1
    assert mode.detect(make_example("x", "Ada: hi", "Ada greets."), Completion("Hello.")) is None


# --- in a run ----------------------------------------------------------------


def test_a_preset_has_the_slot_modes_for_data_to_text_alone() -> None:
    full, chats = NegativesConfig(), corpus().examples
    assert task_mode_names(full, BOATS) == PRESETS["full"]
    assert task_mode_names(full, chats) == tuple(name for name in PRESETS["full"] if name not in SLOT_MODES)
    assert "wrong_slot" in task_mode_names(NegativesConfig(include=("wrong_slot",)), chats)
    assert not set(SLOT_MODES) & set(task_mode_names(NegativesConfig(preset="paper"), BOATS))


def recipe(**evaluate: object) -> RunConfig:
    return RunConfig.model_validate({"data": {"path": "x"}, "model": {"path": "model"}, "evaluate": evaluate})


def test_slot_error_rate() -> None:
    (metric,) = [m for m in build_metrics(recipe(), BOATS) if m.name == "slot_error_rate"]
    assert metric.higher_is_better is False
    example = make_example("x", "boat[Pelican], kind[ferry]", "Pelican is a ferry.")
    examples = [example, example, Example("y", "Ada: hi", "Ada: hi", None, ("Ada greets.",))]
    scores = metric.scorer(examples, [Completion("Pelican is a ferry."), Completion("A tugboat."), Completion("Hi.")])
    np.testing.assert_array_equal(scores, [0.0, 1.0, np.nan])


def test_slot_error_rate_is_measured_by_itself_on_data_to_text_alone_and_can_be_named() -> None:
    chats = corpus().examples
    assert "slot_error_rate" not in {metric.name for metric in build_metrics(recipe(), chats)}
    named = build_metrics(recipe(primary_metrics=("slot_error_rate",)), chats)
    assert named[-1].name == "slot_error_rate"
    select = build_selection(recipe(selection_metrics=("slot_error_rate",)), BOATS)
    example = boat(2, np.random.default_rng(0))
    scores = select([example, example], [Completion(example.reference), Completion("")])
    np.testing.assert_array_equal(scores, [1.0, 0.0])
