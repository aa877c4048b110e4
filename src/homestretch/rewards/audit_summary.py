"""The audit in words: what each number says, and a warning where it is bad."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from homestretch.rewards.judged import ON_POLICY

FORM_MODES = frozenset({"random_tokens", "shuffled", "repetition", "echo", "truncation", "run_on", ON_POLICY})
"""Classes that are rightly seen without reading the source. Any other class, a plug-in's too, is about content."""

WEAK_AUC = 0.7
SOLVED_BLIND_AUC = 0.65
SATURATED_SHARE = 0.25
LENGTH_TAU = 0.5
POOR_ECE = 0.1

WARNING = "warning: "


def audit_summary_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit's numbers as lines for a person; a line that starts with "warning: " says what is wrong."""
    lines = [
        f"reward audit: {audit['n_documents']} held-out documents, {audit['samples_per_prompt']} samples for each of "
        f"{audit['n_prompts']} prompts"
    ]
    for part in (_classes, _probes, _rank_correlations, _spread, _length, _calibration, _terminator):
        lines += part(audit)
    return lines + [f"not measured: {note}" for note in audit["notes"]]


def _classes(audit: Mapping[str, Any]) -> Iterator[str]:
    for mode, entry in audit["classes"].items():
        if entry["auc"] is None:
            continue
        yield f"{mode}: a reference scores above it with probability {_with_interval(entry, 'auc')}, n = {entry['n']}"
        if entry["low"] is not None and entry["low"] <= 0.5:
            yield f"{WARNING}{mode}: not shown to be told from references at all: RL will not be steered away from it"
        elif entry["auc"] < WEAK_AUC:
            yield f"{WARNING}{mode}: told from references only weakly (below {WEAK_AUC:g})"


def _probes(audit: Mapping[str, Any]) -> Iterator[str]:
    probes = audit["probes"]
    if probes["length_only"] is not None:
        yield f"length alone tells good from bad with AUC {probes['length_only']:.2f} (0.5: not at all)"
        if probes["length_only"] > SOLVED_BLIND_AUC:
            yield (
                f"{WARNING}length gives the label away (above {SOLVED_BLIND_AUC:g}): "
                "negatives should match references in length"
            )
    for mode, auc in probes["source_blind"].items():
        if auc is None:
            continue
        is_form = mode in FORM_MODES
        yield f"{mode}: told without reading the source with AUC {auc:.2f}" + (" (a matter of form)" if is_form else "")
        if auc > SOLVED_BLIND_AUC and not is_form:
            yield (
                f"{WARNING}{mode}: the edit leaves a fingerprint (above {SOLVED_BLIND_AUC:g}): "
                "the reward can spot it without checking the source"
            )
    if probes["edited_reference"] is not None:
        edited = probes["edited_reference"]
        yield f"a reference scores above a truth-preserving edit with probability {edited:.2f} (0.5 is ideal)"
        if edited > WEAK_AUC:
            yield f"{WARNING}being edited costs reward though nothing false was said: the reward sees the editing"


def _rank_correlations(audit: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in audit["within_prompt_rank_correlation"].items():
        if entry["tau"] is None:
            continue
        yield (
            f"ranks samples of one prompt like {name}: tau {_with_interval(entry, 'tau')}, "
            f"{entry['n']} prompts ({entry['left_out']} without ranking left out)"
        )
        if entry["high"] < 0:
            yield f"{WARNING}the reward ranks samples against {name}: RL would lower it"
        elif entry["low"] <= 0:
            yield f"{WARNING}no agreement with {name} is shown among samples of one prompt"


def _spread(audit: Mapping[str, Any]) -> Iterator[str]:
    within, between = audit["reward_spread"]["within_prompt_sd"], audit["reward_spread"]["between_prompt_sd"]
    if within is None:
        return
    yield f"reward spread: SD {within:.2f} among samples of one prompt" + (
        "" if between is None else f", {between:.2f} between prompts"
    )
    if within <= SATURATED_SHARE * (between or 0.0):
        yield f"{WARNING}the reward is saturated: samples of one prompt score nearly alike, so RL has little to climb"


def _length(audit: Mapping[str, Any]) -> Iterator[str]:
    entry = audit["length"]
    if entry["tau"] is None:
        return
    yield f"reward and length: tau {_with_interval(entry, 'tau')} among samples of one prompt"
    if abs(entry["tau"]) > LENGTH_TAU:
        favoured = "longer" if entry["tau"] > 0 else "shorter"
        yield f"{WARNING}the reward follows length: {favoured} samples win whatever they say"


def _calibration(audit: Mapping[str, Any]) -> Iterator[str]:
    entry = audit["calibration"]
    if entry["ece"] is None:
        return
    yield f"calibration: probabilities are off by {entry['ece']:.3f} on average, temperature {entry['temperature']:.2f}"
    if entry["ece"] > POOR_ECE:
        yield f"{WARNING}poorly calibrated (above {POOR_ECE:g})"


def _terminator(audit: Mapping[str, Any]) -> Iterator[str]:
    entry = audit["terminator"]
    if entry["drop"] is None:
        return
    yield f"terminator: a reference without it loses {entry['drop']:.2f} on average; {entry['share']:.0%} of them lose"
    if entry["drop"] <= 0:
        yield f"{WARNING}a missing terminator is not punished: the reward does not see it, or learned to ignore it"


def _with_interval(entry: Mapping[str, Any], key: str) -> str:
    if entry["low"] is None:
        return f"{entry[key]:.2f}"
    return f"{entry[key]:.2f} (95 % {entry['low']:.2f} to {entry['high']:.2f})"
