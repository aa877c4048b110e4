"""Markdown of the studies' results: differences over seeds, levels, and what RL kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import markdown

Record = Mapping[str, Any]


def number(value: float | None, form: str = ".3f") -> str:
    """A dash where there is none."""
    return "-" if value is None else f"{value:{form}}"


def interval(low: float | None, high: float | None, form: str = "+.3f") -> str:
    """[low, high], or nothing where there is none."""
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def contrast_table(rows: Sequence[Record]) -> str:
    """A row per contrast and metric: each seed, all seeds, and these models."""
    columns = ["a - b", "metric", "each seed", "over seeds", "p", "p (Holm)", "sign flips", "these models", "p (Holm)"]
    return markdown(columns, [_contrast_cells(row) for row in rows])


def _contrast_cells(row: Record) -> list[str]:
    models = row["these_models"]
    lower = " (less is better)" if row.get("higher_is_better") is False else ""
    return [
        f"{row['name']}: {row['a']} - {row['b']}",
        f"{row['metric']}{lower}",
        " ".join(f"{seed['difference']:+.3f}" for seed in row["seeds"]),
        number(row["mean"], "+.3f") + interval(row["low"], row["high"]),
        number(row["p"]),
        number(row["p_holm"]),
        number(row["p_sign_flip"]),
        interval(models["low"], models["high"]).strip(),
        number(models["p_holm"]),
    ]


def level_table(levels: Mapping[str, Record]) -> str:
    """Arms by metrics, the mean over seeds."""
    metrics = list(dict.fromkeys(metric for values in levels.values() for metric in values))
    rows = [[arm, *(number(mean(values.get(metric, []))) for metric in metrics)] for arm, values in levels.items()]
    return markdown(["arm", *metrics], rows)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are numbers; None where there is none."""
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


def kept_line(setting: Record) -> str:
    """Which update of RL each run shipped: 0 is the SFT model."""
    kept = (f"{name} {run['rl']['kept_update']} of {run['rl']['updates']}" for name, run in setting["runs"].items()
            if "rl" in run)  # fmt: skip
    return "RL shipped update: " + ", ".join(kept) + "."


def seeds_line(rows: Sequence[Record]) -> str:
    """How many seeds and examples a table rests on, and what they cannot show."""
    if not rows:
        return ""
    seeds = [seed["seed"] for seed in rows[0]["seeds"]]
    counts = sorted({seed["n"] for row in rows for seed in row["seeds"]})
    least = f"sign flips of {len(seeds)} seeds cannot go below p = {2 / 2 ** len(seeds):.3g}" if len(seeds) > 1 else (
        "one seed speaks about its models only")  # fmt: skip
    examples = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"Seeds {', '.join(map(str, seeds))}; {examples} test examples a seed; {least}."
