"""The run directory: its layout (an interface), atomic writes, and the markers that say a stage is done.

run/
  config.yaml  environment.json  metrics.jsonl
  sft/  negatives/{train,validation}.jsonl  reward/ + reward/audit.json [+ reward/held_out/]
  reward/ensemble.json  reward/members/N/    in place of one reward model, where there are several
  policy/  [refresh/ROUND/{mined.jsonl,refresh.json,reward/}]  baselines/ARM/
  evaluation/{scores.json,samples.jsonl}  report.html  report.json
  .done/STAGE.json      written last, atomically; a stage without it is run again from its start
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from homestretch.types import UserError

_MAKE_AGAIN = "put it back, or make the stage that wrote it again (`homestretch STAGE RECIPE`)"
STAGES = ("sft", "negatives", "reward", "rl", "baselines", "evaluate", "report")


def planned_stages(*, with_baselines: bool) -> tuple[str, ...]:
    """The stages of a run in order; `baselines` is one of them only where the recipe asks for such arms."""
    return tuple(stage for stage in STAGES if with_baselines or stage != "baselines")


class RunDir:
    """Paths of one run and the only place that writes into it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment_path(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def base_dir(self) -> Path:
        """A model made from a config in the run, before SFT."""
        return self.path / "base"

    @property
    def sft_dir(self) -> Path:
        return self.path / "sft"

    @property
    def negatives_dir(self) -> Path:
        return self.path / "negatives"

    @property
    def reward_dir(self) -> Path:
        return self.path / "reward"

    @property
    def audit_path(self) -> Path:
        return self.reward_dir / "audit.json"

    @property
    def held_out_reward_dir(self) -> Path:
        """A reward that RL is never paid by; there if the recipe asks for one."""
        return self.reward_dir / "held_out"

    @property
    def refresh_dir(self) -> Path:
        """What alarms in RL taught the reward, a folder for each round."""
        return self.path / "refresh"

    @property
    def policy_dir(self) -> Path:
        return self.path / "policy"

    @property
    def baselines_dir(self) -> Path:
        """One folder for each trained arm beside RL."""
        return self.path / "baselines"

    @property
    def rl_samples_path(self) -> Path:
        """Validation samples as RL went on."""
        return self.path / "samples.jsonl"

    @property
    def scores_path(self) -> Path:
        return self.path / "evaluation" / "scores.json"

    @property
    def samples_path(self) -> Path:
        return self.path / "evaluation" / "samples.jsonl"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def report_json_path(self) -> Path:
        return self.path / "report.json"

    def _marker_path(self, stage: str) -> Path:
        return self.path / ".done" / f"{stage}.json"

    def is_done(self, stage: str) -> bool:
        """Whether the stage finished."""
        return self._marker_path(stage).exists()

    def mark_undone(self, stage: str) -> None:
        """Say that the stage, and those after it, which read its files, are to be run. Called before it starts."""
        for later in reversed(STAGES[STAGES.index(stage) :]):
            self._marker_path(later).unlink(missing_ok=True)

    def mark_done(self, stage: str, summary: Mapping[str, Any]) -> None:
        """Say that the stage finished. Called last; the stages after it are marked undone first."""
        self.mark_undone(stage)
        write_json(self._marker_path(stage), dict(summary))

    def summary(self, stage: str) -> dict[str, Any]:
        """What the finished stage said of itself."""
        return dict(read_json(self._marker_path(stage)))

    def drop_metrics(self, stage: str) -> None:
        """Remove the stage's rows from metrics.jsonl, so that a stage run again does not count twice.

        A last line without its end, which a process that was killed may leave, goes with them.
        """
        if self.metrics_path.exists():
            write_jsonl(self.metrics_path, self._metrics_without(stage))

    def begin(self, stage: str) -> None:
        """`mark_undone` and `drop_metrics`; nothing is changed if metrics.jsonl is damaged (UserError)."""
        kept = self._metrics_without(stage) if self.metrics_path.exists() else None
        self.mark_undone(stage)
        if kept is not None:
            write_jsonl(self.metrics_path, kept)

    def _metrics_without(self, stage: str) -> list[dict[str, Any]]:
        whole_lines, _, _ = _read_text(self.metrics_path).rpartition("\n")
        return [row for row in _rows(whole_lines, self.metrics_path) if row.get("stage") != stage]

    def log_metrics(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row `{"stage": ..., "step": ..., "area/name": value, ...}` to metrics.jsonl."""
        append_jsonl(self.metrics_path, {"stage": stage, "step": step, **metrics})


def open_finished(path: Path, stage: str, folder: str) -> RunDir:
    """The run at this path, of which the stage that writes `folder` is done. Raises UserError otherwise."""
    rundir = RunDir(path)
    if not rundir.config_path.is_file():
        raise UserError(f"{path}: not a run's directory (it has no config.yaml)")
    if not rundir.is_done(stage):
        raise UserError(
            f"{path}: {stage} is not done, so there is no {folder}/ to use; run `homestretch run` to the end"
        )
    if not (rundir.path / folder).is_dir():
        raise UserError(f"{path}: {folder}/ is gone, though {stage} is done; {_MAKE_AGAIN}")
    return rundir


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it replaces `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all. NaN is refused (ValueError): it is not JSON."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that a stage wrote. Raises UserError if it is gone or damaged."""
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); {_MAKE_AGAIN}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        is_gone = isinstance(error, FileNotFoundError)
        raise UserError(f"{path}: {'is gone' if is_gone else 'is damaged (not UTF-8)'}; {_MAKE_AGAIN}") from error


def _rows(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows.extend([dict(json.loads(line))] if line.strip() else [])
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}:{number}: is damaged ({error}); put it back, or delete the line") from error
    return rows


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, the whole file or nothing."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`write_jsonl` to a path that a person gave: what is no regular file (/dev/stdout, a pipe) is written straight."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    else:
        write_jsonl(path, rows)


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON object as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSONL that a stage wrote. Raises UserError if it is gone or damaged."""
    return _rows(_read_text(path), path)
