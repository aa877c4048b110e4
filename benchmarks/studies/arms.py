"""C4: RL against what else could be done with the same negatives and the same reward, and what each costs.

python -m benchmarks.studies.arms [RECIPE] --seeds 0 1 2 [--only best_of_n dpo]

For each seed a run of the recipe, to which `baselines.arms` are added in a copy that keeps SFT, negatives, reward and
RL. `--only` names arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from benchmarks.report import markdown
from benchmarks.studies import runs, tables
from benchmarks.studies.seeds import add_holm, contrast, difference, mean_levels, read_outputs, require_seeds
from homestretch.config import ArmName
from homestretch.rundir import RunDir, read_json

ARMS: tuple[str, ...] = get_args(ArmName)
COSTS = {
    "training s": "training_seconds", "with reward, negatives s": "total_seconds", "sampled": "sampled_completions",
    "trained tokens": "trained_tokens", "decoded tokens": "decoded_tokens", "decoding s": "decoding_seconds",
}  # fmt: skip
"""Column -> key of a row of scores.json's `costs` (docs/stages/baselines.md)."""


def variant(arms: tuple[str, ...]) -> runs.Variant:
    """The recipe with these arms beside RL."""
    name = "arms" if set(arms) == set(ARMS) else "-".join(["arms", *arms])
    return runs.Variant(name, (f"baselines.arms=[{', '.join(arms)}]",), shares="rl")


def measure(found: Mapping[int, Mapping[str, RunDir]]) -> dict[str, Any]:
    """C4 for each arm and C1 beside it, the arms' levels, and their costs, means over seeds."""
    folders = {seed: rundir for seed, of_seed in found.items() for rundir in of_seed.values()}
    require_seeds(folders, "a run with other arms")
    outputs = {seed: read_outputs(rundir) for seed, rundir in folders.items()}
    some = next(iter(outputs.values()))
    others = [arm for arm in some.arms if arm.endswith("/raw") and arm.partition("/")[0] in ARMS]
    rows = []
    for name, arm in [("C1", "sft/raw"), *(("C4", arm) for arm in others)]:
        for metric in some.primaries:
            about = {"name": name, "a": "rl/raw", "b": arm, "metric": metric, "primary": name == "C4"}
            pairs = {seed: difference(of, "rl/raw", of, arm, metric) for seed, of in outputs.items()}
            rows.append(contrast(about, outputs, pairs))
    kept = [row for row in rows if row is not None]
    add_holm(kept)
    levels = mean_levels(outputs, ("sft/raw", "rl/raw", *others), (*some.primaries, "length_ratio", "terminated"))
    return {"contrasts": kept, "levels": levels, "costs": mean_costs(folders)}


def mean_costs(folders: Mapping[int, RunDir]) -> dict[str, dict[str, float | None]]:
    """Arm -> cost -> mean over seeds; None where a seed did not record it."""
    costs = [read_json(rundir.scores_path)["costs"] for rundir in folders.values()]

    def mean(arm: str, key: str) -> float | None:
        values = [of_seed[arm][key] for of_seed in costs]
        return None if None in values else tables.mean(values)

    return {arm: {key: mean(arm, key) for key in COSTS.values()} for arm in costs[0]}


def section(setting: dict[str, Any]) -> str:
    """The tables of one recipe."""
    rows = setting["contrasts"]
    costs = [[arm, *(tables.number(cost[key], ",.0f") for key in COSTS.values())]
             for arm, cost in setting["costs"].items()]  # fmt: skip
    return "\n\n".join(
        [
            tables.level_table(setting["levels"]),
            tables.kept_line(setting),
            tables.contrast_table([row for row in rows if row["primary"]]),
            tables.seeds_line(rows),
            "Beside them C1, a Holm family of its own:",
            tables.contrast_table([row for row in rows if not row["primary"]]),
            "What each arm cost beyond SFT, means over the seeds:",
            markdown(["arm", *COSTS], costs),
        ]
    )


def main() -> None:
    """Run, compare, write."""
    args = runs.parser("arms", __doc__, ARMS).parse_args()
    with runs.answering_mistakes():
        chosen = variant(tuple(args.only) or ARMS)
        args.only = []
        runs.conduct("arms", runs.study_of(args), lambda seed: (chosen,), measure)


if __name__ == "__main__":
    main()
