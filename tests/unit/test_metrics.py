"""Each metric against its library, a plain loop or a hand-worked value, and the rules for undefined scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from homestretch.config import RunConfig
from homestretch.metrics import METRICS, build_metrics, build_selection
from homestretch.metrics.extractive import fragment_lengths
from homestretch.metrics.overlap import length_adjusted, rouge_scores
from homestretch.metrics.scoring import MetricContext, per_example
from homestretch.types import Completion, Example, Metric, UserError

CHAT = "Nadia: can you pick up Pavel at 5 pm on Friday?\nIvo: sure, I will bring 12 plums."
REFERENCE = "Ivo will pick up Pavel at 5 pm on Friday."
EXAMPLE = Example("a", CHAT, CHAT, references=(REFERENCE,))
NAMELESS = Example("b", "Nadia: it rains here.", "", references=("it rains.",))
UNLABELLED = Example("c", CHAT, CHAT)
TRAIN = (EXAMPLE, NAMELESS)


def recipe(evaluate: dict[str, object] | None = None, task: str | None = None) -> RunConfig:
    data = {"task": task} if task else {"path": "somewhere"}
    return RunConfig.model_validate({"data": data, "model": {"path": "model"}, "evaluate": evaluate or {}})


METRIC_LIST = build_metrics(recipe(), TRAIN)
BY_NAME = {metric.name: metric for metric in METRIC_LIST}


def score(name: str, example: Example, text: str, terminated: bool = True) -> float:
    return float(BY_NAME[name].scorer([example], [Completion(text, terminated)])[0])


# --- overlap ------------------------------------------------------------

TEXTS = ["Ivo picks Pavel up on Friday.", "pick pick pick up up", "", "Plums, plums; and 5 pm!", REFERENCE]


@pytest.mark.parametrize("text", TEXTS)
def test_rouge_is_rouge_scores_own(text: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    references = (REFERENCE, "Ivo picks him up, and brings plums.")
    example = Example("a", CHAT, CHAT, references=references)
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score_multi(references, text)
    for name, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert score(name, example, text) == pytest.approx(theirs[kind].fmeasure)


def test_rouge_stems() -> None:
    assert score("rouge_1", Example("a", "", "", references=("meetings",)), "meeting") == 1.0


def test_rouge_takes_the_best_reference_by_type() -> None:
    example = Example("a", "", "", references=("red blue", "one two three four"))
    assert score("rouge_2", example, "red blue") == 1.0
    assert score("rouge_2", example, "one two three four") == 1.0


def test_length_adjusted_by_hand() -> None:
    assert length_adjusted(0.6, 1.0) == pytest.approx(0.6)
    assert length_adjusted(0.6, 2.0) == pytest.approx(0.6 * math.exp(-1))
    assert length_adjusted(0.6, 0.5) == pytest.approx(0.6 * math.exp(-1))
    assert length_adjusted(0.6, 0.0) == 0.0
    assert length_adjusted(0.6, math.inf) == 0.0


def test_rouge_l_length_adjusted_prefers_the_reference_it_fits() -> None:
    example = Example("a", "", "", references=("red blue green grey", "red blue"))
    assert score("rouge_l_length_adjusted", example, "red blue") == pytest.approx(1.0)
    doubled = 2 * (1 / 2) * 1 / (1 / 2 + 1) * math.exp(1 - 2)  # precision 1/2, recall 1, twice as long
    alone = Example("a", "", "", references=("red blue",))
    assert score("rouge_l_length_adjusted", alone, "red blue red blue") == pytest.approx(doubled)
    assert score("rouge_l_length_adjusted", alone, "") == 0.0


def test_rouge_of_a_reference_without_latin_letters_is_zero_and_not_an_error() -> None:
    assert rouge_scores("привет", "привет").rouge_l == 0.0
    assert score("rouge_l_length_adjusted", Example("a", "", "", references=("привет",)), "привет") == 0.0
    assert score("chrf", Example("a", "", "", references=("привет",)), "привет") == pytest.approx(1.0)


def test_chrf_is_sacrebleus() -> None:
    from sacrebleu import sentence_chrf

    references = (REFERENCE, "Ivo brings plums.")
    example = Example("a", CHAT, CHAT, references=references)
    for text in TEXTS:
        expected = max(sentence_chrf(text, [reference]).score for reference in references) / 100
        assert score("chrf", example, text) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["rouge_1", "rouge_2", "rouge_l", "rouge_l_length_adjusted", "chrf", "length_ratio"])
def test_overlap_needs_a_reference(name: str) -> None:
    assert math.isnan(score(name, UNLABELLED, "some text"))


# --- length and repetition ------------------------------------------------


def test_length_ratio_and_num_words() -> None:
    example = Example("a", "", "", references=("one two three four", "one two"))
    assert score("length_ratio", example, "five six.") == 1.0
    assert score("length_ratio", example, "five six seven eight nine ten") == 1.5
    assert score("num_words", example, "five, six. 7") == 3.0


def test_terminated_is_the_terminator_and_nothing_else() -> None:
    assert score("terminated", EXAMPLE, "No full stop", terminated=True) == 1.0
    assert score("terminated", EXAMPLE, "A full stop.", terminated=False) == 0.0


def test_repetition_3_by_hand() -> None:
    # abc bca cab abc bca: 5 trigrams, 3 distinct.
    assert score("repetition_3", EXAMPLE, "a b c a b c a") == pytest.approx(2 / 5)
    assert score("repetition_3", EXAMPLE, "a b c d") == 0.0
    assert score("repetition_3", EXAMPLE, "a b") == 0.0
    assert score("repetition_3", EXAMPLE, "") == 0.0


def test_distinct_2_by_hand() -> None:
    assert score("distinct_2", EXAMPLE, "a b a b") == pytest.approx(2 / 3)
    assert score("distinct_2", EXAMPLE, "A b a B") == pytest.approx(2 / 3)
    assert math.isnan(score("distinct_2", EXAMPLE, "alone"))


# --- extractive -------------------------------------------------------------


def plain_fragments(source: Sequence[str], text: Sequence[str]) -> list[int]:
    """By definition: from the left, the longest slice of the text that is a slice of the source."""
    lengths, start = [], 0
    while start < len(text):
        longest = 0
        for length in range(1, len(text) - start + 1):
            piece = list(text[start : start + length])
            if any(list(source[i : i + length]) == piece for i in range(len(source))):
                longest = length
        lengths += [longest] if longest else []
        start += max(longest, 1)
    return lengths


def test_fragments_by_hand() -> None:
    source = ["the", "cat", "sat", "on", "the", "mat"]
    assert fragment_lengths(source, ["the", "cat", "on", "the", "mat", "slept"]) == [2, 3]
    assert fragment_lengths(source, ["dogs", "bark"]) == []
    assert fragment_lengths([], ["dogs"]) == []


def test_fragments_agree_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        source, text = (list(rng.choice(list("abcd"), size=size)) for size in (12, 8))
        assert fragment_lengths(source, text) == plain_fragments(source, text)


def test_coverage_density_and_novel_bigrams() -> None:
    example = Example("a", "the cat sat on the mat", "")
    text = "the cat on the mat slept"
    assert score("coverage", example, text) == pytest.approx(5 / 6)
    assert score("density", example, text) == pytest.approx((4 + 9) / 6)
    # the-cat, on-the, the-mat are known; cat-on and mat-slept are new.
    assert score("novel_bigrams", example, text) == pytest.approx(2 / 5)
    assert score("coverage", example, "dogs") == 0.0
    for name in ("coverage", "density", "novel_bigrams"):
        assert math.isnan(score(name, example, ""))


# --- faithfulness -----------------------------------------------------------


def test_entity_precision_is_against_the_source() -> None:
    assert score("entity_precision", EXAMPLE, "Ivo will fetch Pavel.") == 1.0
    assert score("entity_precision", EXAMPLE, "Ivo will fetch Greta.") == pytest.approx(0.5)
    assert math.isnan(score("entity_precision", EXAMPLE, "they will come."))


def test_a_mention_counts_once() -> None:
    text = "Ivo waits, Ivo sits, and Ivo fetches Greta."
    assert score("entity_precision", EXAMPLE, text) == pytest.approx(0.5)
    assert score("num_entities", EXAMPLE, text) == 2.0


def test_number_precision_ignores_names() -> None:
    assert score("number_precision", EXAMPLE, "Greta brings 12 plums on Monday.") == pytest.approx(0.5)
    assert math.isnan(score("number_precision", EXAMPLE, "Ivo fetches Pavel."))


def test_names_of_lower_cased_outputs_are_known_from_training() -> None:
    assert score("num_entities", EXAMPLE, "ivo will fetch pavel") == 2.0
    assert score("entity_precision", Example("x", "Nadia: hi", ""), "pavel says hi") == 0.0


def test_entity_recall_and_f1() -> None:
    # The reference mentions Ivo, Pavel, 5 pm and Friday.
    text = "Ivo fetches Pavel on Monday."
    assert score("entity_recall", EXAMPLE, text) == pytest.approx(2 / 4)
    assert score("entity_f1", EXAMPLE, text) == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert score("entity_f1", EXAMPLE, REFERENCE) == 1.0


def test_entity_recall_takes_the_best_reference() -> None:
    example = Example("a", CHAT, CHAT, references=(REFERENCE, "Nadia waits.", "it rains."))
    assert score("entity_recall", example, "For once, Nadia waits.") == 1.0


def test_naming_nobody_does_not_pay() -> None:
    assert score("entity_f1", EXAMPLE, "they will meet.") == 0.0
    assert score("entity_f1", EXAMPLE, "") == 0.0


@pytest.mark.parametrize("text", ["", "it rains.", "Well, Pavel is wet at 5 pm."])
def test_entity_f1_is_defined_by_the_example_alone(text: str) -> None:
    assert math.isnan(score("entity_f1", NAMELESS, text))
    assert not math.isnan(score("entity_f1", EXAMPLE, text))


# --- building -----------------------------------------------------------------


def test_every_metric_has_its_name_and_one_float_per_pair() -> None:
    assert [metric.name for metric in METRIC_LIST] == [name for name in METRICS if name != "slot_error_rate"]
    examples = [EXAMPLE, NAMELESS, UNLABELLED]
    completions = [Completion(text) for text in (REFERENCE, "", "Ivo eats 12 plums.")]
    for metric in METRIC_LIST:
        scores = metric.scorer(examples, completions)
        assert scores.shape == (3,)
        assert scores.dtype == np.float64
        one_by_one = [metric.scorer([e], [c])[0] for e, c in zip(examples, completions, strict=True)]
        np.testing.assert_array_equal(scores, one_by_one)
        assert metric.scorer([], []).shape == (0,)
        with pytest.raises(ValueError, match="zip"):
            metric.scorer(examples, completions[:1])


def test_every_metric_with_a_direction_lies_in_0_to_1() -> None:
    for metric in METRIC_LIST:
        if metric.higher_is_better is not None:
            for text in (REFERENCE, "Greta has 3 cats 3 cats 3 cats 3 cats", "Plums"):
                value = metric.scorer([EXAMPLE], [Completion(text)])[0]
                assert math.isnan(value) or 0 <= value <= 1


def test_every_metric_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in METRICS:
        assert f"`{name}`" in page


def test_a_task_adds_its_exact_metrics() -> None:
    metrics = build_metrics(recipe(task="chats"), TRAIN)
    names = [metric.name for metric in metrics]
    assert names[0].startswith("fact_")
    assert set(METRICS) - {"slot_error_rate"} < set(names)
    assert len(names) == len(set(names))


def test_an_unknown_metric_is_told_its_neighbour() -> None:
    with pytest.raises(UserError, match="did you mean 'rouge_l'"):
        build_metrics(recipe({"selection_metrics": ("rouge_ll",)}), TRAIN)
    with pytest.raises(UserError, match="did you mean 'fact_f1'"):
        build_selection(recipe({"selection_metrics": ("fact_f2",)}, task="chats"), TRAIN)
    with pytest.raises(UserError, match="did you mean 'chrf'"):
        build_metrics(recipe({"primary_metrics": ("chrff",)}), TRAIN)


def shouting(context: MetricContext) -> Metric:
    """A user's own metric: share of upper-case letters."""
    return per_example("shouting", lambda _, c: sum(x.isupper() for x in c.text) / max(1, len(c.text)), False)


