"""The reward audit in words: what each number means, and a warning where it is bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homestretch.report.charts import Interval, interval_chart
from homestretch.report.formatting import clean, interval, is_number, number

MIN_AUC = 0.7
MAX_LENGTH_ONLY = 0.7
MAX_SOURCE_BLIND = 0.6
MIN_TAU = 0.1
MAX_LENGTH_TAU = 0.5
MAX_EDITED = 0.7
SATURATED_AUC = 0.99

_FORM = frozenset({"random_tokens", "shuffled", "repetition", "echo", "truncation", "run_on", "on_policy"})
"""Classes that are rightly seen without reading the source; any other, a plug-in's too, is about content."""


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


def is_factual(mode: str) -> bool:
    """Whether the mode should be told only by reading the source."""
    return mode not in _FORM


def audit_view(audit: Mapping[str, Any]) -> AuditView:
    """The audit's tables, chart and warnings, from reward/audit.json."""
    classes = audit.get("classes", {})
    class_rows = tuple(_class_row(mode, cell) for mode, cell in sorted(classes.items(), key=_worst_first))
    others = (*_probes(audit), *_ranks(audit), *_spread(audit), *_length(audit), *_calibration(audit))
    warnings = [f"{row.name}: {row.meaning}" for row in (*class_rows, *others) if row.is_bad]
    aucs = [cell["auc"] for cell in classes.values() if is_number(cell.get("auc"))]
    if aucs and min(aucs) > SATURATED_AUC:
        warnings.append(
            "Every class is told apart almost perfectly. That is easy to get with degenerate negatives and says little "
            "about candidates that all read well; look at the rank correlation and the spread."
        )
    setting = ", ".join(
        f"{audit[key]} {words}"
        for key, words in (("n_documents", "held-out documents"), ("samples_per_prompt", "SFT samples per prompt"))
        if is_number(audit.get(key))
    )
    return AuditView(
        class_rows, others, tuple(warnings), _chart(classes), setting, tuple(map(clean, audit.get("notes") or ()))
    )


def _worst_first(item: tuple[str, Mapping[str, Any]]) -> tuple[float, str]:
    auc = item[1].get("auc")
    return (auc if is_number(auc) else 2.0, item[0])


def _class_row(mode: str, cell: Mapping[str, Any]) -> AuditRow:
    auc = cell.get("auc")
    bad = is_number(auc) and auc < MIN_AUC
    if not is_number(auc):
        meaning = "could not be measured (no examples of the class)."
    elif bad:
        meaning = f"the reward barely sees this failure (AUC {number(auc, 2)}); RL will not unlearn it."
    elif auc < 0.9:
        meaning = "seen, with errors."
    else:
        meaning = "told apart well."
    return AuditRow(clean(mode), number(auc), interval(cell), str(cell.get("n", "")), meaning, bad)


def _probes(audit: Mapping[str, Any]) -> list[AuditRow]:
    rows, probes = [], audit.get("probes", {})
    length = probes.get("length_only")
    if is_number(length):
        bad = length > MAX_LENGTH_ONLY
        meaning = (
            f"length alone gives the negatives away (AUC {number(length, 2)}): the reward may be paying for length."
            if bad
            else "length alone does not give the negatives away (.5 is chance)."
        )
        rows.append(AuditRow("Length-only probe", number(length), "", "", meaning, bad))
    for mode, auc in sorted((probes.get("source_blind") or {}).items()):
        if is_number(auc):
            rows.append(_blind_row(mode, auc))
    edited = probes.get("edited_reference")
    if is_number(edited):
        rows.append(_edited_row(edited))
    return rows


def _edited_row(auc: float) -> AuditRow:
    bad = auc > MAX_EDITED
    meaning = "how often a reference beats an edit of it that changes no fact (.5 is ideal)."
    if bad:
        meaning = f"an edit that changes no fact costs reward (AUC {number(auc, 2)}): the reward sees the editing."
    return AuditRow("Harmless edits", number(auc), "", "", meaning, bad)


