"""C5: is a reward taught by all failure modes better than one taught by the paper's five classes, after RL?

python -m benchmarks.studies.full_vs_paper [RECIPE] --seeds 0 1 2

For each seed a run of the recipe (`full`) and one with `negatives.preset=paper`, which begins with the same SFT model;
loss and score of the paper's reward are those of its preset. C5 is full minus paper, rl/raw and rl/post.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.studies import runs, tables
from benchmarks.studies.seeds import (
    Outputs,
    add_holm,
    contrast,
    difference,
    mean_levels,
    read_outputs,
    require_seeds,
)
from homestretch.types import UserError

METRICS = (
    "fact_f1", "rouge_l", "entity_precision", "entity_f1", "number_precision", "wrong_speaker", "wrong_entity",
    "wrong_number", "wrong_date", "omission",
)  # fmt: skip
"""Compared where a run has them, beside its primary metrics."""

PAPER = runs.Variant("paper", ("negatives.preset=paper", "reward.loss=null", "reward.score=null"), shares="sft")


def measure(found: runs.Runs) -> dict[str, Any]:
    """The rows of C5, and the arms' levels, over the seeds that have both runs."""
    outputs = {
        seed: {name: read_outputs(rundir) for name, rundir in of_seed.items()}
        for seed, of_seed in found.items()
        if {"full", "paper"} <= of_seed.keys()
    }
    require_seeds(outputs, "both runs, full and paper,")
    for seed, of_seed in outputs.items():
        if of_seed["full"].texts["sft/raw"] != of_seed["paper"].texts["sft/raw"]:
            raise UserError(f"seed {seed}: the two runs' SFT models answer differently, so they are not one model")
    full = {seed: of_seed["full"] for seed, of_seed in outputs.items()}
    rows = []
    for metric in compared(next(iter(full.values()))):
        for arm in ("rl/raw", "rl/post"):
            rows.append(_row(outputs, full, arm, metric))
    kept = [row for row in rows if row is not None]
    add_holm(kept)
    metrics = compared(next(iter(full.values())))
    paper = {seed: of_seed["paper"] for seed, of_seed in outputs.items()}
    levels = mean_levels(full, ("sft/raw", "sft/post"), metrics)
    for name, of_variant in (("paper", paper), ("full", full)):
        found_levels = mean_levels(of_variant, ("rl/raw", "rl/post"), metrics)
        levels |= {f"{name} {arm}": values for arm, values in found_levels.items()}
    return {"contrasts": kept, "levels": levels}


def compared(outputs: Outputs) -> Sequence[str]:
    """The primary metrics, then those of METRICS that the run has."""
    known = outputs.arms["rl/raw"]
    return list(dict.fromkeys((*outputs.primaries, *(metric for metric in METRICS if metric in known))))


def _row(
    outputs: dict[int, dict[str, Outputs]], full: dict[int, Outputs], arm: str, metric: str
) -> dict[str, Any] | None:
    some = next(iter(full.values()))
    about = {
        "name": "C5", "a": f"full {arm}", "b": f"paper {arm}", "metric": metric, "primary": metric in some.primaries,
        "higher_is_better": some.higher_is_better[metric],
    }  # fmt: skip
    pairs = {seed: difference(of["full"], arm, of["paper"], arm, metric) for seed, of in outputs.items()}
    return contrast(about, full, pairs)


def section(setting: dict[str, Any]) -> str:
    """The tables of one recipe."""
    primary = [row for row in setting["contrasts"] if row["primary"]]
    others = [row for row in setting["contrasts"] if not row["primary"]]
    parts = [
        tables.level_table(setting["levels"]),
        tables.kept_line(setting),
        tables.contrast_table(primary),
        tables.seeds_line(primary),
    ]
    if others:
        parts += ["Not primary (a Holm family of their own):", tables.contrast_table(others)]
    return "\n\n".join(parts)


def main() -> None:
    """Run, compare, write."""
    args = runs.parser("full_vs_paper", __doc__, ("full", "paper")).parse_args()
    with runs.answering_mistakes():
        study = runs.study_of(args)
        if study.config(runs.FULL, study.seeds[0]).negatives.preset != "full":
            raise UserError(f"{study.recipe}: negatives.preset is not full, so there is nothing to compare with paper")
        runs.conduct("full_vs_paper", study, lambda seed: (runs.FULL, PAPER), measure)


if __name__ == "__main__":
    main()