def test_a_users_own_metric_goes_by_the_recipes_name() -> None:
    name = f"{__name__}:shouting"
    metric = build_metrics(recipe({"primary_metrics": (name,)}), TRAIN)[-1]
    assert metric.name == name
    assert metric.higher_is_better is False
    assert metric.scorer([EXAMPLE], [Completion("ABcd")])[0] == 0.5


# --- selection ------------------------------------------------------------------


def selection(names: tuple[str, ...] | None, examples: Sequence[Example], texts: Sequence[str]) -> NDArray[np.float64]:
    scorer = build_selection(recipe({"selection_metrics": names}), TRAIN)
    return scorer(examples, [Completion(text) for text in texts])


def test_selection_is_by_default_the_mean_of_rouge_l_and_entity_f1() -> None:
    text = "Ivo fetches Pavel on Monday."
    expected = (score("rouge_l", EXAMPLE, text) + score("entity_f1", EXAMPLE, text)) / 2
    assert selection(None, [EXAMPLE], [text])[0] == pytest.approx(expected)


def test_selection_is_by_default_fact_f1_where_facts_are_exact() -> None:
    from homestretch.tasks import build_task

    examples = build_task("chats").generate("validation", 5, 0)
    scorer = build_selection(recipe(task="chats"), TRAIN)
    fact_f1 = next(metric for metric in build_task("chats").metrics() if metric.name == "fact_f1")
    completions = [Completion(example.reference) for example in examples[:3]] + [Completion("hello")] * 2
    np.testing.assert_allclose(scorer(examples, completions), np.nan_to_num(fact_f1.scorer(examples, completions)))