def _blind_row(mode: str, auc: float) -> AuditRow:
    name = f"Source-blind probe, {mode}"
    bad = is_factual(mode) and auc > MAX_SOURCE_BLIND
    if bad:
        meaning = (
            f"told apart without the source (AUC {number(auc, 2)}): "
            "the edits leave a fingerprint that the reward can learn instead of the facts."
        )
    elif is_factual(mode):
        meaning = "cannot be told without the source, as it should be."
    else:
        meaning = "may show without the source: this failure is visible in the text itself."
    return AuditRow(name, number(auc), "", "", meaning, bad)


def _ranks(audit: Mapping[str, Any]) -> list[AuditRow]:
    rows = []
    for metric, cell in sorted((audit.get("within_prompt_rank_correlation") or {}).items()):
        tau = cell.get("tau")
        bad = is_number(tau) and tau < MIN_TAU
        if not is_number(tau):
            meaning = "could not be measured."
        elif bad:
            meaning = (
                f"among samples of one prompt the reward hardly orders by this metric (tau {number(tau, 2)}): "
                "do not expect RL to raise it."
            )
        else:
            meaning = "among samples of one prompt the reward and this held-out metric agree more often than not."
        rows.append(AuditRow(f"Rank correlation with {metric}", number(tau), interval(cell), "", meaning, bad))
    return rows


def _spread(audit: Mapping[str, Any]) -> list[AuditRow]:
    spread = audit.get("reward_spread") or {}
    within, between = spread.get("within_prompt_sd"), spread.get("between_prompt_sd")
    rows = []
    if is_number(within):
        meaning = "SD of the reward over samples of one prompt: what RL can climb. Near zero, there is no gradient."
        rows.append(AuditRow("Spread within a prompt", number(within), "", "", meaning, False))
    if is_number(between):
        meaning = "SD of the mean reward over prompts: how much easier some prompts are. RL cannot change it."
        rows.append(AuditRow("Spread between prompts", number(between), "", "", meaning, False))
    return rows


def _length(audit: Mapping[str, Any]) -> list[AuditRow]:
    cell = audit.get("length") or {}
    tau = cell.get("tau")
    if not is_number(tau):
        return []
    bad = abs(tau) > MAX_LENGTH_TAU
    meaning = "among samples of one prompt, how far the reward follows length (0: not at all; the sign says which way)."
    if bad:
        meaning = f"{'longer' if tau > 0 else 'shorter'} samples of a prompt win almost whatever they say."
    return [AuditRow("Rank correlation with length", number(tau), interval(cell), "", meaning, bad)]


def _calibration(audit: Mapping[str, Any]) -> list[AuditRow]:
    calibration, rows = audit.get("calibration") or {}, []
    if is_number(calibration.get("ece")):
        meaning = "mean distance of stated probability from observed share (0 is exact)."
        rows.append(AuditRow("Calibration error (ECE)", number(calibration["ece"]), "", "", meaning, False))
    if is_number(calibration.get("temperature")):
        meaning = "what the logits were divided by; above 1 the raw model was over-confident."
        rows.append(AuditRow("Temperature", number(calibration["temperature"]), "", "", meaning, False))
    drop = (audit.get("terminator") or {}).get("drop")
    if is_number(drop):
        bad = drop <= 0
        meaning = (
            "the reward does not fall when the terminator is taken away: stopping goes unrewarded."
            if bad
            else "how far the reward falls when the terminator is taken away; more than zero, as it should be."
        )
        rows.append(AuditRow("Terminator drop", number(drop), "", "", meaning, bad))
    return rows


def _chart(classes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        Interval(clean(mode), cell["auc"], cell.get("low"), cell.get("high"))
        for mode, cell in sorted(classes.items(), key=_worst_first)
        if is_number(cell.get("auc"))
    ]
    if not rows:
        return ""
    listed = ", ".join(f"{row.label} {row.value:.2f}" for row in rows)
    return interval_chart(
        "audit",
        rows,
        marks={"chance": 0.5, "weak below": MIN_AUC},
        description=f"AUC per failure class with confidence intervals, worst first: {listed}",
    )
