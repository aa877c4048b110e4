"""The reward audit on arrays with known answers, and on rewards and classes that cheat."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from conftest import tiny_config
from homestretch.audit_findings import WARNING, audit_lines
from homestretch.rewards import leave_out
from homestretch.rewards.audit import (
    LEAVE_OUT_IS_OFF,
    AuditSamples,
    audit,
    class_auc,
    class_aucs,
    pooled_spearman,
    rank_correlation,
    reward_spread,
    terminator_drop,
)
from homestretch.rewards.extremes import extremes
from homestretch.rewards.leave_out import partition, with_left_out
from homestretch.rewards.probes import bag_of_words, length_only, source_blind
from homestretch.rewards.reliability import calibration_error, reliability_bins
from homestretch.rewards.training import RewardData
from homestretch.types import Completion, Example, Judged, Metric, UserError

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
PLACES = ("the library", "the old harbour", "a bakery", "the gym", "the museum")


def array(*values):
    return np.array(values, dtype=np.float64)


def rng():
    return np.random.default_rng(0)


def make_examples(n, start=0):
    """Documents that say who meets whom where on which day; every day is as likely."""
    draws = np.random.default_rng([7, start])
    examples = []
    for i in range(start, start + n):
        a, b = draws.choice(PEOPLE, size=2, replace=False)
        day, place = draws.choice(DAYS), draws.choice(PLACES)
        source = f"{a}: shall we meet at {place} on {day}?\n{b}: yes, fine."
        examples.append(Example(f"d{i}", source, source, references=(f"{a} and {b} meet at {place} on {day}.",)))
    return examples


def with_class(examples, mode, edit):
    """A reference and one edited negative per document."""
    rows = []
    for example in examples:
        rows.append(Judged(example.id, Completion(example.reference), "reference", 1.0))
        rows.append(Judged(example.id, Completion(edit(example)), mode, 0.0))
    return rows


def other_day(example):
    draws = np.random.default_rng([11, int(example.id[1:])])
    day = next(day for day in DAYS if day in example.reference)
    return example.reference.replace(day, str(draws.choice([d for d in DAYS if d != day])))


def oracle(examples, completions):
    """1 if the day is the source's, minus 1 without a terminator."""
    scores = [
        float(any(day in e.source and day in c.text for day in DAYS)) - (not c.terminated)
        for e, c in zip(examples, completions, strict=True)
    ]
    return np.array(scores)


def run_audit(reward, *, n=60, edit=other_day, mode="wrong_day", metrics=(), samples=None, **extra):
    examples, train = make_examples(n), make_examples(150, start=1000)
    if samples is None:
        samples = [[Completion(e.reference), Completion(other_day(e)), Completion("Nothing.")] for e in examples]
    rows, train_rows = with_class(examples, mode, edit), with_class(train, mode, edit)
    return audit_of(reward, examples, rows, train_rows, samples, metrics=metrics, **extra)


def audit_of(reward, examples, rows, train_rows, samples=(), metrics=(), **extra):
    return audit(
        reward,
        examples=examples,
        judged=rows,
        train_judged=train_rows,
        samples=AuditSamples(examples[: len(samples)], samples, [group[0] for group in samples]),
        metrics=metrics,
        temperature=1.0,
        seed=0,
        **extra,
    )


def warnings_of(result):
    return [line for line in audit_lines(result) if line.startswith(WARNING)]


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


# --- the whole ---


def test_a_perfect_reward_passes_without_a_warning():
    truth = Metric("day_is_right", oracle)
    result = run_audit(oracle, metrics=[truth], logits=lambda e, c: 8 * oracle(e, c) - 4)
    assert result["classes"]["wrong_day"]["auc"] == 1.0
    assert result["within_prompt_rank_correlation"]["day_is_right"]["tau"] == pytest.approx(1.0)
    assert result["terminator"]["drop"] == 1.0
    assert result["calibration"]["ece"] < 0.05
    assert result["notes"] == ["edited references: none among the validation rows", LEAVE_OUT_IS_OFF]
    easy = ("almost perfectly", "counting words")  # the other day is not in the source
    assert [line for line in warnings_of(result) if not any(words in line for words in easy)] == []


