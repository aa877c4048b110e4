"""Reward against exact truth as RL moves away from the SFT model, with and without the guard.

python -m benchmarks.studies.over_optimisation [RECIPE] --seeds 0 1 2 [--updates 96]

On a built-in task with exact facts. Every run begins with the SFT model, negatives and reward of the recipe's own run.
The guard and the choice of checkpoints see `JUDGES`, as in a task without exact facts; the truth, `fact_f1`, is logged
as a term of weight 0 and seen by nobody. Variants: `guard` (the recipe's guard and KL weight), `guard_no_kl` (KL weight
0), `no_guard` (KL weight 0, alarms only recorded, no stop).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.report import markdown
from benchmarks.studies import runs, tables
from benchmarks.studies.seeds import across_seeds
from homestretch.rundir import RunDir, read_jsonl, write_text
from homestretch.types import UserError

TRUTH = "fact_f1"
JUDGES = ("rouge_l", "entity_f1")
CONFIDENCE = 0.95

_NO_KL = ("rl.kl.beta=0", "rl.kl.adaptive=false")
_NO_GUARD = ("rl.guard.max_alarms=0", "rl.guard.patience=1000000", "rl.guard.max_kl=1e9")
CHANGES: dict[str, tuple[str, ...]] = {"guard": (), "guard_no_kl": _NO_KL, "no_guard": (*_NO_KL, *_NO_GUARD)}


def variants(num_updates: int) -> tuple[runs.Variant, ...]:
    """RL with and without the guard; nothing after RL is run."""
    seen = (
        f"rl.num_updates={num_updates}",
        f"rl.terms=[{{scorer: {TRUTH}, weight: 0}}]",
        f"evaluate.selection_metrics=[{', '.join(JUDGES)}]",
    )
    return tuple(runs.Variant(name, (*seen, *own), shares="reward", until="rl") for name, own in CHANGES.items())


def curve(rundir: RunDir) -> dict[str, Any]:
    """What every validation saw: the update, KL, rewards, held-out score and truth; and what became of the run.

    `kl` (nats per completion) and `reward`, of samples for training prompts, are means over the updates since the last
    validation, so of policies that lie before the validated one; at the SFT model 0, and the first such mean, since one
    update is few samples. `greedy` is the reward of the outputs that are validated. Rewards are in the calibrated unit,
    the SD over SFT samples.
    """
    rows = [row for row in read_jsonl(rundir.metrics_path) if row["stage"] == "rl"]
    updates = [row for row in rows if "rl/kl" in row]
    seen = [row for row in rows if "validation/score" in row]
    since = list(pairwise(row["step"] for row in seen))
    done = rundir.summary("rl")

    def means(key: str) -> list[float]:
        return [fmean(row[key] for row in updates if start < row["step"] <= end) for start, end in since]

    sampled = means("rl/score")
    return {
        "update": [row["step"] for row in seen],
        "kl": [0.0, *(max(0.0, mean) for mean in means("rl/kl"))],
        "reward": [sampled[0], *sampled],
        "greedy": [row["validation/score"] for row in seen],
        "held_out": [row["validation/selection"] for row in seen],
        "truth": [row[f"validation/term/{TRUTH}"] for row in seen],
        "kept_update": done["kept_update"],
        "stopped": done["stopped"],
        "alarms": [{key: alarm[key] for key in ("update", "kind", "action")} for alarm in done["alarms"]],
    }


def measure(found: runs.Runs) -> dict[str, Any]:
    """The curves, by variant and seed, and what they come to."""
    curves: dict[str, dict[str, Any]] = {}
    for seed, of_seed in found.items():
        for name, rundir in of_seed.items():
            curves.setdefault(name, {})[str(seed)] = curve(rundir)
    outcomes = {name: _over_seeds([outcome(one) for one in of_seed.values()]) for name, of_seed in curves.items()}
    return {"curves": curves, "outcomes": outcomes, "saved": saved_by_guard(curves)}


def outcome(one: Mapping[str, Any]) -> dict[str, float]:
    """A curve in numbers: how far it went, and reward and truth at its end, truth at its best and as shipped.

    `reward` is the change since the first validation interval; `greedy` and truths are changes from the SFT model.
    """
    reward, greedy, truth = (np.array(one[key]) - one[key][0] for key in ("reward", "greedy", "truth"))
    shipped = one["update"].index(one["kept_update"])
    return {
        "updates": one["update"][-1],
        "kl": one["kl"][-1],
        "reward": float(reward[-1]),
        "greedy": float(greedy[-1]),
        "truth": float(truth[-1]),
        "best_truth": float(truth.max()),
        "shipped_truth": float(truth[shipped]),
        "alarms": len(one["alarms"]),
    }


def _over_seeds(outcomes: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {key: _mean([one[key] for one in outcomes]) for key in outcomes[0]}


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    """Over seeds, which have nothing in common: mean, t interval, p."""
    arrays = [np.array([value], dtype=np.float64) for value in values]
    return across_seeds(arrays, [[seed] for seed in range(len(values))], confidence=CONFIDENCE)


def saved_by_guard(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What each variant with a guard ships minus what RL without one ends with, truth, paired over seeds."""
    last = {seed: outcome(one)["truth"] for seed, one in curves.get("no_guard", {}).items()}
    saved = {}
    for name in curves:
        ships = {seed: outcome(one)["shipped_truth"] for seed, one in curves[name].items() if seed in last}
        if name != "no_guard" and ships:
            saved[name] = _mean([ships[seed] - last[seed] for seed in ships])
    return saved


