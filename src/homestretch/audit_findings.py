"""The reward audit in words: every measurement, what it says, and whether it is bad.

What is printed after training, what the report shows and what the gate decides are all made of these findings, so they
cannot disagree. The thresholds are those of the recipe's `reward.gate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from homestretch.config_audit import GateConfig

FORM_MODES = frozenset({"random_tokens", "shuffled", "repetition", "echo", "truncation", "run_on", "on_policy"})
"""Classes that are rightly seen without reading the source."""
CONTENT_MODES = frozenset(
    {"irrelevant", "wrong_entity", "wrong_number", "wrong_date", "wrong_speaker", "negation", "omission", "addition",
     "missing_slot", "hallucinated_slot", "wrong_slot"}
)  # fmt: skip
"""Classes that must not be. Whether a class that is in neither set, a user's own, is about form or content, only the
user knows: it is held to this too, and told both readings."""

UNSEEN = {
    "random_tokens": "text that means nothing",
    "irrelevant": "an answer to another document",
    "shuffled": "words or sentences out of order",
    "repetition": "repetition",
    "echo": "copying of the input",
    "truncation": "missing endings",
    "run_on": "text that goes on after its end",
    "wrong_entity": "wrong names",
    "wrong_number": "wrong numbers",
    "wrong_date": "wrong dates",
    "wrong_speaker": "the wrong person saying or doing it",
    "negation": "statements turned into their opposite",
    "omission": "missing facts",
    "addition": "added facts",
    "missing_slot": "slot values left out",
    "hallucinated_slot": "slot values made up",
    "wrong_slot": "wrong slot values",
    "on_policy": "what is bad among the model's own samples",
}
"""What a reward is blind to that cannot see the class, like classes beside each other; a user's own has no words."""

SELECTION = "selection"
"""The rank correlation with the score that chooses checkpoints, beside those with metrics."""
CLEAR_AUC = 0.9
"""From here on a failure is told well."""

WARNING = "warning: "


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One measurement of the audit, judged."""

    name: str
    value: float | None
    """None: could not be measured."""
    meaning: str
    is_bad: bool = False
    stops: bool = False
    """Bad, and enough to end a run whose gate may: RL would be pointless or do harm."""
    low: float | None = None
    high: float | None = None
    n: int | None = None


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit as lines for a person; a line that starts with "warning: " says what is wrong."""
    lines = [
        f"reward audit: {audit['n_documents']} held-out documents, {audit['samples_per_prompt']} samples for each of "
        f"{audit['n_prompts']} prompts",
        "for each failure, how often its document's reference scores above it (0.5: guessing); then the other measures",
    ]
    found = (*class_findings(audit), *other_findings(audit))
    lines += [_line(finding) for finding in found if finding.value is not None or finding.is_bad]
    lines += [f"not measured: {note}" for note in audit["notes"]]
    return lines + ([gate_line(audit["gate"])] if audit.get("gate") else [])


def gate(audit: Mapping[str, Any], settings: GateConfig) -> dict[str, Any]:
    """What follows from the audit: `{"decision": "go" | "warn" | "stop", "reasons": [...], "settings": {...}}`.

    The reasons are those of the decision: for "stop" what stops, for "warn" all that is bad, what would stop first.
    """
    judged = {**audit, "gate": {"settings": settings.model_dump(mode="json")}}
    bad = [finding for finding in (*class_findings(judged), *other_findings(judged)) if finding.is_bad]
    stopping = [finding for finding in bad if finding.stops]
    if settings.action == "off" or not bad:
        decision, reasons = "go", []
    elif settings.action == "stop" and stopping:
        decision, reasons = "stop", stopping
    else:
        decision, reasons = "warn", [*stopping, *(finding for finding in bad if not finding.stops)]
    return {"decision": decision, "reasons": list(map(_reason, reasons)), "settings": judged["gate"]["settings"]}


def gate_line(gate: Mapping[str, Any]) -> str:
    """The decision as one line: all reasons of a stop, the first of a warning."""
    decision, reasons = gate["decision"], gate["reasons"]
    shown = reasons if decision == "stop" else reasons[:1]
    more = len(reasons) - len(shown)
    return ": ".join(("reward gate", decision, *(["; ".join(shown)] if shown else []))) + (
        f"; and {more} more" if more else ""
    )


