"""The reward audit as the report shows it: its findings as tables, the bad ones again on top, and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.audit_findings import AuditFinding, class_findings, gate_line, other_findings, thresholds
from homestretch.report.charts import Interval, Point, interval_chart, reliability_chart
from homestretch.report.formatting import DASH, clean, interval, is_number, number


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
class LeftOutRow:
    """One reward of the leave-out matrix."""

    left_out: str
    cells: tuple[tuple[str, bool], ...]
    """AUC per class, and whether that class was left out."""


@dataclass(frozen=True, slots=True)
class DisputedSample:
    """A sample that the reward and the held-out score rank far apart."""

    example_id: str
    text: str
    terminated: bool
    places: str


@dataclass(frozen=True, slots=True)
class AuditView:
    """The audit as the report shows it."""

    classes: tuple[AuditRow, ...]
    others: tuple[AuditRow, ...]
    warnings: tuple[str, ...]
    chart: str
    reliability: str
    """The calibration's chart."""
    gate: str
    """The gate's decision as one line."""
    matrix_classes: tuple[str, ...]
    matrix: tuple[LeftOutRow, ...]
    overrated: tuple[DisputedSample, ...]
    underrated: tuple[DisputedSample, ...]
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
        chart=_chart(found, thresholds(audit).min_class_auc),
        reliability=_reliability(audit),
        gate=clean(gate_line(audit["gate"])) if audit.get("gate") else "",
        matrix_classes=tuple(map(clean, _matrix_classes(audit))),
        matrix=tuple(_left_out(row, _matrix_classes(audit)) for row in audit.get("leave_one_out") or ()),
        overrated=tuple(map(_disputed, audit.get("overrated") or ())),
        underrated=tuple(map(_disputed, audit.get("underrated") or ())),
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


def _matrix_classes(audit: Mapping[str, Any]) -> list[str]:
    return sorted({mode for row in audit.get("leave_one_out") or () for mode in row["auc"]})


def _left_out(row: Mapping[str, Any], classes: Sequence[str]) -> LeftOutRow:
    return LeftOutRow(
        left_out=clean(", ".join(row["left_out"])) or "nothing (the reward)",
        cells=tuple((number(row["auc"].get(mode), 2), mode in row["left_out"]) for mode in classes),
    )


def _disputed(row: Mapping[str, Any]) -> DisputedSample:
    ranks = (f"{row[key]:g}" if is_number(row[key]) else DASH for key in ("reward_rank", "score_rank"))
    reward_rank, score_rank = ranks
    return DisputedSample(
        example_id=clean(row["example_id"]),
        text=clean(row["text"]),
        terminated=bool(row["terminated"]),
        places=f"place {reward_rank} of {row['of']} by the reward ({number(row['reward'], 2)}), "
        f"{score_rank} by the held-out score ({number(row['score'], 2)})",
    )


def _reliability(audit: Mapping[str, Any]) -> str:
    bins = (audit.get("calibration") or {}).get("reliability") or ()
    if not bins:
        return ""
    listed = ", ".join(f"{item['predicted']:.2f} {item['observed']:.2f}" for item in bins)
    return reliability_chart(
        "reliability",
        [Point(item["predicted"], item["observed"], item["weight"]) for item in bins],
        description=f"Stated probability and observed share per bin: {listed}",
    )


def _chart(found: Sequence[AuditFinding], min_auc: float) -> str:
    rows = [Interval(clean(f.name), f.value, f.low, f.high) for f in found if f.value is not None]
    if not rows:
        return ""
    listed = ", ".join(f"{row.label} {row.value:.2f}" for row in rows)
    return interval_chart(
        "audit",
        rows,
        marks={"chance": 0.5, "not seen below": min_auc},
        description=f"AUC per failure class with confidence intervals, worst first: {listed}",
    )
