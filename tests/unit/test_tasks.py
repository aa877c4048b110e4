"""The built-in tasks: disjoint seeded splits, a small vocabulary, and facts that are read back exactly."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from homestretch.tasks import SPLITS, TASKS, build_task, chats
from homestretch.tasks import chats_text as text_
from homestretch.tasks.chats import Chats
from homestretch.tasks.chats_facts import stated_facts, true_facts, value_of
from homestretch.tasks.chats_scenarios import SCENARIOS, Scenario
from homestretch.types import Completion, Example, UserError

SIZE = 2000
TOKEN = re.compile(r"\w+|[^\w\s]")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return build_task("chats").generate("train", SIZE, seed=0)


def scores(examples: list[Example], texts: list[str]) -> dict[str, np.ndarray]:
    completions = [Completion(text) for text in texts]
    return {metric.name: metric.scorer(examples, completions) for metric in build_task("chats").metrics()}


def chat(scenario: str, **facts: object) -> Example:
    """An example with the facts Mia (agent), Tom (other speaker) and more."""
    base = {"scenario": scenario, "speakers": ["Mia", "Tom"], "agent": "Mia", "others": []}
    return Example(id="x", source="", prompt="", references=("",), facts={**base, **facts})


# --- the table -----------------------------------------------------------------------------------------------------


def test_every_task_of_the_table_is_built() -> None:
    for name in TASKS:
        assert build_task(name).name == name


def test_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'chats'"):
        build_task("chat")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        Chats().generate("dev", 1, 0)


def test_difficulty_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Chats(correction_share=1.5)
    with pytest.raises(ValueError, match="max_distractors"):
        Chats(max_distractors=-1)


# --- generation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_examples_and_a_longer_split_extends_a_shorter(split: str) -> None:
    task = Chats()
    assert task.generate(split, 40, seed=3)[:25] == task.generate(split, 25, seed=3)
    assert task.generate(split, 25, seed=3) != task.generate(split, 25, seed=4)


def test_splits_are_disjoint_where_chance_would_repeat_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of few facts, in which splits drawn freely would share most of their chats."""
    tiny = replace(SCENARIOS[0], slots={"place": text_.PLACES[:3], "day": text_.DAYS[:3], "time": text_.TIMES[:3]})
    monkeypatch.setattr(chats, "SCENARIOS", (tiny,))
    monkeypatch.setattr(text_, "NAMES", text_.NAMES[:3])
    task = Chats(correction_share=0, rejection_share=0, max_distractors=0)
    sources = {
        split: {example.source for seed in (0, 1) for example in task.generate(split, 150, seed)} for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not sources[one] & sources[other]


def test_no_labelled_facts_are_shared_between_splits() -> None:
    task = Chats()
    told = {s: {str(dict(e.facts)) for e in task.generate(s, 400, 0)} for s in ("train", "validation", "test")}
    assert not told["train"] & told["validation"]
    assert not told["train"] & told["test"]


def test_examples_are_distinct(examples: list[Example]) -> None:
    assert len({example.source for example in examples}) == SIZE
    assert len({example.id for example in examples}) == SIZE


def test_prompts_cannot_be_trained_on() -> None:
    for example in Chats().generate("prompts", 50, 0):
        assert example.references == ()
        assert example.facts == {}


def test_document_span_holds_the_source(examples: list[Example]) -> None:
    for example in examples[:200]:
        start, end = example.document_span or (0, 0)
        assert example.prompt[start:end] == example.source
        assert example.prompt.endswith("\nSummary:")


def test_chats_are_short_and_their_vocabulary_is_small(examples: list[Example]) -> None:
    lengths = [len(TOKEN.findall(f"{e.prompt} {e.reference}")) for e in examples]
    vocabulary = {token for e in examples for token in TOKEN.findall(f"{e.prompt} {e.reference}")}
    assert np.mean(lengths) <= 95
    assert np.percentile(lengths, 99) <= 150
    assert len(vocabulary) <= 700


def test_chats_have_two_speakers_in_turn(examples: list[Example]) -> None:
    for example in examples:
        names = [line.split(": ")[0] for line in example.source.split("\n")]
        assert 4 <= len(names) <= 8
        assert set(names) == set(example.facts["speakers"])
        assert all(one != following for one, following in itertools.pairwise(names))


def test_every_fact_can_be_read_in_the_chat(examples: list[Example]) -> None:
    for example in examples:
        source = example.source.lower()
        for role, value in true_facts(example.facts):
            assert value in source, (role, value, source)


def test_the_agent_is_not_given_away_by_position(examples: list[Example]) -> None:
    opens = [e.source.startswith(e.facts["agent"]) for e in examples if "agent" in e.facts]
    assert 0.4 < np.mean(opens) < 0.6


def test_difficulty_changes_the_chats() -> None:
    easy = Chats(correction_share=0, rejection_share=0, max_distractors=0).generate("train", 300, 0)
    hard = Chats(correction_share=1, rejection_share=1, max_distractors=2).generate("train", 300, 0)

    def days(examples: list[Example]) -> float:
        return float(np.mean([sum(day in e.source for day in text_.DAYS) for e in examples]))

    assert days(easy) <= 1 < days(hard)


def test_a_correction_leaves_the_last_value_as_the_fact() -> None:
    """Without rejections and small talk, the last day of a chat is the day that holds."""
    task = Chats(correction_share=1, rejection_share=0, max_distractors=0)
    corrected = 0
    for example in task.generate("train", 300, 0):
        days = re.findall("|".join(text_.DAYS), example.source)
        if len(set(days)) == 2 and f"not {days[-1]}" not in example.source and f"than {days[-1]}" not in example.source:
            corrected += 1
            assert example.facts["day"] == days[-1].lower()
    assert corrected > 20


# --- vocabularies --------------------------------------------------------------------------------------------------


def test_vocabularies_do_not_overlap() -> None:
    groups = [text_.NAMES, text_.DAYS, text_.PLACES, text_.CITIES, text_.THINGS, text_.FOODS, text_.PAPERS]
    groups += [text_.PARTIES, text_.SHOWS, text_.VEHICLES]
    values = [value_of(phrase) for group in groups for phrase in group]
    assert len(values) == len(set(values))
    verbs = {verb for s in SCENARIOS for verb in s.verbs | s.inverse_verbs}
    assert not verbs & set(values)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_scenarios_use_their_slots(scenario: Scenario) -> None:
    def slots(text: str) -> set[str]:
        return {slot.lower() for slot in re.findall(r"{(\w+)}", text)} - {"a", "b"}

    for opening in scenario.openings + scenario.reversals:
        assert slots(" ".join(text for _, text in opening)) == set(scenario.slots)
    for reference in scenario.references:
        assert slots(reference) == set(scenario.slots)
        assert {"a", "b"} & set(re.findall(r"{(\w)}", reference)) == {"a", "b"} & set(
            re.findall(r"{(\w)}", scenario.references[0])
        )
    assert scenario.fixed <= set(scenario.slots)


# --- facts ---------------------------------------------------------------------------------------------------------


def test_references_are_perfect(examples: list[Example]) -> None:
    result = scores(examples, [e.reference for e in examples])
    for name in ("fact_precision", "fact_recall", "fact_f1"):
        assert (result[name] == 1.0).all(), name
    has_agent = np.array(["agent" in e.facts for e in examples])
    assert (result["wrong_speaker"][has_agent] == 0).all()
    assert np.isnan(result["wrong_speaker"][~has_agent]).all()
    assert has_agent.mean() > 0.8


@pytest.mark.parametrize(
    "rewrite",
    [str.lower, str.upper, lambda s: " ".join(TOKEN.findall(s)), lambda s: f"  {s[:-1]} .\n"],
    ids=["lower", "upper", "spaced", "edges"],
)
def test_case_and_spacing_do_not_matter(examples: list[Example], rewrite: object) -> None:
    result = scores(examples, [rewrite(e.reference) for e in examples])  # type: ignore[operator]
    assert (result["fact_f1"] == 1.0).all()


def test_swapped_speakers_are_wrong(examples: list[Example]) -> None:
    with_agent = [e for e in examples if "agent" in e.facts]

    def swapped(example: Example) -> str:
        one, other = example.facts["speakers"]
        return re.sub(rf"\b({one}|{other})\b", lambda m: other if m[0] == one else one, example.reference)

    result = scores(with_agent, [swapped(e) for e in with_agent])
    assert (result["wrong_speaker"] == 1).all()
    assert (result["fact_f1"] < 1).all()
    assert (result["fact_precision"] < 1).all()


@pytest.mark.parametrize("role", ["day", "time", "place", "city", "object", "event", "vehicle", "price", "count"])
def test_a_swapped_value_costs_exactly_one_fact(examples: list[Example], role: str) -> None:
    phrases = sorted({p for s in SCENARIOS for p in s.slots.get(role, ())})
    chosen = [e for e in examples if role in e.facts][:60]
    assert chosen
    texts = []
    for i, example in enumerate(chosen):
        old = next(p for p in phrases if value_of(p) == example.facts[role])
        new = [p for p in phrases if p != old][i % (len(phrases) - 1)]
        texts.append(re.sub(re.escape(old), lambda _, new=new: new, example.reference, flags=re.IGNORECASE))
    result = scores(chosen, texts)
    sizes = np.array([len(true_facts(e.facts)) for e in chosen])
    np.testing.assert_allclose(result["fact_precision"], 1 - 1 / sizes)
    np.testing.assert_allclose(result["fact_recall"], 1 - 1 / sizes)
    np.testing.assert_allclose(result["fact_f1"], 1 - 1 / sizes)


def test_empty_and_fact_free_outputs() -> None:
    example = chat("bring", object="salad", event="picnic", day="friday")
    for text in ("", "They talk about something."):
        result = scores([example], [text])
        assert np.isnan(result["fact_precision"][0])
        assert result["fact_recall"][0] == result["fact_f1"][0] == 0
        assert np.isnan(result["wrong_speaker"][0])


def test_examples_without_facts_score_nan() -> None:
    example = Example(id="p", source="s", prompt="s")
    assert all(np.isnan(values[0]) for values in scores([example], ["Mia will bring the salad."]).values())


def test_partial_credit_by_hand() -> None:
    example = chat("bring", object="salad", event="picnic", day="friday")
    result = scores([example], ["Mia will bring the salad and the soup."])
    assert result["fact_precision"][0] == pytest.approx(2 / 3)  # Mia, salad; not soup
    assert result["fact_recall"][0] == pytest.approx(2 / 4)
    assert result["fact_f1"][0] == pytest.approx(2 * 2 / (3 + 4))


@pytest.mark.parametrize(
    ("scenario", "text", "agents"),
    [
        ("bring", "On Friday Mia brings the salad for Tom.", {"mia"}),
        ("bring", "The salad will be brought by Tom.", {"tom"}),
        ("bring", "Tom asked Mia to bring the salad.", {"mia"}),
        ("bring", "Mia told Tom that she will bring the salad.", {"mia"}),
        ("bring", "Mia and Tom will bring the salad.", {"mia", "tom"}),
        ("bring", "The salad will be there.", set()),
        ("bring", "Mia: the salad", {"mia"}),
        ("borrow", "Tom will lend Mia the tent.", {"mia"}),
        ("borrow", "The tent will be lent to Mia by Tom.", {"mia"}),
        ("sell", "Tom is buying the bike from Mia.", {"mia"}),
        ("sell", "The bike is sold by Mia.", {"mia"}),
        ("lost", "Tom found the tent that Mia left at the gym.", {"mia"}),
        ("send", "By Friday at 3 pm Mia has to send it to Tom.", {"mia"}),
        ("meet", "Mia will meet Tom.", set()),
    ],
)
def test_agents(scenario: str, text: str, agents: set[str]) -> None:
    assert {value for role, value in stated_facts(text, scenario) if role == "agent"} == agents


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("at 6 pm", ("time", "6 pm")),
        ("at 6 p.m.", ("time", "6 pm")),
        ("at 6pm", ("time", "6 pm")),
        ("at 6:00 pm", ("time", "6 pm")),
        ("at 6:30 pm", ("time", "6:30 pm")),
        ("at 6", ("time", "6 pm")),
        ("at six", ("time", "6 pm")),
        ("at 9", ("time", "9 am")),
        ("at 6 am", ("time", "6 am")),
        ("for $ 40", ("price", "40")),
        ("for 40 dollars", ("price", "40")),
        ("4 tickets", ("count", "4")),
        ("four tickets", ("count", "4")),
        ("on Friday's show", ("day", "friday")),
    ],
)
def test_values(text: str, fact: tuple[str, str]) -> None:
    assert stated_facts(text, "sell") == {fact}
