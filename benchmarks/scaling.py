"""How an update's cost grows with prompts, k, response length, prompt length and width, and how far the floor is.

make bench-scaling
make bench-scaling SETTING=new_tokens       one axis
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.floor import Shape, floor_seconds, flops, model_fields, update_products
from benchmarks.models import policy_folder, prompts_file, reward_folder
from benchmarks.ours import OurRun, recipe
from benchmarks.protocol import Job
from benchmarks.report import print_scaling
from benchmarks.settings import SIZES, WIDTHS, Setting

BASE = {"prompts": 8, "k": 8, "new_tokens": 32, "prompt_tokens": 256}
AXES: dict[str, tuple[int, ...]] = {
    "prompts": (2, 4, 8, 16),
    "k": (1, 2, 4, 8, 16),
    "new_tokens": (8, 16, 32, 64, 128),
    "prompt_tokens": (64, 128, 256, 512, 1024),
    "width": WIDTHS,
}
FITTED_IN = {
    "prompts": "prompts", "k": "k*R", "new_tokens": "k*R", "prompt_tokens": "P", "width": "matrix GFLOP"
}  # fmt: skip
PARTS = ("rollout", "scoring", "log_probs", "training", "update")
TOKENS_PER_MICROBATCH = {"cpu": 2048, "cuda": 65_536}


def job_for(point: dict[str, int], size: str, args: argparse.Namespace) -> Job:
    """An update of that shape, with outputs of full length."""
    p, r = point["prompt_tokens"], point["new_tokens"]
    setting = Setting((p, p), r, {args.algorithm: point["k"]}, sequences_per_microbatch=1)
    policy = policy_folder(size, setting, "forced", args.device)
    job = Job(
        algorithm=args.algorithm, model_dir=str(policy), reward_dir="", prompts_path=str(prompts_file(size, setting)),
        prompts_per_update=point["prompts"], completions_per_prompt=point["k"], max_prompt_tokens=p, max_new_tokens=r,
        num_passes=setting.num_passes, forced=True, sequences_per_microbatch=1,
        tokens_per_microbatch=args.our_microbatch or TOKENS_PER_MICROBATCH[args.device], device=args.device,
        attention=args.attention, lora=args.lora, threads=args.threads,
    )  # fmt: skip
    return replace(job, reward_dir=str(reward_folder(policy, recipe(job))))


def shape_of(job: Job, size: str) -> Shape:
    """The same for the floor."""
    return Shape(
        prompts=job.prompts_per_update, completions_per_prompt=job.completions_per_prompt,
        prompt_tokens=job.max_prompt_tokens, new_tokens=job.max_new_tokens, num_passes=job.num_passes,
        tokens_per_microbatch=job.tokens_per_microbatch, slots=job.num_rollouts, **model_fields(SIZES[size]),
    )  # fmt: skip


def measured_axis(axis: str, args: argparse.Namespace) -> dict[str, Any]:
    """The points of one axis, interleaved, each with its floor; and the linear fits."""
    jobs, shapes = {}, {}
    for value in AXES[axis]:
        size = f"{args.size}-w{value}" if axis == "width" else args.size
        jobs[value] = job_for(BASE if axis == "width" else BASE | {axis: value}, size, args)
        shapes[value] = shape_of(jobs[value], size)
    runs = {str(value): OurRun(job) for value, job in jobs.items()}
    records, _ = common.interleaved(
        {name: run.update for name, run in runs.items()},
        rounds=args.rounds, warmup=args.warmup, max_seconds=args.max_seconds,
    )  # fmt: skip
    points = []
    for value, job in jobs.items():
        row = common.medians(records[str(value)])
        seconds = {part: row["seconds" if part == "update" else f"seconds_{part}"] for part in PARTS}
        floor = floor_seconds(shapes[value], args.device)
        amounts = {
            "prompts": job.prompts_per_update,
            "k*R": job.completions_per_prompt * job.max_new_tokens,
            "P": job.max_prompt_tokens,
            "matrix GFLOP": sum(map(flops, update_products(shapes[value]).values())) / 1e9,
        }
        points.append({
            axis: value, **amounts, "seconds": seconds, "floor_seconds": floor,
            "share": {part: floor[part] / seconds[part] for part in PARTS if seconds[part]},
            "mean_completion_tokens": row["mean_completion_tokens"],
            "rounds": [record["seconds"] for record in records[str(value)]],
        })  # fmt: skip
    x = [point[FITTED_IN[axis]] for point in points]
    fits = {part: linear_fit([x], [point["seconds"][part] for point in points]) for part in PARTS}
    return {"axis": axis, "fitted_in": FITTED_IN[axis], "points": points, "fits": fits}


def linear_fit(columns: Sequence[Sequence[float]], y: Sequence[float]) -> dict[str, Any]:
    """Least squares of y on a constant and the columns: constant, slopes, R^2 (1 if y does not vary)."""
    target = np.asarray(y, dtype=float)
    design = np.column_stack([np.ones(len(target)), *map(np.asarray, columns)])
    coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
    variation = float(((target - target.mean()) ** 2).sum())
    left = float(((target - design @ coefficients) ** 2).sum())
    r_squared = 1 - left / variation if variation > 0 else 1.0
    return {
        "constant": float(coefficients[0]),
        "slopes": [float(c) for c in coefficients[1:]],
        "r_squared": r_squared,
    }


def joint_fit(axes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Seconds of an update on k*R and P together, over the points of the three axes that vary them."""
    names = [name for name in ("k", "new_tokens", "prompt_tokens") if name in axes]
    points = [point for name in names for point in axes[name]["points"]]
    columns = [[point["k*R"] for point in points], [point["P"] for point in points]]
    return {part: linear_fit(columns, [point["seconds"][part] for point in points]) for part in PARTS}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = common.parser(__doc__ or "", rounds=5)
    options.add_argument("--setting", action="append", choices=AXES, help="one axis (default: all)")
    options.add_argument("--algorithm", default="ppo", help="rl.algorithm (default %(default)s)")
    options.add_argument("--attention", choices=("sdpa", "eager"))
    options.add_argument("--our-microbatch", type=int, help="tokens per micro-batch")
    options.add_argument("--max-minutes", type=float, default=15.0, help="for all rounds (default %(default)s)")
    options.add_argument("--no-save", action="store_true", help="print the tables only")
    args = common.parsed(options, arguments)
    args.axes = args.setting or list(AXES)
    args.max_seconds = 60 * args.max_minutes / len(args.axes)
    return args


def main() -> None:
    """Measure, write, print."""
    args = parse()
    if args.size != "4m" and "width" in args.axes:
        args.axes.remove("width")
    axes = {axis: measured_axis(axis, args) for axis in args.axes}
    result: dict[str, Any] = {"environment": common.environment(args.device, args.threads)}
    suffix = "".join([f"-{args.size}" if args.size != "4m" else "", "-lora" if args.lora else ""])
    result["settings"] = common.rounded({axis + suffix: measured for axis, measured in axes.items()})
    if {"k", "new_tokens", "prompt_tokens"} <= set(axes):
        result["joint_fit" + suffix] = common.rounded(joint_fit(axes))
    if not args.no_save:
        common.save(common.results_path("scaling", args.device), result)
    print_scaling(result)


if __name__ == "__main__":
    main()