def test_a_random_reward_is_told_so():
    draws = np.random.default_rng(1)
    result = run_audit(lambda e, c: draws.normal(size=len(c)), metrics=[Metric("day_is_right", oracle)])
    assert abs(result["classes"]["wrong_day"]["auc"] - 0.5) < 0.15
    assert any("wrong_day" in line and "cannot see this failure" in line for line in warnings_of(result))
    assert any("day_is_right" in line and "not shown to rank" in line for line in warnings_of(result))


def test_a_reward_that_is_length_is_caught():
    samples = [[Completion(" ".join(["word"] * k)) for k in (3, 9, 5, 12)] for _ in range(20)]
    result = run_audit(lambda _, c: np.array([float(len(x.text)) for x in c]), samples=samples)
    assert result["length"]["tau"] == pytest.approx(1.0)
    assert any("follows length: longer" in line for line in warnings_of(result))
    assert any("missing terminator is not punished" in line for line in warnings_of(result))


def test_a_saturated_reward_is_told_so():
    samples = [[Completion("a b"), Completion("c d")] for _ in range(20)]

    def by_document(examples, completions):
        return np.array(
            [float(e.id[1:]) + 0.01 * (c.text == "a b") for e, c in zip(examples, completions, strict=True)]
        )

    assert any("saturated" in line for line in warnings_of(run_audit(by_document, samples=samples)))


def test_a_class_with_a_fingerprint_is_warned_of_unless_it_is_about_form():
    def marked(example):
        return other_day(example).replace(" on ", " reportedly on ")

    fact, form = run_audit(oracle, edit=marked), run_audit(oracle, edit=marked, mode="shuffled")
    assert any("leave a fingerprint" in line for line in warnings_of(fact))
    assert not any("leave a fingerprint" in line for line in warnings_of(form))


def test_a_metric_where_less_is_better_is_turned_round_and_one_without_direction_left_out():
    worse = Metric("errors", lambda e, c: -oracle(e, c), higher_is_better=False)
    neutral = Metric("length_ratio", oracle, higher_is_better=None)
    result = run_audit(oracle, metrics=[worse, neutral])
    assert result["within_prompt_rank_correlation"]["errors"]["tau"] == pytest.approx(1.0)
    assert set(result["within_prompt_rank_correlation"]) == {"errors"}


def test_a_reward_that_ranks_against_a_metric_is_told_so():
    result = run_audit(lambda e, c: -oracle(e, c), metrics=[Metric("day_is_right", oracle)])
    assert any("day_is_right" in line and "ranks against" in line for line in warnings_of(result))


def test_being_edited_is_measured_apart_from_being_wrong():
    examples = make_examples(30)
    rows = with_class(examples, "wrong_day", other_day)
    rows += [Judged(e.id, Completion(e.reference.replace(" and ", " & ")), "edited_reference", 1.0) for e in examples]
    result = audit_of(lambda _, c: np.array([float("&" not in x.text) for x in c]), examples, rows, rows)
    assert "edited_reference" not in result["classes"]
    assert result["probes"]["edited_reference"] == 1.0
    assert any("the reward sees the editing" in line for line in warnings_of(result))


def test_what_is_undefined_is_null_with_a_reason_and_never_nan():
    def broken(examples, completions):
        return np.array(
            [np.nan if e.id == "d0" else float(len(c.text)) for e, c in zip(examples, completions, strict=True)]
        )

    nowhere = Metric("undefined", lambda e, c: np.full(len(c), np.nan))
    result = run_audit(broken, metrics=[nowhere], n=6, samples=[[Completion("a")], [Completion("b")]])
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    assert result["within_prompt_rank_correlation"]["undefined"]["tau"] is None
    assert any("rank correlation with undefined" in note for note in result["notes"])
    assert any("no finite reward" in note for note in result["notes"])
    assert all("nan" not in line.lower().split() for line in audit_lines(result))


def test_a_class_without_a_held_out_example_is_not_silently_missing():
    examples, train = make_examples(6), make_examples(20, start=1000)
    train_rows = [*with_class(train, "wrong_day", other_day), *with_class(train, "rare", other_day)]
    result = audit_of(oracle, examples, with_class(examples, "wrong_day", other_day), train_rows)
    rare = result["classes"]["rare"]
    assert rare["n"] == 0
    assert {rare[key] for key in ("auc", "low", "high", "pooled_auc", "leave_one_out_auc")} == {None}
    assert "class rare: none of it on the held-out documents" in result["notes"]
    assert "class wrong_day" not in " ".join(result["notes"])