def section(setting: dict[str, Any]) -> str:
    """The tables of one recipe."""
    columns = ["", "updates", "KL at the end", "reward of samples at the end", "of greedy outputs", "truth at the end",
               "truth at its best", "truth of what is shipped", "alarms"]  # fmt: skip
    forms = ["updates", "kl", "reward", "greedy", "truth", "best_truth", "shipped_truth", "alarms"]
    rows = [[name, *(_cell(found[key], key) for key in forms)] for name, found in setting["outcomes"].items()]
    lines = [
        f"{name}: what it ships minus what RL without a guard ends with, {TRUTH}: "
        f"{tables.number(found['mean'], '+.3f')}{tables.interval(found['low'], found['high'])}, "
        f"p {tables.number(found['p'])} (t over seeds), {tables.number(found['p_sign_flip'])} (sign flips)."
        for name, found in setting["saved"].items()
    ]
    seeds = ", ".join(map(str, setting["seeds"]))
    about = (
        f"Means over seeds {seeds} with 95 % t intervals. Truth and the reward of greedy outputs are changes from the "
        "SFT model, the reward of samples from its mean before the first validation."
    )
    return "\n\n".join([markdown(columns, rows), about, *lines])


def _cell(found: Mapping[str, Any], key: str) -> str:
    if key in ("updates", "alarms"):
        return tables.number(found["mean"], ".1f")
    if key == "kl":
        return tables.number(found["mean"], ".2f")
    return tables.number(found["mean"], "+.3f") + tables.interval(found["low"], found["high"])


def draw(setting: Mapping[str, Any], path: Path) -> None:
    """Rewards and truth against the square root of the KL (Gao et al. 2023), an SVG; the same bytes every time."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    colours = dict(zip(CHANGES, ("#1f6f8b", "#b5651d", "#a02020"), strict=True))
    panels = (("reward", "reward of samples"), ("greedy", "reward of greedy outputs"), ("truth", f"truth, {TRUTH}"))
    with matplotlib.rc_context({"svg.hashsalt": "homestretch", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(11.0, 3.0), layout="constrained", facecolor="white")
        for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
            for name, of_seed in setting["curves"].items():
                for i, one in enumerate(of_seed.values()):
                    change = np.array(one[key]) - one[key][0]
                    axes.plot(np.sqrt(one["kl"]), change, "o-", color=colours[name], linewidth=1, markersize=2.5,
                              alpha=0.8, label=name if i == 0 else None)  # fmt: skip
            axes.axhline(0, color="#999999", linewidth=0.8)
            axes.set_xlabel("square root of the KL, nats per completion")
            axes.set_ylabel(f"{label}, change")
            axes.spines[["top", "right"]].set_visible(False)
        figure.axes[0].legend(frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    write_text(path, buffer.getvalue())


def main() -> None:
    """Run, read, write."""
    options = runs.parser("over_optimisation", __doc__, tuple(CHANGES))
    options.add_argument("--updates", type=int, default=96, help="of RL, all variants (default %(default)s)")
    args = options.parse_args()
    with runs.answering_mistakes():
        study = runs.study_of(args)
        if study.config(runs.FULL, study.seeds[0]).data.task is None:
            raise UserError(f"{study.recipe}: the truth is exact in built-in tasks only (data.task)")
        runs.conduct("over_optimisation", study, lambda seed: variants(args.updates), measure)


if __name__ == "__main__":
    main()
