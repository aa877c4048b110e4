"""What the audit is made of, on arrays with known answers, and its probes on classes that cheat."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from audit_helpers import (
    array,
    make_examples,
    other_day,
    rng,
    with_class,
)
from homestretch.rewards.audit import (
    class_auc,
    pooled_spearman,
    rank_correlation,
    reward_spread,
    terminator_drop,
)
from homestretch.rewards.probes import bag_of_words, length_only, source_blind
from homestretch.rewards.reliability import calibration_error, reliability_bins
from homestretch.types import Completion, Judged

# --- AUC ---


def test_auc_counts_ties_as_half():
    result = class_auc(array(1, 2, 2), np.array(["a", "b", "c"]), array(1, 2, 0), np.array(["a", "b", "c"]), rng=rng())
    assert result["auc"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    # pairs in order: 1 beats 0 and ties with 1; 2 ties with 2 and beats 0 and 1, twice
    assert result["pooled_auc"] == pytest.approx((1 + 0.5 + 2 * (0.5 + 1 + 1)) / 9)
    assert result["n"] == 3


def test_easy_documents_do_not_hide_that_a_reward_sees_the_class():
    """A likelihood is far higher for some documents than for others; RL never compares across them."""
    offsets = np.arange(50) * 100.0
    documents = np.array([f"d{i}" for i in range(50)])
    result = class_auc(offsets + 1, documents, offsets, documents, rng=rng())
    assert result["auc"] == 1.0
    assert result["pooled_auc"] == pytest.approx(0.5, abs=0.02)


def test_a_documents_pairs_are_averaged_first():
    result = class_auc(array(1, 1), np.array(["a", "b"]), array(0, 0, 0, 2), np.array(["a", "a", "a", "b"]), rng=rng())
    assert result["auc"] == 0.5


def test_a_constant_reward_is_one_half_without_doubt():
    documents = np.array([f"d{i}" for i in range(10)])
    result = class_auc(np.ones(10), documents, np.ones(10), documents, rng=rng())
    assert (result["low"], result["auc"], result["high"]) == (0.5, 0.5, 0.5)


def test_perfect_separation_has_an_exact_lower_end():
    documents = np.array([f"d{i}" for i in range(40)])
    result = class_auc(np.ones(40), documents, np.zeros(40), documents, rng=rng())
    assert result["auc"] == 1.0
    assert result["high"] == 1.0
    assert result["low"] == pytest.approx(0.025 ** (1 / 40))


def test_random_scores_are_near_one_half_and_the_interval_says_so():
    draws = np.random.default_rng(3)
    documents = np.array([f"d{i}" for i in range(200)])
    result = class_auc(draws.normal(size=200), documents, draws.normal(size=200), documents, rng=rng())
    assert abs(result["auc"] - 0.5) < 0.08
    assert result["low"] < 0.5 < result["high"]


def test_interval_covers_the_true_auc_about_as_often_as_it_says():
    draws = np.random.default_rng(5)
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))  # P(N(1, 1) > N(0, 1))
    documents = np.array([f"d{i}" for i in range(60)])
    covered = 0
    for _ in range(60):
        result = class_auc(draws.normal(1, 1, 60), documents, draws.normal(0, 1, 60), documents, rng=draws)
        covered += result["low"] <= truth <= result["high"]
    assert 51 <= covered <= 60


def test_repeating_a_documents_rows_does_not_narrow_the_interval():
    draws = np.random.default_rng(4)
    documents = np.array([f"d{i}" for i in range(50)])
    positive, negative = draws.normal(0.5, 1, 50), draws.normal(0, 1, 50)
    once = class_auc(positive, documents, negative, documents, rng=rng())
    many = class_auc(
        np.tile(positive, 5), np.tile(documents, 5), np.tile(negative, 5), np.tile(documents, 5), rng=rng()
    )
    assert many["auc"] == pytest.approx(once["auc"])
    assert many["high"] - many["low"] == pytest.approx(once["high"] - once["low"])


def test_documents_with_one_list_only_have_no_pair():
    result = class_auc(array(1, 2), np.array(["a", "b"]), array(1.5), np.array(["c"]), rng=rng())
    assert (result["auc"], result["low"], result["pooled_auc"]) == (None, None, 0.5)
    nothing = class_auc(array(), np.array([], dtype=str), array(1.5), np.array(["c"]), rng=rng())
    assert (nothing["auc"], nothing["pooled_auc"]) == (None, None)


# --- ranks, spread, calibration, terminator ---


def test_rank_correlation_is_the_mean_of_kendalls_tau_over_prompts():
    result = rank_correlation([array(1, 2, 3), array(1, 2, 3)], [array(1, 3, 2), array(10, 20, 30)], rng=rng())
    assert result["tau"] == pytest.approx((1 / 3 + 1) / 2)
    assert (result["n"], result["left_out"]) == (2, 0)


def test_rank_correlation_corrects_for_ties():
    # tau-b of (1, 2, 3) and (1, 1, 2): 2 concordant pairs of 3, one tied in the second: 2 / sqrt(3 * 2)
    result = rank_correlation([array(1, 2, 3)], [array(1, 1, 2)], rng=rng())
    assert result["tau"] == pytest.approx(2 / math.sqrt(6))


def test_constant_prompts_are_left_out_and_nan_pairs_dropped():
    reward = [array(1, 1, 1), array(1, 2, 3), array(1, 2, 3)]
    metric = [array(1, 2, 3), array(1, np.nan, 3), array(np.nan, np.nan, 1)]
    result = rank_correlation(reward, metric, rng=rng())
    assert result["tau"] == 1.0
    assert (result["n"], result["left_out"]) == (1, 2)


def test_rank_correlation_without_any_prompt_is_none():
    result = rank_correlation([array(1, 1)], [array(1, 2)], rng=rng())
    assert result == {"tau": None, "low": None, "high": None, "n": 0, "left_out": 1}


def test_pooled_spearman_sees_what_lies_between_prompts():
    assert pooled_spearman([array(1, 1), array(5, 5)], [array(3, 3), array(9, 9)]) == pytest.approx(1.0)
    assert pooled_spearman([array(1, 1)], [array(3, 4)]) is None


def test_spread_within_and_between_prompts():
    spread = reward_spread([array(0, 2), array(10, 14)])
    assert spread["within_prompt_sd"] == pytest.approx(math.sqrt((2 + 8) / 2))
    assert spread["between_prompt_sd"] == pytest.approx(np.std([1, 12], ddof=1))
    assert reward_spread([array(1)]) == {"within_prompt_sd": None, "between_prompt_sd": None}


def ece(probability, label, weight=None):
    return calibration_error(reliability_bins(probability, label, weight))


def test_calibration_error_of_known_probabilities():
    label = array(0, 0, 0, 1)
    assert ece(np.full(4, 0.25), label) == pytest.approx(0.0)
    assert ece(np.full(4, 0.75), label) == pytest.approx(0.5)
    # ties share a bin although the labels are in order
    assert ece(np.full(30, 0.5), np.repeat([0.0, 1.0], 15)) == pytest.approx(0.0)


def test_reliability_bins_hold_what_was_stated_and_what_came_true():
    probability = np.repeat([0.1, 0.6, 0.9], [4, 2, 2])
    bins = reliability_bins(probability, array(1, 0, 0, 0, 1, 0, 1, 1), np.repeat([1.0, 2.0], [4, 4]))
    assert [(b.predicted, b.observed, b.count) for b in bins] == [
        (pytest.approx(0.1), 0.25, 4), (pytest.approx(0.6), 0.5, 2), (pytest.approx(0.9), 1.0, 2)
    ]  # fmt: skip
    assert [b.weight for b in bins] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_calibration_error_agrees_with_a_plain_loop_over_equal_bins():
    draws = np.random.default_rng(6)
    probability = draws.random(150)
    label = (draws.random(150) < probability**2).astype(float)
    order = np.argsort(probability)
    gaps = [abs(probability[b].mean() - label[b].mean()) for b in np.split(order, 15)]
    assert ece(probability, label) == pytest.approx(np.mean(gaps))


def test_calibration_error_with_weights_is_that_of_repeated_rows():
    draws = np.random.default_rng(8)
    probability = draws.random(40)
    label = (draws.random(40) < 0.5).astype(float)
    weight = draws.integers(1, 4, 40)
    repeated = ece(np.repeat(probability, weight), np.repeat(label, weight))
    assert ece(probability, label, weight.astype(float)) == pytest.approx(repeated)


def test_terminator_drop_scores_each_reference_with_and_without():
    examples = make_examples(3)
    rows = [Judged(e.id, Completion(e.reference), "reference", 1.0) for e in examples]
    rows.append(Judged("d0", Completion("x", terminated=False), "truncation", 0.0))

    def reward(_, completions):
        return np.array([1.0 if c.terminated else 0.25 for c in completions])

    assert terminator_drop(reward, rows, [*examples, examples[0]]) == {"drop": 0.75, "share": 1.0}


# --- probes ---


def test_length_probe_sees_long_and_short_negatives_and_not_matched_ones():
    examples = make_examples(60)
    assert length_only(with_class(examples, "wrong_day", other_day)) == pytest.approx(0.5, abs=0.12)
    assert length_only(with_class(examples, "longer", lambda e: e.reference + " And so on and so on.")) > 0.95

    def shorter_or_longer(example):
        return "Short." if int(example.id[1:]) % 2 else example.reference + " And so on and on and on and on."

    assert length_only(with_class(examples, "both", shorter_or_longer)) > 0.95


def test_length_probe_needs_documents_to_hold_out():
    assert length_only(with_class(make_examples(1), "wrong_day", other_day)) is None


def test_bag_of_words_probe_sees_other_words_and_not_another_order():
    examples = make_examples(60)

    def probe(edit):
        rows = with_class(examples, "class", edit)
        by_id = {example.id: example for example in examples}
        return bag_of_words(rows, [by_id[row.example_id] for row in rows], seed=0)

    def backwards(example):
        return " ".join(reversed(example.reference.split()))

    assert probe(lambda e: e.reference + " Allegedly.") > 0.95
    assert probe(lambda e: examples[(int(e.id[1:]) + 7) % 60].reference) > 0.8, "words that the source does not have"
    pairs_are_seen = probe(backwards)
    assert pairs_are_seen > 0.6, "word pairs of the source"
    assert probe(lambda e: e.reference) == pytest.approx(0.5, abs=0.01)


def test_bag_of_words_probe_needs_documents_to_hold_out_and_takes_empty_texts():
    examples = make_examples(20)
    one = with_class(examples[:1], "wrong_day", other_day)
    assert bag_of_words(one, [examples[0]] * 2, seed=0) is None
    rows = with_class(examples, "empty", lambda _: "")
    assert bag_of_words(rows, [e for e in examples for _ in range(2)], seed=0) > 0.95


def test_source_blind_probe_catches_a_fingerprint_and_not_an_honest_swap():
    train, held_out = make_examples(200, start=1000), make_examples(80)

    def marked(example):
        return other_day(example).replace(" on ", " reportedly on ")

    honest = source_blind(
        with_class(train, "wrong_day", other_day), with_class(held_out, "wrong_day", other_day), seed=0
    )
    caught = source_blind(with_class(train, "marked", marked), with_class(held_out, "marked", marked), seed=0)
    assert honest["wrong_day"] < 0.65
    assert caught["marked"] > 0.95


def test_source_blind_probe_of_a_class_absent_from_train_is_none():
    train, held_out = make_examples(10, start=1000), make_examples(5)
    rows = with_class(train, "wrong_day", other_day)
    assert source_blind(rows, with_class(held_out, "unseen", other_day), seed=0) == {"unseen": None}


def test_length_probe_counts_words_where_no_spaces_part_them():
    examples = [
        replace(e, references=("".join("猫犬鳥魚馬"[(int(e.id[1:]) + i) % 5] for i in range(12)),))
        for e in make_examples(60)
    ]
    rows = with_class(examples, "longer", lambda e: e.reference * 3)
    assert length_only(rows) > 0.95
