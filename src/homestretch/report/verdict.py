"""The verdict of a run: did RL help, would post-processing alone have done, and, where asked, what else would have?

Only the pre-registered (primary) contrasts count, and only by their Holm-corrected p:
C1 RL raw - SFT raw, C2 RL raw - SFT post-processed, C3 RL post-processed - SFT post-processed, C4 RL raw - another arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from homestretch.report.alternatives import alternatives
from homestretch.report.findings import Finding, asides, by, findings, named

Tone = Literal["better", "worse", "mixed", "equal", "unknown"]


def tone(scores: Mapping[str, Any] | None) -> Tone:
    """The verdict in one word, its colour in the report. A gain that post-processing gives too is "mixed"."""
    found = findings(scores or {})
    raw, c2, c3 = found.get("C1", {}), found.get("C2", {}), found.get("C3", {})
    outcomes = {finding.outcome for finding in raw.values()}
    if not outcomes:
        return "unknown"
    bridges = {_bridge(c2.get(metric), c3.get(metric)) for metric, f in raw.items() if f.outcome == "better"}
    if {"better", "worse"} <= outcomes or bridges & _LOST:
        return "mixed"
    return "better" if "better" in outcomes else "worse" if "worse" in outcomes else "equal"


_KEPT_SFT = "RL ended with the SFT model itself, as no update had a better held-out score."


def verdict(scores: Mapping[str, Any] | None, *, kept_sft: bool = False) -> str:
    """The verdict in one sentence, from the content of evaluation/scores.json (None: not evaluated).

    One goes before it where RL kept the SFT model, and one follows where alternatives to RL were evaluated.
    """
    if scores is None:
        return "No verdict: the evaluation has not been run."
    found = findings(scores)
    if not found.get("C1"):
        arms = ", ".join(scores.get("arms", {})) or "none"
        return (
            f"No verdict: there is no tested primary contrast of RL with SFT on raw outputs (arms evaluated: {arms})."
        )
    before = _KEPT_SFT if kept_sft else ""
    return " ".join(filter(None, (before, f"{_raw(list(found['C1'].values()))}{_post(found)}.", alternatives(scores))))


def _raw(raw: Sequence[Finding]) -> str:
    better, worse, equal = ([f for f in raw if f.outcome == kind] for kind in ("better", "worse", "equal"))
    if not better and not worse:
        return f"No significant difference between RL and SFT was found on raw outputs ({named(equal)})"
    names = " and ".join(f.metric for f in equal)
    rest = f", with no significant difference on {names} ({asides(equal)})" if equal else ""
    if better and worse:
        return f"RL is a trade on raw outputs: better than SFT on {by(better)} but worse on {by(worse)}{rest}"
    if better:
        return f"RL improved raw outputs over SFT on {by(better)}{rest}"
    return f"RL made raw outputs worse than SFT on {by(worse)}{rest}"


_AFTER_GAIN = {
    "remains": "and the gain on {metrics} remains after post-processing both ({c3})",
    "needs_both": "and the gain on {metrics} remains after post-processing both ({c3}), "
    "though raw RL is not significantly better than post-processed SFT ({c2})",
    "beats_post": "and raw RL is better than post-processed SFT on {metrics} too ({c2})",
    "no_cleanup": "and raw RL is better than post-processed SFT on {metrics} too ({c2}), "
    "but no significant difference is left once both are post-processed ({c3})",
    "bridged": "but as far as this test can tell, post-processing alone would have done on {metrics}: "
    "raw RL is not significantly better than post-processed SFT ({c2})",
    "overtaken": "but post-processing alone would have done better on {metrics}: "
    "raw RL is worse than post-processed SFT ({c2})",
    "vanishes": "but no significant difference on {metrics} is left after post-processing both ({c3})",
    "reversed": "but RL is worse on {metrics} after post-processing both ({c3})",
    "unknown": "and whether post-processing would have done on {metrics} was not tested",
}
_LOST = frozenset({"no_cleanup", "bridged", "overtaken", "vanishes", "reversed"})
"""Clauses by which a raw gain is no gain once SFT outputs are post-processed."""
_AFTER_LOSS = {
    "better": "but RL is better on {metrics} after post-processing both ({c3})",
    "equal": "but no significant difference on {metrics} is left after post-processing both ({c3})",
    "worse": "and it stays worse on {metrics} after post-processing both ({c3})",
}
_AFTER_NOTHING = {
    "better": "while RL is better on {metrics} after post-processing both ({c3})",
    "equal": "nor was one on {metrics} after post-processing both ({c3})",
    "worse": "while RL is worse on {metrics} after post-processing both ({c3})",
}


def _post(found: Mapping[str, Mapping[str, Finding]]) -> str:
    """What post-processing changes, one clause per outcome with the metrics that share it."""
    clauses: dict[str, list[str]] = {}
    c2, c3 = found.get("C2", {}), found.get("C3", {})
    for metric, raw in found["C1"].items():
        after = c3.get(metric)
        if raw.outcome == "better":
            clause = _AFTER_GAIN[_bridge(c2.get(metric), after)]
        elif after is None:
            continue
        else:
            clause = (_AFTER_LOSS if raw.outcome == "worse" else _AFTER_NOTHING)[after.outcome]
        clauses.setdefault(clause, []).append(metric)
    nothing_raw = all(finding.outcome == "equal" for finding in found["C1"].values())
    if not nothing_raw or len(clauses) > 1:  # "nor" must follow a "no difference" at once
        clauses.pop(_AFTER_NOTHING["equal"], None)
    texts = [
        clause.format(metrics=" and ".join(metrics), c2=_listed(c2, metrics), c3=_listed(c3, metrics))
        for clause, metrics in clauses.items()
    ]
    return "".join((", " if i == 0 else "; ") + text for i, text in enumerate(texts))


def _listed(found: Mapping[str, Finding], metrics: Sequence[str]) -> str:
    return asides([found[metric] for metric in metrics if metric in found])


def _bridge(c2: Finding | None, c3: Finding | None) -> str:
    """The clause for a metric that RL improved on raw outputs."""
    against_post = c2.outcome if c2 else None
    both_post = c3.outcome if c3 else None
    if both_post == "worse":
        return "reversed"
    if both_post == "better":
        return "remains" if against_post in (None, "better") else "needs_both"
    if against_post == "better":
        return "no_cleanup" if both_post else "beats_post"
    if against_post:
        return "overtaken" if against_post == "worse" else "bridged"
    return "vanishes" if both_post else "unknown"
