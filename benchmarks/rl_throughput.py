"""Seconds per RL update, completions per second and peak memory: homestretch against TRL.

make bench-rl                         every setting, natural and forced outputs
make bench-rl SETTING=last-mile       one of them, natural outputs (last-mile-forced: forced)

A contender that fails is left out: what was measured of it before stays, the reason is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import common, envs
from benchmarks.models import policy_folder, prompts_file, reward_folder
from benchmarks.ours import recipe
from benchmarks.protocol import Job, Worker, WorkerError
from benchmarks.report import print_throughput
from benchmarks.settings import OUTPUTS, SETTINGS, Setting, result_key

CONTENDERS = ("ours_ppo", "ours_grpo", "trl_1_12_ppo", "trl_1_12_grpo", "trl_current_grpo")
OUR_TOKENS_PER_MICROBATCH = {"cpu": 2048, "cuda": 65_536}
_KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""For glibc: what homestretch.training.keep_freed_memory does."""
WORKLOADS = [f"{name}{'' if outputs == 'natural' else '-forced'}" for outputs in OUTPUTS for name in SETTINGS]
DEFAULT_WORKLOADS = [name for name in WORKLOADS if name != "long-forced"]  # the slowest, and most like its natural one


def job_for(contender: str, setting: Setting, outputs: str, args: argparse.Namespace) -> Job:
    """One contender's work. Makes the folders that it loads if there are none."""
    algorithm = contender.rsplit("_", 1)[1]
    ours = contender.startswith("ours")
    per_prompt = setting.completions_per_prompt[algorithm]
    policy = policy_folder(args.size, setting, outputs, args.device)
    job = Job(
        algorithm=algorithm,
        model_dir=str(policy),
        reward_dir="",
        prompts_path=str(prompts_file(args.size, setting)),
        prompts_per_update=setting.num_rollouts // per_prompt,
        completions_per_prompt=per_prompt,
        max_prompt_tokens=setting.prompt_tokens[1],
        max_new_tokens=setting.new_tokens,
        num_passes=setting.num_passes,
        forced=outputs == "forced",
        sequences_per_microbatch=args.trl_microbatch or setting.sequences_per_microbatch,
        tokens_per_microbatch=args.our_microbatch or OUR_TOKENS_PER_MICROBATCH[args.device],
        device=args.device,
        attention=args.our_attention if ours else args.trl_attention,
        lora=args.lora,
        threads=args.threads,
    )
    return replace(job, reward_dir=str(reward_folder(policy, recipe(replace(job, algorithm="ppo")))))


def keeps_memory(contender: str, args: argparse.Namespace) -> bool:
    """Whether the process keeps freed memory for itself."""
    return contender.startswith("ours") or args.trl_keeps_memory


def started(contender: str, job: Job, folder: Path, args: argparse.Namespace) -> Worker:
    """A contender's process; WorkerError if this homestretch lacks the algorithm."""
    if not contender.startswith("ours"):
        allocator = _KEEP_FREED_MEMORY if keeps_memory(contender, args) else {}
        return Worker(contender, envs.trl_python(contender), "benchmarks.trl_worker", job, folder, allocator)
    try:
        recipe(job)
    except ValueError as error:
        raise WorkerError(f"this homestretch refuses the recipe: {' '.join(str(error).split())}") from error
    source = str(common.FOLDER.parent / "src")
    return Worker(contender, Path(sys.executable), "benchmarks.ours", job, folder, {"PYTHONPATH": source})