def test_a_row_of_an_unknown_document_is_a_user_error():
    rows = [Judged("elsewhere", Completion("x"), "reference", 1.0)]
    with pytest.raises(UserError, match="elsewhere"):
        audit_of(oracle, make_examples(1), rows, rows)


def test_the_same_seed_gives_the_same_audit():
    metrics = [Metric("day_is_right", oracle)]
    assert run_audit(oracle, metrics=metrics) == run_audit(oracle, metrics=metrics)


# --- where reward and held-out score disagree ---


def texts(*names):
    return [Completion(name) for name in names]


def test_extremes_are_by_rank_within_the_prompt():
    examples = make_examples(3)
    samples = [texts("a", "b", "c"), texts("d", "e", "f"), texts("g", "h", "i")]
    reward = [array(3, 2, 1), array(103, 102, 101), array(1, 2, 3)]
    score = [array(0.1, 0.2, 0.3), array(0.2, 0.3, 0.1), array(0.1, 0.2, 0.3)]
    found = extremes(examples, samples, reward, score)
    assert [row["text"] for row in found["overrated"]] == ["a", "d"], "the third prompt is ranked as it should be"
    assert found["overrated"][0] == {
        "example_id": "d0", "text": "a", "terminated": True, "reward": 3.0, "score": 0.1,
        "reward_rank": 1.0, "score_rank": 3.0, "of": 3,
    }  # fmt: skip
    assert [row["text"] for row in found["underrated"]] == ["c", "e"]


def test_extremes_leave_out_what_has_no_rank_and_count_a_text_once():
    examples = make_examples(3)
    samples = [texts("a", "a", "b"), texts("c", "d"), texts("e", "f", "g")]
    reward = [array(2, 2, 1), array(1, 1), array(3, 2, np.nan)]
    score = [array(0, 0, 1), array(0, 1), array(1, 2, 3)]
    found = extremes(examples, samples, reward, score)
    assert [(row["text"], row["of"]) for row in found["overrated"]] == [("a", 2), ("e", 2)]


def test_at_most_ten_extremes_the_worst_first():
    examples = make_examples(15)
    samples = [texts(*"abcdef"[: 2 + i % 4]) for i in range(15)]
    reward = [np.arange(len(group), dtype=float) for group in samples]
    found = extremes(examples, samples, reward, [-r for r in reward])
    assert [row["of"] for row in found["overrated"]] == [5] * 3 + [4] * 4 + [3] * 3
    assert all(row["reward_rank"] == 1 for row in found["overrated"])


def test_the_audit_names_its_extremes_and_ranks_by_the_selection_score():
    result = run_audit(lambda e, c: -oracle(e, c), selection=oracle)
    assert result["within_prompt_rank_correlation"]["selection"]["tau"] == pytest.approx(-1.0)
    assert len(result["overrated"]) == len(result["underrated"]) == 10
    assert {row["score"] for row in result["underrated"]} == {1.0}
    assert any("selection score" in line and "ranks against" in line for line in warnings_of(result))


def test_a_class_is_told_from_true_edits_as_well():
    """A reward that likes the reference's own words best sees every edit, and no false one more than a true one."""
    examples, train = make_examples(30), make_examples(60, start=1000)
    edits = [Judged(e.id, Completion(e.reference + " Indeed."), "edited_reference", 1.0) for e in examples]
    rows = [*with_class(examples, "wrong_day", other_day), *edits]

    def own_words(asked, answers):
        return np.array([float(c.text == e.reference) for e, c in zip(asked, answers, strict=True)])

    found = audit_of(own_words, examples, rows, with_class(train, "wrong_day", other_day))["classes"]["wrong_day"]
    assert (found["auc"], found["over_edits"]["auc"], found["over_edits"]["n"]) == (1.0, 0.5, 30)
    early = {e.id for e in examples[:20]}
    apart = [r for r in rows if r.mode == "reference" or (r.mode == "wrong_day") == (r.example_id in early)]
    result = audit_of(own_words, examples, apart, with_class(train, "wrong_day", other_day))
    assert result["classes"]["wrong_day"]["over_edits"] == {"auc": None, "low": None, "high": None, "n": 0}
    assert "over edits, wrong_day: no document has both such a failure and an edited reference" in result["notes"]


