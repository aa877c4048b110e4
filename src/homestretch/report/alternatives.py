"""Was RL worth it? The sentence on the alternatives that were evaluated beside it, in whichever way it falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homestretch.report.findings import Finding, baseline_findings, by, named
from homestretch.report.formatting import duration, is_number

_LABELS = {
    "rejection_sft": "rejection-sampling SFT",
    "dpo": "DPO on the same negatives",
    "unlikelihood": "unlikelihood on the same negatives",
}


def alternatives(scores: Mapping[str, Any]) -> str:
    """RL against the cheapest alternative, with both costs, and then against the others; empty if there are none.

    The cheapest is the one with the fewest seconds beyond SFT, decoding not counted.
    """
    found = baseline_findings(scores)
    if not found:
        return ""
    costs = scores.get("costs") or {}
    first, *others = sorted(found, key=lambda arm: _seconds(costs, arm))
    text = f"The cheapest alternative was {_label(first, costs)}{_cost(costs, first)}: RL was {_outcomes(found[first])}"
    tested = [(_label(arm, costs), found[arm]) for arm in others]
    clauses = [f"against {label} it was {_outcomes(group)}" for label, group in tested if not _is_tie(group)]
    if ties := [label for label, group in tested if _is_tie(group)]:
        clauses.append(f"no significant difference to {' or '.join(ties)} was found either way")
    return "; ".join([text, *clauses]) + "."


def _is_tie(group: Sequence[Finding]) -> bool:
    return all(finding.outcome == "equal" for finding in group)


def _outcomes(group: Sequence[Finding]) -> str:
    """What RL was, metric by metric, the significant ones first."""
    better, worse, equal = ([f for f in group if f.outcome == kind] for kind in ("better", "worse", "equal"))
    words = [f"better on {by(better)}"] if better else []
    words += [f"worse on {by(worse)}"] if worse else []
    words += [f"not significantly different ({named(equal)})"] if equal else []
    return " but ".join(words)


def _label(arm: str, costs: Mapping[str, Any]) -> str:
    if arm == "best_of_n":
        return f"the best of {costs.get(arm, {}).get('samples_per_output', 'n')} samples by the same reward"
    return _LABELS.get(arm, arm)


def _cost(costs: Mapping[str, Any], arm: str) -> str:
    own, rl = costs.get(arm), costs.get("rl")
    if not own or not rl:
        return ""
    seconds = f"{duration(own['total_seconds'])} of training beyond SFT, RL {duration(rl['total_seconds'])}"
    tokens, of_rl = own.get("decoded_tokens"), rl.get("decoded_tokens")
    times = f"; {tokens / of_rl:.1f} times RL's tokens to decode" if is_number(tokens) and of_rl else ""
    return f" ({seconds}{times})"


def _seconds(costs: Mapping[str, Any], arm: str) -> float:
    seconds = costs.get(arm, {}).get("total_seconds")
    return float(seconds) if is_number(seconds) else float("inf")
