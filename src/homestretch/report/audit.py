"""The reward audit as the report shows it: its findings as tables, the bad ones again on top, and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.audit_findings import MIN_AUC, AuditFinding, class_findings, other_findings
from homestretch.report.charts import Interval, interval_chart
from homestretch.report.formatting import clean, interval, is_number, number


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One measurement of the audit."""

    name: str
    value: str
    interval: str
    n: str
    meaning: str
    is_bad: bool


@dataclass(frozen=True, slots=True)
class AuditView:
    """The audit as the report shows it."""

    classes: tuple[AuditRow, ...]
    others: tuple[AuditRow, ...]
    warnings: tuple[str, ...]
    chart: str
    setting: str
    notes: tuple[str, ...]
    """What could not be measured, and why."""


def audit_view(audit: Mapping[str, Any]) -> AuditView:
    """The audit's tables, chart and warnings, from reward/audit.json."""
    found = class_findings(audit)
    classes, others = tuple(map(_row, found)), tuple(map(_row, other_findings(audit)))
    setting = ", ".join(
        f"{audit[key]} {words}"
        for key, words in (("n_documents", "held-out documents"), ("samples_per_prompt", "SFT samples per prompt"))
        if is_number(audit.get(key))
    )
    return AuditView(
        classes=classes,
        others=others,
        warnings=tuple(f"{row.name} ({row.value}): {row.meaning}" for row in (*classes, *others) if row.is_bad),
        chart=_chart(found),
        setting=setting,
        notes=tuple(map(clean, audit.get("notes") or ())),
    )


def _row(finding: AuditFinding) -> AuditRow:
    return AuditRow(
        name=clean(finding.name),
        value=number(finding.value),
        interval=interval({"low": finding.low, "high": finding.high}),
        n="" if finding.n is None else str(finding.n),
        meaning=clean(finding.meaning),
        is_bad=finding.is_bad,
    )


def _chart(found: Sequence[AuditFinding]) -> str:
    rows = [Interval(clean(f.name), f.value, f.low, f.high) for f in found if f.value is not None]
    if not rows:
        return ""
    listed = ", ".join(f"{row.label} {row.value:.2f}" for row in rows)
    return interval_chart(
        "audit",
        rows,
        marks={"chance": 0.5, "not seen below": MIN_AUC},
        description=f"AUC per failure class with confidence intervals, worst first: {listed}",
    )
