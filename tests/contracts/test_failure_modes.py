"""One battery for every failure mode in the registry: what `corrupt`, `detect` and `repair` promise."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failure_corpus import corpus, edits, fitted, flagged, make_example, unseen
from homestretch.failures import FAILURE_MODES, PRESETS, SLOT_MODES, build_modes
from homestretch.failures.base import same_text
from homestretch.failures.positives import edited_positive
from homestretch.types import Completion, Corpus, Example, FailureMode, UserError

SWAPS = ("wrong_entity", "wrong_number", "wrong_date")
# Clauses and sentences in another order, and runs of three real words, are meant to be hard to tell by counting.
LEAST_FOUND = {"random_tokens": 0.6, "shuffled": 0.6, "omission": 0.7}
UNTERMINATED = {"truncation", "run_on"}


def _class(name: str) -> type[FailureMode]:
    module, _, attribute = FAILURE_MODES[name].partition(":")
    found: type[FailureMode] = getattr(import_module(module), attribute)
    return found


with_face = {
    face: [name for name in FAILURE_MODES if face in _class(name).faces()] for face in ("corrupt", "detect", "repair")
}


def test_registry_is_whole() -> None:
    assert set(PRESETS["paper"]) < set(PRESETS["full"]) == set(FAILURE_MODES)
    assert with_face["corrupt"] == list(FAILURE_MODES)
    assert set(FAILURE_MODES) - set(with_face["detect"]) == {"wrong_speaker", "negation"}
    assert set(with_face["repair"]) == {"repetition", "truncation", "run_on"}
    assert all(fitted(name).name == name for name in FAILURE_MODES)


# --- corrupt ------------------------------------------------------------


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_corrupt_applies_often(name: str) -> None:
    assert len(edits(name)) >= 3 * len(corpus(name).examples) * (0.25 if name in {*SWAPS, "wrong_speaker"} else 0.6)


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_same_seed_same_edit_and_other_seeds_vary(name: str) -> None:
    mode = fitted(name)
    example = next(e for e, _ in edits(name))
    assert mode.corrupt(example, np.random.default_rng(5)) == mode.corrupt(example, np.random.default_rng(5))
    choices = make_example(
        "x",
        "Ada: I told Boris that Carla waits at 5\nBoris: she does not like Oslo\nCarla: or 4 or 3 or 9 or 6, Hugo",
        "Ada told Boris to wait at 5. Boris cannot help Ada. Carla called Ada and is sorry. Boris will walk 2 dogs.",
    )
    boats = [
        make_example("y", "boat[Marigold], kind[ferry], harbour[Leith]", "Marigold is a ferry in Leith.",
                     "In Leith there is a ferry called Marigold.", "There is a ferry called Marigold in Leith."),
        make_example("z", "boat[Marigold], kind[ferry]", "Marigold is a ferry.", "There is a ferry called Marigold."),
    ]  # fmt: skip
    made = [mode.corrupt(e, np.random.default_rng(seed)) for e in (choices, example, *boats) for seed in range(20)]
    assert len({edit.completion.text for edit in made if edit is not None}) >= 3


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_the_text_never_is_a_reference(name: str) -> None:
    for example, edit in edits(name):
        assert edit.completion.text.strip()
        assert not any(same_text(edit.completion.text, reference) for reference in example.references)


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_the_span_is_within_the_text(name: str) -> None:
    for _, edit in edits(name):
        start, end = edit.span
        assert 0 <= start <= end <= len(edit.completion.text)


@pytest.mark.parametrize("name", [*SWAPS, "negation", "wrong_speaker"])
def test_the_span_is_the_whole_edit(name: str) -> None:
    """Outside the span the text is the reference."""
    for example, edit in edits(name):
        start, end = edit.span
        text, reference = edit.completion.text, example.reference
        assert text[:start] == reference[:start]
        assert reference.endswith(text[end:])
        if name != "wrong_speaker":
            old, new = edit.note.split(" -> ")
            assert text[start:end] == new
            assert reference[start : start + len(old)] == old


@pytest.mark.parametrize("name", ["run_on", "addition", "repetition", "hallucinated_slot"])
def test_the_span_is_what_was_added(name: str) -> None:
    for example, edit in edits(name):
        text = edit.completion.text
        start, end = edit.span
        assert not same_text(text[start:end], example.reference) or name == "repetition"
        if name != "repetition":
            assert same_text(text[:start] + text[end:], example.reference)


@pytest.mark.parametrize("name", ["truncation", "omission", "missing_slot"])
def test_the_span_is_where_text_is_missing(name: str) -> None:
    for example, edit in edits(name):
        assert edit.span[0] == edit.span[1]
        assert len(edit.completion.text) < len(example.reference)
    if name == "truncation":
        shares = [len(edit.completion.text) / len(example.reference) for example, edit in edits(name)]
        assert 0.25 < min(shares) < 0.45 < 0.75 < max(shares) < 0.95


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_terminator(name: str) -> None:
    terminated = np.mean([edit.completion.terminated for _, edit in edits(name)])
    if name in UNTERMINATED:
        assert terminated == 0
    elif name == "repetition":
        assert 0.35 < terminated < 0.65
    else:
        assert terminated == 1


@pytest.mark.parametrize("name", ["random_tokens", "shuffled", "repetition", "echo"])
def test_length_matched(name: str) -> None:
    """Where a failure need not change the length, length must not give it away."""
    ratios = [
        len(edit.completion.text.split()) / len(example.reference.split())
        for example, edit in edits(name)
        if edit.completion.terminated and "turn" not in edit.note and "template" not in edit.note
    ]
    assert 0.8 < np.median(ratios) < 1.2


@pytest.mark.parametrize("name", with_face["corrupt"])
def test_refuses_without_a_reference(name: str) -> None:
    example = make_example("x", "Ada: hello\nBoris: hello")
    assert fitted(name).corrupt(example, np.random.default_rng(0)) is None
    assert fitted(name).corrupt(make_example("x", "Ada: hello", "  "), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("name", "source", "reference"),
    [
        ("shuffled", "Ada: hi", "Sunshine."),
        ("shuffled", "Ada: hi", "No no no."),
        ("truncation", "Ada: hi", "Yes."),
        ("echo", "Ada: hi", "Ada greets."),
        ("wrong_entity", "Ada: it rains", "It rains."),
        ("wrong_number", "Ada: it rains", "It rains."),
        ("wrong_date", "Ada: it rains", "It rains."),
        ("wrong_speaker", "Ada: hi\nBoris: hi", "Ada and Boris say hello."),
        ("wrong_speaker", "Ada: hi\nBoris: hi", "Ada will meet Boris."),
        ("wrong_speaker", "Ada: hi", "Ada is here."),
        ("wrong_speaker", "It rained in the whole country.", "Rain fell."),
        ("negation", "Ada: rain", "Rain, wind, snow."),
        ("omission", "Ada: rain", "Rain and wind."),
        *((name, "Ada: look, the Pelican is in Skagen", "The Pelican is a ferry in Skagen.") for name in SLOT_MODES),
        *((name, "boat[Dolphin]", "It floats.") for name in SLOT_MODES),
    ],
)
def test_refuses_where_it_does_not_apply(name: str, source: str, reference: str) -> None:
    mode = fitted(name)
    example = Example("x", source, source, None, (reference,))
    assert [mode.corrupt(example, np.random.default_rng(seed)) for seed in range(10)] == [None] * 10


@pytest.mark.parametrize("name", SWAPS)
def test_a_swap_never_puts_what_a_reference_says(name: str) -> None:
    source = "Ada: Boris and Carla come at 4 or 5 pm on Monday or Friday with 30 or 40 dollars"
    references = ("Boris comes at 4 pm on Monday with 30 dollars.", "Carla comes at 5 pm on Friday with 40 dollars.")
    for seed in range(30):
        edit = fitted(name).corrupt(make_example("x", source, *references), np.random.default_rng(seed))
        if edit is not None:
            new = edit.completion.text[slice(*edit.span)]
            assert not any(new in reference for reference in references)


def test_lower_cased_text_stays_lower_cased() -> None:
    for name in (*SWAPS, "wrong_speaker", "negation", "omission"):
        for i, example in enumerate(corpus().examples[:30]):
            lowered = make_example("x", example.source, example.reference.lower())
            edit = fitted(name).corrupt(lowered, np.random.default_rng(i))
            assert edit is None or edit.completion.text == edit.completion.text.lower(), name


# --- detect ------------------------------------------------------------


@pytest.mark.parametrize("name", with_face["detect"])
def test_detect_finds_what_corrupt_made(name: str) -> None:
    mode = fitted(name)
    made = edits(name)
    if name in SWAPS:
        # A value from the source itself cannot be told by looking it up in the source.
        made = tuple((e, x) for e, x in made if x.completion.text[slice(*x.span)].lower() not in e.source.lower())
        assert len(made) >= 20
    rate = np.mean([flagged(mode, example, edit.completion) for example, edit in made])
    assert rate >= LEAST_FOUND.get(name, 0.9)


@pytest.mark.parametrize("name", with_face["detect"])
def test_detect_leaves_references_alone(name: str) -> None:
    for examples, limit in ((corpus(name).examples, 0.05), (unseen(name), 0.1)):
        assert np.mean([flagged(fitted(name), e, Completion(e.reference)) for e in examples]) <= limit


# --- repair ------------------------------------------------------------

TIDY = (
    "Dr. Smith paid 3.5 euros to Mr. Jones. He left at 5 p.m. and came back.",
    "It was very very late, and Ada had had enough.",
    "Ada moves to Baden Baden. Boris moves to Baden Baden too.",
    "He said no. She said no.",
    "ada is late . boris waits .",
    "One: two things matter. Ada: nothing.",
    "Ada asks: is it ready?",
)


@pytest.mark.parametrize("name", with_face["repair"])
def test_repair_leaves_references_unchanged(name: str) -> None:
    for example in (*corpus().examples, *unseen()):
        completion = Completion(example.reference, ids=(1, 2))
        assert fitted(name).repair(example, completion) == completion
    example = corpus().examples[0]
    for text in TIDY:
        assert fitted(name).repair(example, Completion(text)).text == text


@pytest.mark.parametrize("name", with_face["repair"])
def test_repair_removes_what_it_claims(name: str) -> None:
    mode = fitted(name)
    repaired = 0
    for example, edit in edits(name):
        after = mode.repair(example, edit.completion)
        if name == "truncation" and "." not in edit.completion.text:
            assert after == edit.completion, "there is no complete sentence to keep"
            continue
        repaired += 1
        assert not flagged(mode, example, after)
        assert after.text in edit.completion.text or name == "repetition"
    assert repaired > 0.3 * len(edits(name))


@pytest.mark.parametrize("name", with_face["repair"])
def test_repair_twice_is_repair_once(name: str) -> None:
    for example, edit in edits(name):
        once = fitted(name).repair(example, edit.completion)
        assert fitted(name).repair(example, once) == once


@pytest.mark.parametrize("name", FAILURE_MODES)
def test_a_corpus_without_references_is_the_users_mistake_or_harmless(name: str) -> None:
    """No mode may divide by zero or flag everything because there was nothing to learn from."""
    empty = Corpus((make_example("x", "Ada: hi"),))
    needs_references = name not in {"truncation", "wrong_speaker", "negation", "omission", *SLOT_MODES}
    if needs_references:
        with pytest.raises(UserError, match="no labelled training example"):
            build_modes([name], empty)
    else:
        assert build_modes([name], empty)[0].corrupt(empty.examples[0], np.random.default_rng(0)) is None


# --- robustness ------------------------------------------------------------

ANY_TEXT = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="Ada Boris. 5:pm\n!'’", max_size=60),
    st.sampled_from(["", "word", "…", "猫が好き。", "tom ' s dog", "A: \nB:", "\n\n", "na na na na", "İİ İİ İİ İİ"]),
)


@pytest.mark.parametrize("name", FAILURE_MODES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=ANY_TEXT, reference=ANY_TEXT, text=ANY_TEXT, terminated=st.booleans(), seed=st.integers(0, 99))
def test_any_text_is_fine(name: str, source: str, reference: str, text: str, terminated: bool, seed: int) -> None:
    mode = fitted(name)
    example = make_example("x", source, reference) if source else Example("x", source, source, None, (reference,))
    edit = mode.corrupt(example, np.random.default_rng(seed))
    assert edit is None or (edit.completion.text.strip() and not same_text(edit.completion.text, reference))
    assert edit is None or 0 <= edit.span[0] <= edit.span[1] <= len(edit.completion.text)
    severity = mode.detect(example, Completion(text, terminated=terminated))
    assert severity is None or 0 <= severity <= 1
    repaired = mode.repair(example, Completion(text, terminated=terminated))
    assert len(repaired.text) <= len(text)
    edited_positive(example, np.random.default_rng(seed))


@pytest.mark.parametrize("name", FAILURE_MODES)
def test_odd_corpora_can_be_learnt_from(name: str) -> None:
    for reference in ("x", "…", "猫が好き。", "Breaking news"):
        tiny = Corpus((make_example("x", "some source text", reference), make_example("y", "another", reference)))
        (mode,) = build_modes([name], tiny)
        mode.corrupt(tiny.examples[0], np.random.default_rng(0))
        severity = mode.detect(tiny.examples[0], Completion(reference))
        assert severity is None or severity < 0.5
