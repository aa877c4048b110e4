"""C5: is a reward taught by all failure modes better than one taught by the paper's five classes, after RL?

python -m benchmarks.studies.full_vs_paper [RECIPE] --seeds 0 1 2

For each seed a run of the recipe (`full`) and one with `negatives.preset=paper`, which begins with the same SFT model;
loss and score of the paper's reward are those of its preset. C5 is full minus paper, rl/raw and rl/post.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
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
from homestretch.rundir import RunDir
from homestretch.types import UserError

METRICS = (
    "fact_f1", "rouge_l", "entity_precision", "entity_f1", "number_precision", "wrong_speaker", "wrong_entity",
    "wrong_number", "wrong_date", "omission",
)  # fmt: skip
"""Compared where a run has them, beside its primary metrics."""

PAPER = runs.Variant("paper", ("negatives.preset=paper", "reward.loss=null", "reward.score=null"), shares="sft")


def measure(found: runs.Runs) -> dict[str, Any]:
    """The rows of C5, and the arms' levels, over the seeds that have both runs."""
    both = {seed: of_seed for seed, of_seed in found.items() if {"full", "paper"} <= of_seed.keys()}
    require_seeds(both, "both runs, full and paper,")
    for of_seed in both.values():
        require_one_model(of_seed["full"], of_seed["paper"])
    outputs = {
        seed: {name: read_outputs(of_seed[name]) for name in ("full", "paper")} for seed, of_seed in both.items()
    }
    full, paper = ({seed: of_seed[name] for seed, of_seed in outputs.items()} for name in ("full", "paper"))
    metrics = compared(next(iter(full.values())))
    rows = [_row(full, paper, arm, metric) for metric in metrics for arm in ("rl/raw", "rl/post")]
    kept = [row for row in rows if row is not None]
    add_holm(kept)
    levels = mean_levels(full, ("sft/raw", "sft/post"), metrics)
    for name, of_variant in (("paper", paper), ("full", full)):
        of_rl = mean_levels(of_variant, ("rl/raw", "rl/post"), metrics)
        levels |= {f"{name} {arm}": values for arm, values in of_rl.items()}
    agree = [sft_agreement(full[seed], paper[seed]) for seed in outputs]
    return {"contrasts": kept, "levels": levels, "sft_outputs_agree": agree}


def require_one_model(a: RunDir, b: RunDir) -> None:
    """UserError if the two runs did not begin with the same SFT weights."""
    names = {path.name for rundir in (a, b) for path in rundir.sft_dir.glob("*.safetensors")}
    same, _, _ = filecmp.cmpfiles(a.sft_dir, b.sft_dir, names, shallow=False)
    if not names or len(same) < len(names):
        raise UserError(f"{a.path} and {b.path}: their SFT models are not the same; begin anew with another --out")


def sft_agreement(a: Outputs, b: Outputs) -> float:
    """Share of the examples on which the two runs' one SFT model answers alike; less than 1: other arithmetic."""
    pairs = zip(a.texts["sft/raw"], b.texts["sft/raw"], strict=True)
    return sum(x == y for x, y in pairs) / len(a.keys)


def compared(outputs: Outputs) -> Sequence[str]:
    """The primary metrics, then those of METRICS that the run has."""
    known = outputs.arms["rl/raw"]
    return list(dict.fromkeys((*outputs.primaries, *(metric for metric in METRICS if metric in known))))


def _row(full: Mapping[int, Outputs], paper: Mapping[int, Outputs], arm: str, metric: str) -> dict[str, Any] | None:
    some = next(iter(full.values()))
    about = {
        "name": "C5", "a": f"full {arm}", "b": f"paper {arm}", "metric": metric, "primary": metric in some.primaries,
        "higher_is_better": some.higher_is_better[metric],
    }  # fmt: skip
    return contrast(about, full, {seed: difference(full[seed], arm, paper[seed], arm, metric) for seed in full})


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
    if (agree := min(setting["sft_outputs_agree"])) < 1:
        parts.append(
            f"The one SFT model answers alike in both runs on {agree:.1%} of the examples or more: the runs did not "
            "choose the same arithmetic; set dtype."
        )
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
