"""The pre-registered contrasts of scores.json, judged one by one by their Holm-corrected p."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from homestretch.report.formatting import is_number, p_value

ALPHA = 0.05
"""A primary difference counts when its Holm-corrected p is below this."""

Outcome = Literal["better", "worse", "equal"]


def outcome(difference: float, p: float, higher_is_better: bool) -> Outcome:
    """Whether a tested difference is for the better or worse; "equal" only means that no difference was shown."""
    if p >= ALPHA or difference == 0:
        return "equal"
    return "better" if (difference > 0) == higher_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One primary contrast on one metric, judged."""

    metric: str
    difference: float
    low: float | None
    high: float | None
    p_holm: float
    higher_is_better: bool

    @property
    def outcome(self) -> Outcome:
        """Whether the first arm is significantly better or worse."""
        return outcome(self.difference, self.p_holm, self.higher_is_better)

    @property
    def change(self) -> str:
        """`+0.041 [0.020, 0.060] (Holm p = .003)`."""
        return f"{self._difference} ({self._test})"

    @property
    def aside(self) -> str:
        """`+0.041 [0.020, 0.060], Holm p = .003`: the same for use inside parentheses."""
        return f"{self._difference}, {self._test}"

    @property
    def _difference(self) -> str:
        ends = f" [{self.low:.3f}, {self.high:.3f}]" if is_number(self.low) and is_number(self.high) else ""
        return f"{self.difference:+.3f}{ends}"

    @property
    def _test(self) -> str:
        p = p_value(self.p_holm)
        direction = "" if self.higher_is_better else "lower is better, "
        return f"{direction}Holm p {p if p.startswith('<') else f'= {p}'}"


def findings(scores: Mapping[str, Any]) -> dict[str, dict[str, Finding]]:
    """The judged primaries of scores.json: contrast name -> metric -> finding.

    A contrast without a corrected p, and a metric that has no good direction, cannot be judged and are left out.
    """
    found: dict[str, dict[str, Finding]] = {}
    for row in scores.get("contrasts", ()):
        if row.get("primary") and (finding := _finding(row, scores)):
            found.setdefault(row["name"], {})[finding.metric] = finding
    return found


def baseline_findings(scores: Mapping[str, Any]) -> dict[str, list[Finding]]:
    """The same of C4, RL minus an alternative: the alternative's name -> a finding per primary metric."""
    found: dict[str, list[Finding]] = {}
    for row in scores.get("baseline_contrasts") or ():
        if finding := _finding(row, scores):
            found.setdefault(str(row["b"]).partition("/")[0], []).append(finding)
    return found


def _finding(row: Mapping[str, Any], scores: Mapping[str, Any]) -> Finding | None:
    if not is_number(row.get("p_holm")) or not is_number(row.get("difference")):
        return None
    metric = row["metric"]
    direction = scores.get("arms", {}).get(row["a"], {}).get("metrics", {}).get(metric, {})
    higher = direction.get("higher_is_better", True)
    if higher is None:
        return None
    return Finding(metric, row["difference"], row.get("low"), row.get("high"), row["p_holm"], higher)


def by(group: Sequence[Finding]) -> str:
    """`fact_f1 by +0.041 [0.020, 0.060] (Holm p = .003) and ...`."""
    return " and ".join(f"{f.metric} by {f.change}" for f in group)


def named(group: Sequence[Finding]) -> str:
    """`fact_f1 +0.041 [0.020, 0.060], Holm p = .003; ...`."""
    return "; ".join(f"{f.metric} {f.aside}" for f in group)


def asides(group: Sequence[Finding]) -> str:
    """Numbers that follow their metrics' names: one needs no name again."""
    return group[0].aside if len(group) == 1 else named(group)
