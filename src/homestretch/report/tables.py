"""The report's tables of arms, contrasts and failure rates, from scores.json and the samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.ops.significance import effect_size
from homestretch.report.findings import ALPHA, Outcome, outcome
from homestretch.report.formatting import DASH, duration, interval, is_number, number, p_value, percent, signed

_SIZES = ((0.1, "negligible"), (0.35, "small"), (0.65, "medium"), (math.inf, "large"))
"""Upper bounds of |d|: halfway between Cohen's 0, .2 (small), .5 (medium) and .8 (large)."""

_MODELS = ("base", "sft", "rl", "best_of_n", "rejection_sft", "dpo", "unlikelihood")
ARM_ORDER = tuple(f"{model}/{outputs}" for model in _MODELS for outputs in ("raw", "post"))


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in a table."""

    text: str
    interval: str = ""
    is_best: bool = False
    share: float | None = None
    """Where the number is a share: the length of its bar, 0..1."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric or a failure mode, one cell per column."""

    name: str
    cells: tuple[Cell, ...]
    direction: str = ""
    is_primary: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ContrastRow:
    """A tested difference."""

    name: str
    arms: str
    n: str
    metric: str
    difference: str
    interval: str
    p: str
    p_holm: str
    effect: str
    outcome: str
    """"better", "worse" or "" (not significant, or no good direction)."""
    is_primary: bool


def in_order(arms: Collection[str]) -> tuple[str, ...]:
    """The arms, the known ones first and in their order."""
    return (*(arm for arm in ARM_ORDER if arm in arms), *sorted(arm for arm in arms if arm not in ARM_ORDER))


