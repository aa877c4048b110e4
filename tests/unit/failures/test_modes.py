"""Single failure modes on written examples; the battery that all of them pass is in tests/contracts."""

from __future__ import annotations

import numpy as np
import pytest

from failure_corpus import corpus, fitted, flagged, make_example
from homestretch.config import NegativesConfig
from homestretch.failures import PRESETS, build_modes, mode_names, post_process
from homestretch.failures.negation import Negation
from homestretch.failures.positives import edited_positive
from homestretch.failures.swap import SwapMode
from homestretch.failures.wrong_date import WrongDate
from homestretch.failures.wrong_number import WrongNumber
from homestretch.ops.entities import mentions
from homestretch.types import Completion, Example, UserError

SWAPS = ("wrong_entity", "wrong_number", "wrong_date")


@pytest.mark.parametrize("name", SWAPS)
def test_a_swap_takes_from_the_source_first(name: str) -> None:
    source = "Ada: Boris or Zbigniew?\nXaver: on Tuesday at 4 pm or 9 pm, for 37 or 38 dollars, on Friday"
    example = make_example("x", source, "Boris pays 37 dollars on Tuesday at 4 pm.")
    for seed in range(10):
        edit = fitted(name).corrupt(example, np.random.default_rng(seed))
        assert edit is not None
        assert edit.completion.text[slice(*edit.span)] in source


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("tonight", "today"),
        ("at 5 pm", "at 17:00"),
        ("at 5:00", "at 17:00"),
        ("at 5 pm", "at 5"),
        ("on Friday", "on friday"),
        ("12 May", "May 12"),
    ],
)
def test_a_date_is_not_swapped_for_one_that_may_mean_the_same(said: str, other: str) -> None:
    source = f"Ada: {said}\nBoris: {other}"
    for seed in range(10):
        edit = fitted("wrong_date").corrupt(
            make_example("x", source, f"Ada comes {said}."), np.random.default_rng(seed)
        )
        assert edit is None or edit.completion.text[slice(*edit.span)] not in other.split(" ", 1)


@pytest.mark.parametrize(
    ("said", "other", "agree"),
    [
        ("May 12, 2020", "12 May", True),
        ("in May", "May 12, 2020", True),
        ("May 12", "May 13", False),
        ("last night", "yesterday", True),
        ("this morning", "today", True),
        ("in the 1990s", "in the 1980s", False),
    ],
)
def test_dates_that_may_agree(said: str, other: str, agree: bool) -> None:
    (a,), (b,) = mentions(said), mentions(other)
    assert WrongDate.may_agree(a, b) is WrongDate.may_agree(b, a) is agree


def test_values_are_swapped_within_a_form() -> None:
    def shape(mode: type[SwapMode], text: str) -> str:
        (mention,) = mentions(text)
        return mode.shape(mention)

    assert shape(WrongNumber, "the 2nd floor") == shape(WrongNumber, "the 3rd floor") != shape(WrongNumber, "3 floors")
    assert shape(WrongDate, "May 12, 2020") == shape(WrongDate, "3 June 1999") != shape(WrongDate, "May 12")
    assert shape(WrongDate, "in the 1990s") != shape(WrongDate, "in 1990")
    assert shape(WrongDate, "this morning") != shape(WrongDate, "tomorrow") == shape(WrongDate, "next week")
    assert shape(WrongDate, "last night") == shape(WrongDate, "yesterday")
    assert shape(WrongDate, "for Thanksgiving") == shape(WrongDate, "for Christmas")


def test_wrong_speaker_swaps_whole_words() -> None:
    example = make_example("x", "Ann: hi\nAnna: I lost my key", "Anna lost Ann's key.")
    texts = {
        edit.completion.text
        for seed in range(10)
        if (edit := fitted("wrong_speaker").corrupt(example, np.random.default_rng(seed)))
    }
    assert texts == {"Ann lost Anna's key."}


@pytest.mark.parametrize(
    ("reference", "never"),
    [
        ("Tom was told to come.", "did not tell"),
        ("Ann has already found it and is happy.", "did not find"),
        ("Tom said he won't come.", "lost't"),
    ],
)
def test_negation_leaves_grammar_whole(reference: str, never: str) -> None:
    example = Example("e", reference, reference, references=(reference,))
    made = [Negation().corrupt(example, np.random.default_rng(seed)) for seed in range(40)]
    assert any(made)
    assert not [edit.completion.text for edit in made if edit and never in edit.completion.text]


def test_omission_is_not_judged_without_a_reference() -> None:
    assert fitted("omission").detect(make_example("x", "Ada: hi"), Completion("Ada says hi.")) is None


def test_detect_knows_numbers_in_other_forms() -> None:
    example = make_example("x", "Ada: at 17:00, bring 5 friends", "")
    for text in ("Ada asks for five friends at 5 pm.", "ada asks for 5 friends at 17:00 ."):
        assert not flagged(fitted("wrong_number"), example, Completion(text))
        assert not flagged(fitted("wrong_date"), example, Completion(text))
    assert flagged(fitted("wrong_number"), example, Completion("Ada asks for 6 friends."))
    assert flagged(fitted("wrong_date"), example, Completion("Ada asks for friends at 6 pm."))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Ada sells the sofa. Ada sells the sofa. Ada sells the sofa.", "Ada sells the sofa."),
        ("Ada sells the the the the sofa.", "Ada sells the sofa."),
        ("Ada will come and Ada will come and Ada will come and eat.", "Ada will come and eat."),
        ("Ada is here. Boris is there. Ada is here.", "Ada is here. Boris is there."),
    ],
)
def test_repetition_repair(before: str, after: str) -> None:
    assert fitted("repetition").repair(corpus().examples[0], Completion(before)).text == after