def thresholds(audit: Mapping[str, Any]) -> GateConfig:
    """Those that the audit was judged by, which it holds; the defaults for one that was not."""
    settings = (audit.get("gate") or {}).get("settings") or {}
    return GateConfig.model_validate({key: settings[key] for key in GateConfig.model_fields if key in settings})


def _reason(finding: AuditFinding) -> str:
    value = "" if finding.value is None else f" at {finding.value:.2f}"
    return f"{finding.name}{value}: {finding.meaning.removesuffix('.')}"


def class_findings(audit: Mapping[str, Any]) -> list[AuditFinding]:
    """Per class the chance that the document's reference scores above it, the worst first and the unmeasured last."""
    limits = thresholds(audit)
    found = [_class(mode, entry, limits) for mode, entry in (audit.get("classes") or {}).items()]
    return sorted(found, key=lambda finding: (2.0 if finding.value is None else finding.value, finding.name))


def other_findings(audit: Mapping[str, Any]) -> list[AuditFinding]:
    """All but the classes one by one; a part that the audit does not have is left out."""
    parts = (
        _easy, _left_out, _probes, _rank_correlations, _best_of_n, _spread, _length, _calibration, _terminator,
        _ensemble,
    )  # fmt: skip
    limits = thresholds(audit)
    return [finding for part in parts for finding in part(audit, limits)]


def _line(finding: AuditFinding) -> str:
    value = "" if finding.value is None else f" {finding.value:.2f}"
    ends = "" if finding.low is None else f" (95 % {finding.low:.2f} to {finding.high:.2f})"
    count = "" if finding.n is None else f", n = {finding.n}"
    return f"{WARNING if finding.is_bad else ''}{finding.name}{value}{ends}{count}: {finding.meaning}"


def _class(mode: str, entry: Mapping[str, Any], limits: GateConfig) -> AuditFinding:
    auc, low = entry["auc"], entry.get("low")
    unseen = auc is not None and auc < limits.min_class_auc
    bad = unseen or (auc is not None and low is not None and low <= 0.5)
    if auc is None:
        meaning = "could not be measured (nothing to compare)."
    elif unseen:
        what = UNSEEN.get(mode, "this failure")
        meaning = f"the reward cannot see {what} (below {limits.min_class_auc:g}); RL will not unlearn it."
    elif bad:
        meaning = "too few examples to show that the reward sees this failure at all (the interval reaches 0.5)."
    else:
        meaning = "told apart well." if auc >= CLEAR_AUC else "seen, with errors."
        edits = entry.get("over_edits") or {}
        if edits.get("high") is not None and edits["high"] < limits.min_class_auc:
            meaning = (
                f"told from the reference, but hardly from an edit of it that is still true ({edits['auc']:.2f}, "
                f"95 % {edits['low']:.2f} to {edits['high']:.2f}, n = {edits['n']}): the reward may see the editing."
            )
    return AuditFinding(mode, auc, meaning, bad, unseen, low, entry.get("high"), entry.get("n"))