def primary_metrics(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """The pre-registered metrics, in the order of the contrasts."""
    return tuple(dict.fromkeys(row["metric"] for row in scores.get("contrasts", ()) if row.get("primary")))


def metric_directions(scores: Mapping[str, Any]) -> dict[str, bool | None]:
    """Metric -> higher_is_better over all arms, primaries first."""
    found: dict[str, bool | None] = {}
    for arm in in_order(scores.get("arms", {})):
        for metric, cell in scores["arms"][arm].get("metrics", {}).items():
            found.setdefault(metric, cell.get("higher_is_better"))
    first = [metric for metric in primary_metrics(scores) if metric in found]
    return {metric: found[metric] for metric in (*first, *(m for m in found if m not in first))}


def arms_table(scores: Mapping[str, Any]) -> Table:
    """Metrics by arms with means and intervals, the best arm marked; last column the references' own scores."""
    arms, primaries = in_order(scores.get("arms", {})), primary_metrics(scores)
    ceiling = (scores.get("references") or {}).get("metrics") or {}
    rows = []
    for metric, higher in metric_directions(scores).items():
        cells = [scores["arms"][arm].get("metrics", {}).get(metric, {}) for arm in arms]
        best = _best([cell.get("mean") for cell in cells], higher)
        views = [Cell(number(c.get("mean")), interval(c), best is not None and c.get("mean") == best) for c in cells]
        if ceiling:
            of_references = ceiling.get(metric)
            value = of_references.get("mean") if isinstance(of_references, Mapping) else of_references
            views.append(Cell(number(value)))
        rows.append(Row(metric, tuple(views), _direction(higher), metric in primaries))
    unterminated = [scores["arms"][arm].get("num_unterminated") for arm in arms]
    if any(is_number(count) for count in unterminated):
        views = [Cell(number(count, 0)) for count in unterminated] + [Cell(DASH)] * bool(ceiling)
        rows.append(Row("outputs without a terminator (count)", tuple(views), "lower"))
    return Table((*arms, *(("references",) if ceiling else ())), tuple(rows))


def _direction(higher: bool | None) -> str:
    return "" if higher is None else "higher" if higher else "lower"


def _best(means: Sequence[Any], higher: bool | None) -> float | None:
    """The best mean; None where there is no direction or nothing to choose."""
    known = [float(mean) for mean in means if is_number(mean)]
    if higher is None or len(set(known)) < 2:
        return None
    return max(known) if higher else min(known)


def failures_table(scores: Mapping[str, Any]) -> Table:
    """Failure modes by arms: rates with intervals and bars, the lowest marked; last the references' false alarms."""
    arms = in_order(scores.get("arms", {}))
    alarms = (scores.get("references") or {}).get("failures") or {}
    modes = dict.fromkeys(mode for arm in arms for mode in scores["arms"][arm].get("failures", {}))
    rows = []
    for mode in modes:
        cells = [scores["arms"][arm].get("failures", {}).get(mode, {}) for arm in arms]
        best = _best([cell.get("rate") for cell in cells], higher=False)
        views = [_rate(cell, best) for cell in cells]
        if alarms:
            views.append(_rate(alarms.get(mode, {}), None))
        rows.append(Row(mode, tuple(views), "lower"))
    return Table((*arms, *(("references",) if alarms else ())), tuple(rows))


def _rate(cell: Mapping[str, Any], best: float | None) -> Cell:
    rate, low, high = cell.get("rate"), cell.get("low"), cell.get("high")
    if not is_number(rate):
        return Cell(DASH)
    ends = f"[{100 * low:.1f}, {100 * high:.1f}]" if is_number(low) and is_number(high) else ""
    return Cell(percent(rate), ends, rate == best, min(1.0, max(0.0, float(rate))))


def contrast_rows(scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> list[ContrastRow]:
    """The tested differences of metrics, primaries first; the effect in words comes from the paired samples."""
    directions = metric_directions(scores)
    rows = [
        _contrast(row, row["metric"], directions.get(row["metric"]), samples) for row in scores.get("contrasts", ())
    ]
    return sorted(rows, key=lambda row: not row.is_primary)


def failure_contrast_rows(scores: Mapping[str, Any]) -> list[ContrastRow]:
    """The tested differences of failure rates (McNemar), where the evaluation has them."""
    return [_contrast(row, row["mode"], False, ()) for row in scores.get("failure_contrasts") or ()]


def baseline_rows(scores: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> list[ContrastRow]:
    """C4: RL minus each alternative, where there are any."""
    directions = metric_directions(scores)
    rows = scores.get("baseline_contrasts") or ()
    return [_contrast(row, row["metric"], directions.get(row["metric"]), samples) for row in rows]


_COSTS = {
    "Training": "training_seconds",
    "With the stages it needs": "total_seconds",
    "Completions sampled": "sampled_completions",
    "Tokens trained on": "trained_tokens",
    "Tokens decoded": "decoded_tokens",
    "Decoding": "decoding_seconds",
}


def costs_table(scores: Mapping[str, Any]) -> Table:
    """What each arm took beyond SFT, and to decode the evaluation's examples; no rows where it was not recorded."""
    rows = [
        Row(arm, tuple(Cell(_amount(key, cost.get(key))) for key in _COSTS.values()))
        for arm, cost in (scores.get("costs") or {}).items()
    ]
    return Table(tuple(_COSTS), tuple(rows))


def _amount(key: str, value: object) -> str:
    if not is_number(value):
        return DASH
    return duration(value) if key.endswith("seconds") else f"{value:,.0f}"


def _contrast(
    row: Mapping[str, Any], metric: str, higher: bool | None, samples: Sequence[Mapping[str, Any]]
) -> ContrastRow:
    p = row["p_holm"] if is_number(row.get("p_holm")) else row.get("p")
    difference = row.get("difference")
    found: Outcome = "equal"
    if is_number(p) and is_number(difference) and higher is not None:
        found = outcome(difference, p, higher)
    return ContrastRow(
        name=str(row.get("name", "")),
        arms=f"{row['a']} − {row['b']}",
        n=number(row.get("n"), 0),
        metric=metric,
        difference=signed(difference),
        interval=interval(row),
        p=p_value(row.get("p")),
        p_holm=p_value(row.get("p_holm")),
        effect=effect_in_words(row, metric, higher, samples),
        outcome="" if found == "equal" else found,
        is_primary=bool(row.get("primary")),
    )


def effect_in_words(
    row: Mapping[str, Any], metric: str, higher: bool | None, samples: Sequence[Mapping[str, Any]]
) -> str:
    """The paired effect: Cohen's d, who wins how often, and whether the two are shown to be equivalent."""
    words = []
    differences = paired_differences(row["a"], row["b"], metric, samples)
    d = row["effect_size"] if "effect_size" in row else effect_size(differences)
    if is_number(d):
        size = next(word for bound, word in _SIZES if abs(d) < bound)
        words.append(f"{size} (d {signed(d, 2)})")
    if differences:
        up, down = (sum(sign * x > 0 for x in differences) / len(differences) for sign in (1, -1))
        more, less = ("higher", "lower") if higher is None else ("better", "worse")
        first, second = (down, up) if higher is False else (up, down)
        words.append(f"{more} on {percent(first, 0)}, {less} on {percent(second, 0)}")
    if is_number(row.get("p_equivalence")) and row["p_equivalence"] < ALPHA:
        words.append(f"equivalent within the margin (p {p_value(row['p_equivalence'])})")
    return "; ".join(words)


def paired_differences(a: str, b: str, metric: str, samples: Sequence[Mapping[str, Any]]) -> list[float]:
    """Arm a minus arm b on the metric, over the samples where both have it."""
    differences = []
    for sample in samples:
        x, y = (sample["arms"].get(arm, {}).get("metrics", {}).get(metric) for arm in (a, b))
        if is_number(x) and is_number(y):
            differences.append(float(x) - float(y))
    return differences
