"""The report's curves and charts: what is drawn, the same bytes every time."""

from __future__ import annotations

import re

import numpy as np

from homestretch.report.charts import Interval, Line, interval_chart, line_chart
from homestretch.report.curves import PLANS, curves
from report_run import fake_metrics


def test_curves_draw_what_is_there_and_name_the_rest() -> None:
    drawn, missing = curves(fake_metrics(np.random.default_rng(0)))
    always = [plan.title for plan in PLANS if not plan.is_optional]
    assert ([curve.title for curve in drawn], missing) == (always, []), "what not every run has is not missing"
    drawn, missing = curves([{"stage": "rl", "step": 1, "rl/kl": 0.5}, {"stage": "rl", "step": 2, "rl/kl": None}])
    assert [curve.title for curve in drawn] == ["KL to the SFT model"]
    assert drawn[0].summary == "0.5"
    assert missing == [title for title in always if title != "KL to the SFT model"]


def test_alarms_are_marked_where_score_and_held_out_score_are_drawn() -> None:
    rows = fake_metrics(np.random.default_rng(0))
    plain, marked = curves(rows)[0], curves(rows, [20])[0]
    differing = [a.title for a, b in zip(plain, marked, strict=True) if a.svg != b.svg]
    assert differing == ["RL score", "Held-out score"]
    assert "var(--bad)" in next(curve.svg for curve in marked if curve.title == "RL score")


def test_charts_are_deterministic_and_follow_the_page() -> None:
    line = Line("a & <b>", tuple(range(1000)), tuple(np.sin(np.arange(1000) / 50).tolist()))
    svg = line_chart("one", [line], x_label="$step$ <i>", description='says "hi" & <b>')
    assert svg == line_chart("one", [line], x_label="$step$ <i>", description='says "hi" & <b>')
    assert "var(--series-1)" in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", svg)
    assert "<i>" not in svg
    assert "<b>" not in svg
    assert "$step$ &lt;i&gt;" in svg
    assert "date" not in svg.lower()
    row = [Interval("</text><script>", 0.7, 0.6, 0.8), Interval("no interval", 0.2)]
    assert "<script" not in interval_chart("two", row, marks={"chance": 0.5}, description="d")