def test_truncation_repair_cuts_back_to_a_sentence() -> None:
    mode, example = fitted("truncation"), corpus().examples[0]
    cut = Completion("Ada met Dr. Smith. He paid 3.5 euros to Dr.", terminated=False, ids=(4,))
    assert mode.repair(example, cut) == Completion("Ada met Dr. Smith.", terminated=True)
    assert mode.repair(example, Completion("Ada met", terminated=False)) == Completion("Ada met", terminated=False)


def test_run_on_repair_cuts_at_the_next_turn() -> None:
    mode, example = fitted("run_on"), corpus().examples[0]
    cut = Completion(example.reference + "\nAda: and another thing", terminated=False)
    assert mode.repair(example, cut).text == example.reference


def test_run_on_repair_cuts_a_short_next_turn_of_an_ended_text() -> None:
    mode, example = fitted("run_on"), corpus().examples[0]
    assert mode.repair(example, Completion("Ada sleeps.\nBoris: ok")) == Completion("Ada sleeps.")
    assert mode.repair(example, Completion("Boris: ok")) == Completion("Boris: ok"), (
        "a turn at the start is no next turn"
    )


def test_post_process_does_not_take_the_next_turns_end_for_the_texts() -> None:
    modes = build_modes(PRESETS["full"], corpus())
    cut = Completion("Ada sells the\nBoris: I know.", terminated=False)
    assert post_process(modes, corpus().examples[0], cut) == Completion("Ada sells the", terminated=False)


def test_post_process_cleans_a_text_that_fails_in_three_ways() -> None:
    modes = build_modes(PRESETS["full"], corpus())
    example = corpus().examples[0]
    loop = " ".join([example.reference] * 3)
    messy = Completion(f"{loop}\nAda: so I said\nBoris: what do you", terminated=False)
    assert post_process(modes, example, messy) == Completion(example.reference, terminated=True)
    assert post_process(modes[:1], example, messy) == messy
    assert post_process(modes, example, Completion(example.reference)) == Completion(example.reference)


def test_edited_positives() -> None:
    made = [(e, edited_positive(e, np.random.default_rng(i))) for i, e in enumerate(corpus().examples)]
    found = [(example, edit) for example, edit in made if edit is not None]
    assert len(found) > 0.4 * len(made)
    for example, edit in found:
        assert edit.completion.terminated
        assert edit.completion.text != example.reference
        start, end = edit.span
        old, new = edit.note.split(" -> ")
        assert edit.completion.text[start:end] == new
        assert edit.completion.text[:start] + old + edit.completion.text[end:] == example.reference
        for name in ("wrong_entity", "wrong_number", "wrong_date", "addition", "omission"):
            assert not flagged(fitted(name), example, edit.completion)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("It is not here.", "It isn't here."),
        ("Ada doesn't know.", "Ada does not know."),
        ("They come at 6 pm.", "They come at 18:00."),
        ("Ada and Boris left.", "Boris and Ada left."),
        ("It took 3 days.", "It took three days."),
    ],
)
def test_edited_positive_examples(reference: str, expected: str) -> None:
    edit = edited_positive(make_example("x", "", reference), np.random.default_rng(0))
    assert edit is not None
    assert edit.completion.text == expected


def test_no_edited_positive_where_nothing_can_be_said_otherwise() -> None:
    assert edited_positive(make_example("x", "", "Rain fell."), np.random.default_rng(0)) is None
    assert edited_positive(make_example("x", ""), np.random.default_rng(0)) is None


def test_mode_names() -> None:
    assert mode_names(NegativesConfig(preset="paper")) == PRESETS["paper"]
    picked = mode_names(NegativesConfig(preset="paper", include=("negation",), exclude=("echo",)))
    assert picked == ("random_tokens", "irrelevant", "shuffled", "repetition", "negation")
    with pytest.raises(UserError, match=r"negatives\.exclude: 'ecko' is not among"):
        mode_names(NegativesConfig(preset="paper", exclude=("ecko",)))
    with pytest.raises(UserError, match="leaves no failure mode"):
        mode_names(NegativesConfig(preset="paper", exclude=PRESETS["paper"]))


def test_unknown_modes_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'negation'"):
        build_modes(["negatoin"], corpus())
    with pytest.raises(UserError, match="must derive"):
        build_modes(["homestretch.types:Corpus"], corpus())


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("two thousand", "4 digits"),
        ("2000", "4 digits"),
        ("3RD", "1 digits and an ending"),
        ("2.5", "1 digits and a fraction"),
    ],
)
def test_a_thousand_is_no_ordinal(text: str, shape: str) -> None:
    assert [WrongNumber.shape(m) for m in mentions(f"Ann saw {text} birds.") if m.kind == "number"] == [shape]
