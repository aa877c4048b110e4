"""The reward audit in words: every measurement, what it says, and whether it is bad.

What is printed after training and what the report shows are both made of these findings, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FORM_MODES = frozenset({"random_tokens", "shuffled", "repetition", "echo", "truncation", "run_on", "on_policy"})
"""Classes that are rightly seen without reading the source."""
CONTENT_MODES = frozenset(
    {"irrelevant", "wrong_entity", "wrong_number", "wrong_date", "wrong_speaker", "negation", "omission", "addition"}
)
"""Classes that must not be. Whether a class that is in neither set, a user's own, is about form or content, only the
user knows: it is held to this too, and told both readings."""

MIN_AUC = 0.65
"""Below it the reward cannot see the failure."""
CLEAR_AUC = 0.9
"""From here on a failure is told well."""
PERFECT_AUC = 0.99
"""All classes above it: the negatives are too easy to say much."""
MAX_PROBE_AUC = 0.6
"""Above it length, or the text without its source, gives the label away."""
MAX_EDITED_AUC = 0.7
"""Above it an edit that changes no fact costs reward."""
MAX_LENGTH_TAU = 0.5
"""Beyond it, either way, the reward follows length."""
MIN_SPREAD_SHARE = 0.25
"""Spread within prompts over spread between them; at or below it the reward is saturated."""
MAX_ECE = 0.1
"""Above it the stated probabilities are off."""

WARNING = "warning: "


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One measurement of the audit, judged."""

    name: str
    value: float | None
    """None: could not be measured."""
    meaning: str
    is_bad: bool = False
    low: float | None = None
    high: float | None = None
    n: int | None = None


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit as lines for a person; a line that starts with "warning: " says what is wrong."""
    lines = [
        f"reward audit: {audit['n_documents']} held-out documents, {audit['samples_per_prompt']} samples for each of "
        f"{audit['n_prompts']} prompts",
        "for each failure, how often a reference scores above it (0.5: guessing); then the other measures",
    ]
    found = (*class_findings(audit), *other_findings(audit))
    lines += [_line(finding, finding.value) for finding in found if finding.value is not None]
    return lines + [f"not measured: {note}" for note in audit["notes"]]


def class_findings(audit: Mapping[str, Any]) -> list[AuditFinding]:
    """Per class the chance that a reference scores above it, the worst first and the unmeasured last."""
    found = [_class(mode, entry) for mode, entry in (audit.get("classes") or {}).items()]
    return sorted(found, key=lambda finding: (2.0 if finding.value is None else finding.value, finding.name))


def other_findings(audit: Mapping[str, Any]) -> list[AuditFinding]:
    """All but the classes one by one; a part that the audit does not have is left out."""
    parts = (_easy, _probes, _rank_correlations, _spread, _length, _calibration, _terminator)
    return [finding for part in parts for finding in part(audit)]


def _line(finding: AuditFinding, value: float) -> str:
    ends = "" if finding.low is None else f" (95 % {finding.low:.2f} to {finding.high:.2f})"
    count = "" if finding.n is None else f", n = {finding.n}"
    return f"{WARNING if finding.is_bad else ''}{finding.name} {value:.2f}{ends}{count}: {finding.meaning}"


def _class(mode: str, entry: Mapping[str, Any]) -> AuditFinding:
    auc, low = entry["auc"], entry.get("low")
    bad = auc is not None and (auc < MIN_AUC or (low is not None and low <= 0.5))
    if auc is None:
        meaning = "could not be measured (nothing to compare)."
    elif auc < MIN_AUC:
        meaning = f"the reward cannot see this failure (below {MIN_AUC:g}); RL will not unlearn it."
    elif bad:
        meaning = "too few examples to show that the reward sees this failure at all (the interval reaches 0.5)."
    else:
        meaning = "told apart well." if auc >= CLEAR_AUC else "seen, with errors."
    return AuditFinding(mode, auc, meaning, bad, low, entry.get("high"), entry.get("n"))


def _easy(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    aucs = [entry["auc"] for entry in (audit.get("classes") or {}).values() if entry["auc"] is not None]
    if aucs and min(aucs) > PERFECT_AUC:
        meaning = (
            "every class is told apart almost perfectly. That is easy to get with degenerate negatives and says little "
            "about candidates that all read well; look at the rank correlation and the spread."
        )
        yield AuditFinding("Lowest of all classes", min(aucs), meaning, is_bad=True)


def _probes(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    probes = audit.get("probes") or {}
    length, edited = probes.get("length_only"), probes.get("edited_reference")
    if length is not None:
        bad = length > MAX_PROBE_AUC
        meaning = "length alone does not give the negatives away (0.5 is chance)."
        if bad:
            meaning = f"length alone gives the negatives away (above {MAX_PROBE_AUC:g}): the reward may pay for length."
        yield AuditFinding("Length-only probe", length, meaning, bad)
    for mode, auc in sorted((probes.get("source_blind") or {}).items()):
        if auc is not None:
            yield _source_blind(mode, auc)
    if edited is not None:
        bad = edited > MAX_EDITED_AUC
        meaning = "how often a reference beats an edit of it that changes no fact (0.5 is ideal)."
        if bad:
            meaning = (
                f"an edit that changes no fact costs reward (above {MAX_EDITED_AUC:g}): the reward sees the editing."
            )
        yield AuditFinding("Harmless edits", edited, meaning, bad)


def _source_blind(mode: str, auc: float) -> AuditFinding:
    bad = mode not in FORM_MODES and auc > MAX_PROBE_AUC
    meaning = "hardly told without the source, as it should be."
    if mode in FORM_MODES:
        meaning = "may show without the source: this failure is visible in the text itself."
    elif bad:
        meaning = (
            f"told without reading the source (above {MAX_PROBE_AUC:g}): "
            "the edits leave a fingerprint that the reward can learn instead of the facts."
        )
        if mode not in CONTENT_MODES:
            meaning += " If it is a failure of form, visible in the text itself, this is as it should be."
    return AuditFinding(f"Source-blind probe, {mode}", auc, meaning, bad)


def _rank_correlations(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    for metric, entry in sorted((audit.get("within_prompt_rank_correlation") or {}).items()):
        tau, low, high = entry["tau"], entry.get("low"), entry.get("high")
        bad = low is not None and low <= 0
        if tau is None:
            meaning = "could not be measured."
        elif bad and high < 0:
            meaning = "among samples of one prompt the reward ranks against this metric: RL would lower it."
        elif bad:
            meaning = (
                "among samples of one prompt the reward is not shown to rank by this metric (the interval touches 0): "
                "do not expect RL to raise it."
            )
        else:
            meaning = "among samples of one prompt the reward and this held-out metric agree more often than not."
        if tau is not None and entry.get("left_out"):
            meaning += f" Prompts whose samples have no ranking, left out: {entry['left_out']}."
        yield AuditFinding(f"Rank correlation with {metric}", tau, meaning, bad, low, high, entry.get("n"))


def _spread(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    spread = audit.get("reward_spread") or {}
    within, between = spread.get("within_prompt_sd"), spread.get("between_prompt_sd")
    if within is not None:
        bad = within <= MIN_SPREAD_SHARE * (between or 0.0)
        meaning = "SD of the reward over samples of one prompt: what RL can climb."
        if bad:
            meaning = "the reward is saturated: samples of one prompt score nearly alike, so RL has little to climb."
        yield AuditFinding("Spread within a prompt", within, meaning, bad)
    if between is not None:
        meaning = "SD of the mean reward over prompts: how much easier some prompts are. RL cannot change it."
        yield AuditFinding("Spread between prompts", between, meaning)


def _length(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    entry = audit.get("length") or {}
    tau = entry.get("tau")
    if tau is None:
        return
    bad = abs(tau) > MAX_LENGTH_TAU
    meaning = "among samples of one prompt, how far the reward follows length (0: not at all; the sign says which way)."
    if bad:
        favoured = "longer" if tau > 0 else "shorter"
        meaning = f"the reward follows length: {favoured} samples of a prompt win almost whatever they say."
    yield AuditFinding("Rank correlation with length", tau, meaning, bad, entry.get("low"), entry.get("high"))


def _calibration(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    calibration = audit.get("calibration") or {}
    ece, temperature = calibration.get("ece"), calibration.get("temperature")
    if ece is not None:
        bad = ece > MAX_ECE
        meaning = "mean distance of stated probability from observed share (0 is exact)."
        if bad:
            meaning = f"poorly calibrated (above {MAX_ECE:g}): stated probabilities are far from observed shares."
        yield AuditFinding("Calibration error (ECE)", ece, meaning, bad)
    if temperature is not None:
        meaning = "what the logits were divided by; above 1 the raw model was over-confident."
        yield AuditFinding("Temperature", temperature, meaning)


def _terminator(audit: Mapping[str, Any]) -> Iterator[AuditFinding]:
    entry = audit.get("terminator") or {}
    drop, share = entry.get("drop"), entry.get("share")
    if drop is None:
        return
    bad = drop <= 0
    meaning = "how far a reference's reward falls when its terminator is taken away; more than zero, as it should be."
    if bad:
        meaning = "a missing terminator is not punished: stopping goes unrewarded."
    elif share is not None:
        meaning += f" {share:.0%} of the references lose."
    yield AuditFinding("Terminator drop", drop, meaning, bad)