def test_the_audit_compares_best_of_n_with_greedy_decoding():
    """The samples begin with the reference, and so does greedy decoding here: no sample could be better."""
    good = run_audit(oracle, selection=oracle)
    assert good["best_of_n"] == {
        "greedy": 1.0, "mean": pytest.approx(1 / 3), "best": 1.0, "oracle": 1.0, "difference": 0.0, "low": 0.0,
        "high": 0.0, "n": 60,
    }  # fmt: skip
    assert not any("greedy decoding" in line for line in warnings_of(good))  # says little, either way
    assert run_audit(oracle)["best_of_n"] is None  # no selection score, nothing to compare by


# --- classes left out ---


def test_every_class_is_left_out_once_and_like_classes_apart():
    swaps = ("wrong_entity", "wrong_number", "wrong_date", "wrong_speaker")
    modes = [*swaps, "shuffled", "my_own", "on_policy", "truncation"]
    folds = partition(modes, 4)
    assert sorted(mode for fold in folds for mode in fold) == sorted(modes)
    assert all(len(set(fold) & set(swaps)) == 1 for fold in folds)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert sorted(partition(modes, 99)) == sorted((mode,) for mode in modes)
    assert partition([], 4) == []


def test_class_aucs_are_those_of_the_audit():
    examples = make_examples(30)
    rows = with_class(examples, "wrong_day", other_day)
    scores = np.random.default_rng(2).normal(size=len(rows))
    scores[0] = np.nan
    result = audit_of(lambda e, c: scores if len(c) == len(rows) else np.zeros(len(c)), examples, rows, rows)
    assert class_aucs(rows, scores)["wrong_day"] == pytest.approx(result["classes"]["wrong_day"]["auc"])


def test_nothing_of_a_left_out_class_is_trained_on(monkeypatch, tmp_path):
    examples = make_examples(8)
    modes = ("truncation", "on_policy", "on_policy_positive", "edited_reference")
    rows = [
        Judged(e.id, Completion(f"{mode} {e.id}"), mode, float(mode not in ("truncation", "on_policy")))
        for e in examples
        for mode in ("reference", *modes)
    ]
    seen = []

    class Constant:
        def raw(self, _, completions):
            return np.array([float("reference" in c.text) for c in completions])

    def train_reward(config, data, **options):
        seen.append([{row.mode for row in part} for part in (data.train, data.validation)])
        assert options["max_steps"] == 5
        return Constant(), 5

    monkeypatch.setattr(leave_out, "train_reward", train_reward)
    config = tiny_config(reward={"audit": {"leave_out": {"folds": 9, "max_steps": 5}}})
    data = RewardData(examples, rows, examples, rows)
    places = {"sft_dir": tmp_path, "best": tmp_path / "best"}
    matrix = leave_out.leave_out_matrix(config, data, Constant().raw, **places)
    assert [row["left_out"] for row in matrix] == [[], ["truncation"], ["on_policy"]]
    assert seen[0] == [{"reference", "edited_reference", "on_policy", "on_policy_positive"}] * 2
    assert seen[1] == [{"reference", "edited_reference", "truncation"}] * 2, (
        "the good among own samples goes with the bad"
    )
    assert matrix[1]["auc"] == {"on_policy": 1.0, "truncation": 1.0}, "every class is asked, also the one left out"
    only = RewardData(examples, [row for row in rows if row.mode != "on_policy"], examples, rows)
    assert leave_out.leave_out_matrix(config, only, Constant().raw, **places) == []


def test_what_was_left_out_is_read_off_its_own_row():
    result = run_audit(oracle)
    matrix = [{"left_out": [], "auc": {"wrong_day": 0.9}}, {"left_out": ["wrong_day"], "auc": {"wrong_day": 0.3}}]
    found = with_left_out(result, matrix)
    assert found["classes"]["wrong_day"]["leave_one_out_auc"] == 0.3
    assert found["leave_one_out"] == matrix
    assert not [note for note in found["notes"] if "leave-one-out" in note]
    assert LEAVE_OUT_IS_OFF in result["notes"]
    assert any("Left out of training, wrong_day" in line for line in warnings_of(found))
    assert with_left_out(result, [])["notes"][-1] == "leave-one-out: only one class was trained on"