def _easy(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    aucs = [entry["auc"] for entry in (audit.get("classes") or {}).values() if entry["auc"] is not None]
    if aucs and min(aucs) > limits.too_easy_auc:
        meaning = (
            "every class is told apart almost perfectly. That is easy to get with degenerate negatives and says little "
            "about candidates that all read well; look at the rank correlation and the spread."
        )
        yield AuditFinding("Lowest of all classes", min(aucs), meaning, is_bad=True)


def _left_out(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    classes = (audit.get("classes") or {}).items()
    aucs = {mode: entry.get("leave_one_out_auc") for mode, entry in classes}
    found = sorted((auc, mode) for mode, auc in aucs.items() if auc is not None)
    unseen = [(auc, mode) for auc, mode in found if auc < limits.min_left_out_auc]
    for auc, mode in unseen:
        meaning = (
            f"a reward that was not trained on this failure does not see it (below {limits.min_left_out_auc:g}): what "
            "it learns carries over badly to failures that nobody thought of."
        )
        yield AuditFinding(f"Left out of training, {mode}", auc, meaning, is_bad=True)
    if found and not unseen:
        auc, mode = found[0]
        meaning = f"{mode}: the class that is seen least by a reward that was not trained on it."
        yield AuditFinding("Lowest when left out of training", auc, meaning)


def _probes(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    probes = audit.get("probes") or {}
    length, words, edited = (probes.get(name) for name in ("length_only", "bag_of_words", "edited_reference"))
    if length is not None:
        bad = length > limits.max_probe_auc
        meaning = "length alone does not give the negatives away (0.5 is chance)."
        if bad:
            meaning = (
                f"length alone gives the negatives away (above {limits.max_probe_auc:g}): the reward may pay for it."
            )
        yield AuditFinding("Length-only probe", length, meaning, bad)
    if words is not None:
        bad = words > limits.max_bag_of_words_auc
        meaning = "what counting words, and how many of them the source has, tells of good and bad."
        if bad:
            meaning = (
                f"counting words does the reward's job (above {limits.max_bag_of_words_auc:g}): as a whole the "
                "negatives are too easy to show that the reward reads."
            )
        yield AuditFinding("Bag-of-words probe", words, meaning, bad)
    for mode, auc in sorted((probes.get("source_blind") or {}).items()):
        if auc is not None:
            yield _source_blind(mode, auc, limits)
    if edited is not None:
        bad = edited > limits.max_edited_auc
        meaning = "how often a reference beats an edit of it that changes no fact (0.5 is ideal)."
        if bad:
            meaning = (
                f"an edit that changes no fact costs reward (above {limits.max_edited_auc:g}): "
                "the reward sees the editing."
            )
        yield AuditFinding("Harmless edits", edited, meaning, bad)


def _source_blind(mode: str, auc: float, limits: GateConfig) -> AuditFinding:
    bad = mode not in FORM_MODES and auc > limits.max_probe_auc
    meaning = "hardly told without the source, as it should be."
    if mode in FORM_MODES:
        meaning = "may show without the source: this failure is visible in the text itself."
    elif bad:
        meaning = (
            f"told without reading the source (above {limits.max_probe_auc:g}): "
            "the edits leave a fingerprint that the reward can learn instead of the facts."
        )
        if mode not in CONTENT_MODES:
            meaning += " If it is a failure of form, visible in the text itself, this is as it should be."
    return AuditFinding(f"Source-blind probe, {mode}", auc, meaning, bad)


def _rank_correlations(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    entries = (audit.get("within_prompt_rank_correlation") or {}).items()
    for metric, entry in sorted(entries, key=lambda item: (item[0] != SELECTION, item[0])):
        tau, low, high = entry["tau"], entry.get("low"), entry.get("high")
        is_selection = metric == SELECTION
        name, this = ("the selection score", "that score") if is_selection else (metric, "this metric")
        bad = low is not None and low <= limits.min_rank_correlation
        if tau is None:
            bad = is_selection
            meaning = "could not be measured."
            if bad:
                meaning = "could not be measured: nothing is known of how the reward ranks samples of one prompt."
        elif low is None:
            bad = True
            meaning = f"too few prompts to tell whether the reward ranks by {this}."
        elif bad and high < 0:
            meaning = f"among samples of one prompt the reward ranks against {this}: RL would lower it."
        elif bad:
            meaning = (
                f"among samples of one prompt the reward is not shown to rank by {this} (the interval reaches "
                f"{limits.min_rank_correlation:g}): do not expect RL to raise it."
            )
        else:
            meaning = f"among samples of one prompt the reward and {this}, held out, agree more often than not."
        if tau is not None and entry.get("left_out"):
            meaning += f" Prompts whose samples have no ranking, left out: {entry['left_out']}."
        stops = bad and is_selection and low is not None
        yield AuditFinding(f"Rank correlation with {name}", tau, meaning, bad, stops, low, high, entry.get("n"))


def _best_of_n(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    entry = audit.get("best_of_n") or {}
    gain, low = entry.get("difference"), entry.get("low")
    if gain is None:
        return
    bad = low is not None and low <= limits.min_best_of_n_gain
    means = f"{entry['best']:.3f} against {entry['greedy']:.3f}; the best there is among them: {entry['oracle']:.3f}"
    too_poor = entry["oracle"] - entry["greedy"] < entry["greedy"] - entry["mean"]
    bad = bad and not too_poor
    meaning = f"what choosing among the model's samples by the reward adds to the selection score ({means})."
    if too_poor:
        meaning = (
            f"a sample is so much worse than greedy decoding (mean {entry['mean']:.3f}) that hardly any is better "
            f"({means}): this says little about what RL can bring."
        )
    elif bad:
        meaning = (
            f"the samples that the reward prefers are not shown to be better than greedy decoding ({means}; the "
            f"interval reaches {limits.min_best_of_n_gain:g}): RL may raise the reward and bring nothing."
        )
    name = f"Best of {audit['samples_per_prompt']} by the reward, less greedy decoding"
    yield AuditFinding(name, gain, meaning, bad, low=low, high=entry.get("high"), n=entry.get("n"))


def _spread(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    spread = audit.get("reward_spread") or {}
    within, between = spread.get("within_prompt_sd"), spread.get("between_prompt_sd")
    if within is not None:
        bad = within <= limits.min_spread_share * (between or 0.0)
        meaning = "SD of the reward over samples of one prompt: what RL can climb."
        if bad:
            meaning = "the reward is saturated: samples of one prompt score nearly alike, so RL has little to climb."
        yield AuditFinding("Spread within a prompt", within, meaning, bad, stops=bad)
    if between is not None:
        meaning = "SD of the mean reward over prompts: how much easier some prompts are. RL cannot change it."
        yield AuditFinding("Spread between prompts", between, meaning)


def _length(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    entry = audit.get("length") or {}
    tau = entry.get("tau")
    if tau is None:
        return
    bad = abs(tau) > limits.max_length_tau
    meaning = "among samples of one prompt, how far the reward follows length (0: not at all; the sign says which way)."
    if bad:
        favoured = "longer" if tau > 0 else "shorter"
        meaning = f"the reward follows length: {favoured} samples of a prompt win almost whatever they say."
    low, high = entry.get("low"), entry.get("high")
    yield AuditFinding("Rank correlation with length", tau, meaning, bad, stops=bad, low=low, high=high)


def _calibration(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    calibration = audit.get("calibration") or {}
    ece, temperature = calibration.get("ece"), calibration.get("temperature")
    if ece is not None:
        bad = ece > limits.max_ece
        meaning = "mean distance of stated probability from observed share (0 is exact)."
        if bad:
            meaning = (
                f"poorly calibrated (above {limits.max_ece:g}): stated probabilities are far from observed shares."
            )
        yield AuditFinding("Calibration error (ECE)", ece, meaning, bad)
    if temperature is not None:
        meaning = "what the logits were divided by; above 1 the raw model was over-confident."
        yield AuditFinding("Temperature", temperature, meaning)


def _terminator(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    entry = audit.get("terminator") or {}
    drop, share = entry.get("drop"), entry.get("share")
    if drop is None:
        return
    bad = drop <= limits.min_terminator_drop
    meaning = "how far a reference's reward falls when its terminator is taken away; it should."
    if bad:
        meaning = "a missing terminator is not punished: stopping goes unrewarded."
    elif share is not None:
        meaning += f" {share:.0%} of the references lose."
    yield AuditFinding("Terminator drop", drop, meaning, bad, stops=bad)


def _ensemble(audit: Mapping[str, Any], limits: GateConfig) -> Iterator[AuditFinding]:
    entry = audit.get("ensemble")
    if not entry:
        return
    sd, spread = entry["mean_sd"]["samples"], entry["within_prompt_sd"]
    if sd is not None:
        mean = "" if spread is None else f"; their mean spreads by {spread:.2f} within a prompt"
        meaning = f"how far apart the {entry['num_members']} members are on a sample{mean}."
        yield AuditFinding("Ensemble, SD across members", sd, meaning)
    if (tau := entry["member_tau"]["mean"]) is not None:
        meaning = (
            "how far two members agree on the order of a prompt's samples "
            f"(the least alike: {entry['member_tau']['lowest']:.2f}). At 1 they are one reward, and cost several."
        )
        yield AuditFinding("Ensemble, rank correlation of members", tau, meaning)
    if entry["sd_selection_tau"]["tau"] is not None:
        yield _disagreement(entry["sd_selection_tau"])


def _disagreement(entry: Mapping[str, Any]) -> AuditFinding:
    low, high = entry["low"], entry["high"]
    bad = low is not None and low > 0
    if bad:
        meaning = (
            "among samples of one prompt the members disagree most about those that the selection score likes: "
            "the penalty works against it."
        )
    elif high is not None and high < 0:
        meaning = "among samples of one prompt the members disagree most about bad ones, as they should."
    else:
        meaning = (
            "among samples of one prompt the members are not shown to disagree most about bad ones (the interval "
            "reaches 0): that the penalty helps is not shown either."
        )
    name = "Ensemble, rank correlation of SD with the selection score"
    return AuditFinding(name, entry["tau"], meaning, bad, low=low, high=high, n=entry["n"])