def measure(workload: str, args: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """All contenders on one workload, round by round: the figures, and of those that failed the reason."""
    setting = SETTINGS[workload.removesuffix("-forced")]
    outputs = "forced" if workload.endswith("-forced") else "natural"
    workers: dict[str, Worker] = {}
    built: dict[str, float] = {}
    result: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    try:
        for contender in args.contenders:
            try:
                job = job_for(contender, setting, outputs, args)
                workers[contender] = started(contender, job, common.SCRATCH / "jobs" / workload, args)
            except WorkerError as error:
                failures[contender] = str(error)
        for contender, worker in workers.items():
            try:
                worker.answer()
                built[contender] = worker.peak_rss_mb()
            except WorkerError as error:
                failures[contender] = str(error)
        for contender, reason in failures.items():
            print(f"{contender}: {reason}", file=sys.stderr)
        records, failed_later = common.interleaved(
            {name: worker.update for name, worker in workers.items() if name not in failures},
            rounds=args.rounds, warmup=args.warmup, max_seconds=args.max_seconds,
        )  # fmt: skip
        failures |= failed_later
        for name, rows in records.items():
            memory = {"peak_rss_mb": workers[name].peak_rss_mb(), "built_rss_mb": built[name]}
            done = described(job_for(name, setting, outputs, args))
            result[name] = summary(rows, memory) | {"job": done | {"keeps_memory": keeps_memory(name, args)}}
    finally:
        for worker in workers.values():
            worker.stop()
    return {name: result[name] for name in args.contenders if name in result}, failures


def summary(rows: Sequence[dict[str, Any]], memory: dict[str, float]) -> dict[str, Any]:
    """A contender's figures: medians over the rounds, peak memory (the GPU's where there is one), the rounds."""
    middle = common.medians([row | {"completions_per_second": row["completions"] / row["seconds"]} for row in rows])
    return {
        "completions_per_second": middle.pop("completions_per_second"),
        "seconds_per_update": middle.pop("seconds"),
        "peak_mb": max((row["peak_gpu_mb"] for row in rows if "peak_gpu_mb" in row), default=memory["peak_rss_mb"]),
        **memory,
        **middle,
        "rounds": [row["seconds"] for row in rows],
        "rounds_cpu": [row["cpu_seconds"] for row in rows],
    }


def described(job: Job) -> dict[str, Any]:
    """The job without this machine's paths."""
    return {name: value for name, value in asdict(job).items() if not name.endswith(("_dir", "_path"))}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = common.parser(__doc__ or "", rounds=5)
    options.add_argument(
        "--setting", action="append", choices=WORKLOADS, help="one workload (default: all but long-forced)"
    )
    options.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    options.add_argument("--max-minutes", type=float, default=20.0, help="for all rounds (default %(default)s)")
    options.add_argument("--trl-microbatch", type=int, help="TRL's sequences per micro-batch (default: the setting's)")
    options.add_argument("--our-microbatch", type=int, help="our tokens per micro-batch")
    options.add_argument("--trl-attention", choices=("sdpa", "eager"), default="sdpa")
    options.add_argument("--our-attention", choices=("sdpa", "eager"), help="default: homestretch's own")
    options.add_argument("--trl-keeps-memory", action="store_true", help="give TRL our allocator settings")
    options.add_argument("--no-save", action="store_true", help="print the table only")
    args = common.parsed(options, arguments)
    args.workloads = args.setting or DEFAULT_WORKLOADS
    return args


def shares(workloads: Sequence[str], minutes: float) -> dict[str, float]:
    """Seconds for each workload out of the minutes for all, by the tokens that go in and out."""
    sizes = {}
    for name in workloads:
        setting = SETTINGS[name.removesuffix("-forced")]
        sizes[name] = setting.num_rollouts * (sum(setting.prompt_tokens) / 2 + 2 * setting.new_tokens)
    return {name: 60 * minutes * size / sum(sizes.values()) for name, size in sizes.items()}


def main() -> None:
    """Measure, write, print. Exit code 1, and why, if a contender failed; its earlier figures are left as they are."""
    args = parse()
    environment = common.environment(args.device, args.threads)
    trl = {name: envs.trl_python(name) for name in args.contenders if name.startswith("trl")}
    environment["trl_environments"] = {name: envs.versions(python) for name, python in trl.items()}
    budget = shares(args.workloads, args.max_minutes)
    path = common.results_path("rl_throughput", args.device)
    failed: list[str] = []
    for workload in args.workloads:
        args.max_seconds = budget[workload]
        measured, failures = measure(workload, args)
        failed += [f"{workload}: {contender}: {reason}" for contender, reason in failures.items()]
        if not measured:
            continue
        outputs = "forced" if workload.endswith("-forced") else "natural"
        key = result_key(workload.removesuffix("-forced"), outputs, size=args.size, lora=args.lora)
        result = {"environment": environment, "settings": {key: common.rounded(measured)}}
        if not args.no_save:
            common.save(path, result)
        print_throughput(result)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
