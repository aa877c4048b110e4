"""The report's tables of arms, failures and contrasts, and how it writes numbers."""

from __future__ import annotations

import numpy as np

from homestretch.report.formatting import clean, duration, interval, number, p_value, percent, signed
from homestretch.report.tables import arms_table, contrast_rows, effect_in_words, failures_table
from report_run import ARMS, UP, contrast, fake_samples, fake_scores


def test_arms_table_marks_the_best_by_direction() -> None:
    scores = fake_scores(fake_samples(30, np.random.default_rng(1)))
    table = arms_table(scores)
    assert table.columns == (*ARMS, "references")
    assert [row.name for row in table.rows][:2] == ["rouge_l", "fact_f1"]
    rows = {row.name: row for row in table.rows}
    for metric, choose in (("rouge_l", max), ("repetition_4", min)):
        means = [scores["arms"][arm]["metrics"][metric]["mean"] for arm in ARMS]
        assert [cell.is_best for cell in rows[metric].cells[:4]] == [mean == choose(means) for mean in means]
    assert not any(cell.is_best for cell in rows["length_ratio"].cells)
    assert [row.cells[4].text for row in table.rows][:3] == ["–", "0.930", "1.000"]
    assert [cell.text for cell in table.rows[-1].cells[:4]] == [
        str(scores["arms"][a]["num_unterminated"]) for a in ARMS
    ]


def test_failures_table_bars_are_the_rates() -> None:
    scores = fake_scores(fake_samples(30, np.random.default_rng(1)))
    assert failures_table(scores).columns == (*ARMS, "references")
    for row in failures_table(scores).rows:
        assert (row.cells[4].text, row.cells[4].is_best) == ("2.0 %", False)
        rates = [scores["arms"][arm]["failures"][row.name]["rate"] for arm in ARMS]
        assert [cell.share for cell in row.cells[:4]] == rates
        assert [cell.text for cell in row.cells[:4]] == [f"{100 * rate:.1f} %" for rate in rates]


def test_contrast_rows_judge_by_direction() -> None:
    rows = [contrast("C1", "rouge_l", *UP), contrast("C1", "repetition_4", *UP, primary=False)]
    scores = fake_scores(fake_samples(10, np.random.default_rng(1))) | {"contrasts": rows[::-1]}
    first, second = contrast_rows(scores, [])
    assert (first.metric, first.outcome, first.is_primary) == ("rouge_l", "better", True)
    assert (second.metric, second.outcome) == ("repetition_4", "worse")
    assert (first.difference, first.interval, first.p_holm) == ("+0.041", "[0.021, 0.061]", ".003")


def test_effect_in_words_counts_pairs() -> None:
    pairs = [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (None, 0.0)]
    samples = [{"arms": {"a": {"metrics": {"m": x}}, "b": {"metrics": {"m": y}}}} for x, y in pairs]
    row = {"a": "a", "b": "b"}
    differences = np.array([1.0, 1.0, -1.0, 0.0])
    d = differences.mean() / differences.std(ddof=1)
    assert effect_in_words(row, "m", True, samples) == f"small (d {d:+.2f}); better on 50 %, worse on 25 %"
    assert "better on 25 %, worse on 50 %" in effect_in_words(row, "m", False, samples)
    assert "higher on 50 %, lower on 25 %" in effect_in_words(row, "m", None, samples)
    assert effect_in_words({"a": "a", "b": "c"}, "m", True, samples) == ""
    tested = row | {"effect_size": -0.7, "p_equivalence": 0.012}
    assert effect_in_words(tested, "m", True, []) == "large (d −0.70); equivalent within the margin (p .012)"
    assert effect_in_words(row | {"effect_size": None, "p_equivalence": 0.4}, "m", True, []) == ""


def test_formatting() -> None:
    assert [p_value(p) for p in (0.0004, 0.042, 1.0, None, float("nan"))] == ["< .001", ".042", "1", "–", "–"]
    assert (number(-0.5), signed(0.04), percent(0.123)) == ("−0.500", "+0.040", "12.3 %")
    assert interval({"low": 0.1, "high": 0.25}) == "[0.100, 0.250]"
    assert interval({"low": None, "high": 1}) == ""
    assert [duration(s) for s in (4.26, 65, 3720, None)] == ["4.3 s", "1 min 5 s", "1 h 2 min", "–"]
    assert clean("a\tb\r\nc\x00\x1b\x7f\x9b\u202e\ud800") == "a\tb\nc␀␛␡���"
