"""Print finished runs as the Markdown tables of recipes/README.md: python recipes/summarize.py RUN [RUN ...]"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = (
    "fact_f1", "fact_precision", "fact_recall", "wrong_speaker", "rouge_1", "rouge_2", "rouge_l", "entity_precision",
    "entity_f1", "number_precision", "length_ratio", "terminated",
)  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: dict[str, Any]) -> str:
    """A mean with its interval; a dash where nothing was defined."""
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def arms(scores: dict[str, Any]) -> str:
    """Every arm's main metrics, mean and interval."""
    known = scores["arms"]["sft/raw"]["metrics"]
    names = [name for name in METRICS if name in known]
    rows = []
    for arm, values in scores["arms"].items():
        cells = [values["metrics"][name] for name in names]
        rows.append([arm, *map(cell, cells)])
    return table(["arm", *names], rows)


def contrasts(runs: dict[str, dict[str, Any]]) -> str:
    """C1 to C3 on the primary metrics, a row per run."""
    rows = []
    for run, scores in runs.items():
        for row in scores["contrasts"]:
            if row["primary"]:
                interval = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                rows.append([row["name"], row["metric"], run, interval, f"{row['p']:.4f}", f"{row['p_holm']:.4f}"])
    rows.sort(key=lambda row: (row[1], row[0], row[2]))
    return table(["contrast", "metric", "run", "difference [95 %]", "p", "p (Holm)"], rows)


def failures(scores: dict[str, Any]) -> str:
    """Failure rates per mode and arm."""
    arms_ = list(scores["arms"])
    modes = list(scores["arms"][arms_[0]]["failures"])
    rates = {arm: {m: scores["arms"][arm]["failures"][m]["rate"] for m in modes} for arm in arms_}
    shown = [mode for mode in modes if any(rates[arm][mode] for arm in arms_)]
    cells = [[mode, *("-" if (r := rates[arm][mode]) is None else f"{r:.3f}" for arm in arms_)] for mode in shown]
    return table(["failure", *arms_], cells)


def seconds(folder: Path) -> str:
    """Seconds per stage and the peak memory."""
    stages = [path.stem for path in sorted((folder / ".done").glob("*.json"), key=lambda path: path.stat().st_mtime)]
    done = {stage: json.loads((folder / ".done" / f"{stage}.json").read_text()) for stage in stages}
    total = sum(summary["seconds"] for summary in done.values())
    peak = max(summary["peak_memory_gb"] for summary in done.values())
    parts = ", ".join(f"{stage} {summary['seconds']:.0f}" for stage, summary in done.items())
    return (
        f"{folder.name}: {total:.0f} s ({parts}); peak memory {peak:.2f} GiB; kept update {done['rl']['kept_update']}"
    )


def main() -> None:
    """Read the runs named on the command line and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    folders: list[Path] = parser.parse_args().runs
    runs = {folder.name: json.loads((folder / "evaluation" / "scores.json").read_text()) for folder in folders}
    for folder in folders:
        print(seconds(folder))
    for run, scores in runs.items():
        print(f"\n{run}: {scores['split']}, n = {scores['num_examples']}\n\n{arms(scores)}\n\n{failures(scores)}")
    print(f"\n{contrasts(runs)}")


if __name__ == "__main__":
    main()
