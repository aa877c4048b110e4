"""What all benchmarks share: rounds, medians, the environment, the result files and tables."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.protocol import WorkerError

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
SCRATCH = FOLDER / ".scratch"
ENVS = FOLDER / ".envs"
Record = dict[str, Any]


def environment(device: str, threads: int) -> Record:
    """What the figures were measured on."""
    from homestretch.environment import describe

    described = describe() | {"command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
    return described | {"device": device, "threads": threads, "date": datetime.date.today().isoformat()}


def interleaved(
    contenders: Mapping[str, Callable[[], Record]], *, rounds: int, warmup: int = 1, max_seconds: float | None = None
) -> tuple[dict[str, list[Record]], dict[str, str]]:
    """Run every contender once a round, in turn; the records after the warm-up rounds, and what failed.

    No new round is begun that would pass `max_seconds`, once two have been kept. A contender that fails is left out
    of the rounds that follow.
    """
    records: dict[str, list[Record]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    start = time.perf_counter()
    for index in range(warmup + rounds):
        elapsed = time.perf_counter() - start
        if max_seconds and index >= warmup + 2 and elapsed * (index + 1) / index > max_seconds:
            break
        for name, run in contenders.items():
            if name in failures:
                continue
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # no progress bars while the clock runs
                    record = run()
            except WorkerError as error:
                failures[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr)
                continue
            if index >= warmup:
                records[name].append(record)
    return {name: rows for name, rows in records.items() if name not in failures}, failures


def medians(records: Sequence[Mapping[str, Any]]) -> Record:
    """The median over the rounds of every number that all rounds have."""
    names = [
        name
        for name, value in records[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and all(name in r for r in records)
    ]
    return {name: statistics.median(r[name] for r in records) for name in names}


@contextlib.contextmanager
def stopwatch(seconds: dict[str, float], name: str, device: str = "cpu") -> Iterator[None]:
    """Add the block's duration to `seconds[name]`; on a GPU, that of the work it queued."""
    synchronize(device)
    start = time.perf_counter()
    yield
    synchronize(device)
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for the GPU, if the work is on one."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def results_path(name: str, device: str) -> Path:
    """Where a benchmark's figures go; those of a GPU have a file of their own."""
    return RESULTS / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Record:
    """Results of an earlier run with those of a new one in their place.

    Settings and contenders measured again are replaced, others stay; `runs` says what each setting was measured on.
    """
    settings = {name: dict(setting) for name, setting in old.get("settings", {}).items()}
    for name, setting in new["settings"].items():
        settings[name] = settings.get(name, {}) | dict(setting)
    runs = dict(old.get("runs", {})) | {name: new["environment"] for name in new["settings"]}
    return dict(old) | dict(new) | {"settings": settings, "runs": runs}


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Merge into the result file."""
    from homestretch.rundir import read_json, write_json

    write_json(path, merged(read_json(path) if path.exists() else {}, result))
    print(f"wrote {path.relative_to(FOLDER.parent) if path.is_relative_to(FOLDER.parent) else path}")


def rounded(value: Any, digits: int = 4) -> Any:
    """The same structure with every float at `digits` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, digits) for v in value]
    return value


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    from homestretch.environment import cpu_count

    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help="rounds that count (default %(default)s)")
    options.add_argument("--warmup", type=int, default=1, help="rounds dropped before them (default %(default)s)")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--size", choices=("4m", "0.5b"), help="the model (default: 4m on cpu, 0.5b on cuda)")
    options.add_argument("--lora", action="store_true", help="train adapters")
    options.add_argument("--threads", type=int, default=cpu_count(), help="CPU threads (default: all)")
    return options


def parsed(options: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, with the model chosen by the device."""
    from homestretch.environment import quiet_libraries

    args = options.parse_args(arguments)
    quiet_libraries()
    args.size = args.size or ("4m" if args.device == "cpu" else "0.5b")
    return args