def test_selection_leaves_out_what_the_example_does_not_define() -> None:
    assert selection(None, [NAMELESS], ["it rains."])[0] == pytest.approx(1.0)
    assert selection(None, [NAMELESS], ["it snows."])[0] == pytest.approx(score("rouge_l", NAMELESS, "it snows."))


def test_selection_does_not_reward_dodging() -> None:
    """The reference names somebody; a completion that names nobody has an undefined precision, which counts as 0."""
    assert selection(("entity_precision",), [EXAMPLE], ["they will meet."])[0] == 0.0
    assert selection(("entity_precision",), [NAMELESS], ["it rains."])[0] == 1.0
    assert selection(("entity_precision",), [NAMELESS], [""])[0] == 0.0


def test_selection_turns_what_should_be_low() -> None:
    assert selection(("repetition_3",), [EXAMPLE], ["a b c a b c a"])[0] == pytest.approx(1 - 2 / 5)


def test_selection_is_always_finite() -> None:
    examples = [EXAMPLE, NAMELESS, UNLABELLED] * 2
    texts = ["", "", "", "Ivo.", "x", "Ivo."]
    assert np.isfinite(selection(("rouge_l", "number_precision", "distinct_2"), examples, texts)).all()


def test_selection_refuses_a_descriptive_metric() -> None:
    with pytest.raises(UserError, match=r"selection_metrics.*length_ratio.*descriptive"):
        build_selection(recipe({"selection_metrics": ("length_ratio",)}), TRAIN)
    with pytest.raises(UserError, match=r"selection_metrics.*density.*descriptive"):
        build_metrics(recipe({"selection_metrics": ("density",)}), TRAIN)
