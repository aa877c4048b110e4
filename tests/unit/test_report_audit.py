"""The reward audit in the report: the same warnings as are printed."""

from __future__ import annotations

from homestretch.audit_findings import WARNING, audit_lines
from homestretch.report.audit import audit_view
from report_run import MODES, fake_audit


def test_audit_warns_exactly_where_it_is_bad() -> None:
    view = audit_view(fake_audit())
    bad = {row.name for row in (*view.classes, *view.others) if row.is_bad}
    assert bad == {
        "wrong_speaker", "Length-only probe", "Source-blind probe, wrong_entity", "Rank correlation with rouge_l"
    }  # fmt: skip
    assert len(view.warnings) == len(bad)
    assert view.classes[0].name == "wrong_speaker"
    assert view.setting == "300 held-out documents, 8 SFT samples per prompt"


def test_audit_tells_a_saturated_reward() -> None:
    audit = {"classes": {mode: {"auc": 0.999, "low": 0.99, "high": 1.0, "n": 9} for mode in MODES}}
    assert any("almost perfectly" in warning for warning in audit_view(audit).warnings)
    assert not audit_view({"classes": {}}).warnings


def test_audit_warns_of_what_the_printed_audit_warns_of() -> None:
    audit = fake_audit() | {"n_prompts": 40, "terminator": {"drop": -0.1}, "calibration": {"ece": 0.2}}
    printed = [line.partition(": ")[2] for line in audit_lines(audit) if line.startswith(WARNING)]
    shown = audit_view(audit).warnings
    assert len(shown) == 6
    assert [text.split(": ")[1:] for text in shown] == [text.split(": ")[1:] for text in printed]


def test_audit_shows_the_gate_the_matrix_and_what_is_disputed() -> None:
    view = audit_view(fake_audit())
    assert view.gate == "reward gate: warn: wrong_speaker at 0.62: the reward cannot see it; and 1 more"
    assert view.matrix[0].left_out == "nothing (the reward)"
    place = view.matrix_classes.index("wrong_speaker")
    assert [row.cells[place] for row in view.matrix] == [("0.62", False), ("0.51", True)]
    assert view.overrated[0].text == "Ada likes Ada."
    assert view.overrated[0].places == "place 1 of 8 by the reward (1.25), 7.5 by the held-out score (0.10)"
    assert "0.10 0.20, 0.90 0.80" in view.reliability


def test_an_audit_of_before_has_none_of_it() -> None:
    view = audit_view({"classes": {}, "calibration": {"ece": 0.1, "temperature": 1.0}})
    assert (view.gate, view.matrix, view.reliability, view.overrated) == ("", (), "", ())
