"""How a benchmark talks to its workers. Standard library only: it is also imported where homestretch is not installed.

A worker is a process that builds everything, says that it is ready, and then does one update each time it is told to.
Commands are lines on its standard input, answers are JSON lines on its standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
UPDATE = "update"


class WorkerError(RuntimeError):
    """A worker could not be started, or ended; one line with the last that its log says."""


@dataclass(frozen=True, slots=True)
class Job:
    """One contender's work in one setting, the same fields for all contenders."""

    algorithm: str
    model_dir: str
    reward_dir: str
    prompts_path: str
    prompts_per_update: int
    completions_per_prompt: int
    max_prompt_tokens: int
    max_new_tokens: int
    num_passes: int
    """Passes over an update's rollouts, one optimizer step each."""
    forced: bool
    """Whether outputs have full length: then a missing terminator costs no reward."""
    sequences_per_microbatch: int
    """TRL's micro-batches."""
    tokens_per_microbatch: int
    """Ours."""
    device: str
    attention: str | None
    lora: bool
    threads: int
    seed: int = 0

    @property
    def num_rollouts(self) -> int:
        """Completions per update."""
        return self.prompts_per_update * self.completions_per_prompt


def read_job(path: str) -> Job:
    """The job that `Worker` wrote."""
    return Job(**json.loads(Path(path).read_text(encoding="utf-8")))


class Channel:
    """The worker's end. Whatever libraries print goes to standard error, so that only answers reach the other side."""

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, **answer: Any) -> None:
        """Answer in one line."""
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def wait(self) -> None:
        """Return when an update is asked for; end the process when the other side has gone."""
        if sys.stdin.readline().strip() != UPDATE:
            os._exit(0)


class Worker:
    """The benchmark's end: one contender's process."""

    def __init__(
        self, name: str, python: Path, module: str, job: Job, folder: Path, environment: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        job_path = folder / f"{name}.json"
        job_path.write_text(json.dumps(asdict(job)), encoding="utf-8")
        self.name, self.log_path = name, folder / f"{name}.log"
        threads = {"OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with self.log_path.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", module, str(job_path)], cwd=ROOT, env={**os.environ, **threads, **environment},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """The next answer; WorkerError if there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            said = self.log_path.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((text.strip() for text in reversed(said) if text.strip()), "nothing")
            raise WorkerError(f"ended, and its last words are: {last} (log: {self.log_path})")
        return dict(json.loads(line))

    def update(self) -> dict[str, Any]:
        """Have one update done; what the worker says of it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(UPDATE + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def peak_rss_mb(self) -> float:
        """The most memory the process has held so far (VmHWM), in MiB."""
        return peak_rss_mb(self.process.pid)

    def stop(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def peak_rss_mb(pid: int) -> float:
    """VmHWM of a process in MiB, from /proc; 0 on systems that have none."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
