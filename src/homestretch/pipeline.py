"""The stages in order, skipping what is done. Each reads the files of those before it and writes its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import takewhile

from homestretch.audit_findings import gate, gate_line
from homestretch.config import RunConfig
from homestretch.console import say
from homestretch.data import load_splits
from homestretch.environment import describe, peak_memory_gb, quiet_libraries
from homestretch.recipe import dump_recipe
from homestretch.rundir import RunDir, planned_stages, read_json, write_json, write_text
from homestretch.types import UserError
from homestretch.validation import changed_recipe, validate

_GATE = "reward.gate."
"""These keys decide whether RL begins, and no number depends on them: they may change until it is done."""


def run(config: RunConfig) -> list[str]:
    """Run every stage that is not done yet; the same call again continues. Returns the stages run now.

    Raises UserError with all problems of recipe, data and model before anything is written, if the run directory holds
    another recipe's run, if another process is at work in it, and before RL if the reward's gate says stop.
    """
    stages = planned_stages(with_baselines=bool(config.baselines.arms))
    rundir = RunDir(config.run_dir)
    done = list(takewhile(rundir.is_done, stages))
    left = list(stages[len(done) :])  # a later stage may have been done before, but from other files
    allowed = (_GATE,) if "rl" in left else ()
    reads_data = left not in ([], ["report"])
    refuse(validate(config, allowed) if reads_data else changed_recipe(config))
    with opened(config, allowed):
        for note in load_splits(config).notes if reads_data else ():
            say(note)
        for stage in stages:
            if stage in left:
                run_stage(stage, config, rundir)
            else:
                say(f"{stage}: done before, skipped")
    return left


def run_alone(stage: str, config: RunConfig) -> None:
    """Run one stage again; the stages after it, which read its files, then count as not done.

    The stage's own section of the recipe may differ from the one the run began with, and the gate before RL.
    Raises UserError as `run` does, and if a stage before this one is not done.
    """
    stages = planned_stages(with_baselines=stage == "baselines" or bool(config.baselines.arms))
    missing = [before for before in stages[: stages.index(stage)] if not RunDir(config.run_dir).is_done(before)]
    if missing:
        raise UserError(
            f"{config.run_dir}: {stage} needs {', '.join(missing)} done first: run `homestretch run` for it"
        )
    allowed = (f"{stage}.", *([_GATE] if stage == "rl" else []))
    refuse(validate(config, allowed_changes=allowed) if stage != "report" else changed_recipe(config, allowed))
    with opened(config, allowed) as rundir:
        run_stage(stage, config, rundir)


def refuse(problems: list[str]) -> None:
    """Raise UserError with these lines, if there are any."""
    if problems:
        raise UserError("\n".join(problems))


def run_stage(stage: str, config: RunConfig, rundir: RunDir) -> None:
    """Run one stage from its start and mark it done, with its seconds and the process's peak memory (GiB)."""
    if stage == "rl":
        pass_gate(config, rundir)
    rundir.begin(stage)
    say(f"{stage}: started")
    start = time.perf_counter()
    summary = import_module(f"homestretch.stages.{stage}").run(config, rundir)
    seconds = round(time.perf_counter() - start, 1)
    write_text(rundir.config_path, dump_recipe(config))  # it tells what the finished stages were made with
    rundir.mark_done(stage, {**summary, "seconds": seconds, "peak_memory_gb": peak_memory_gb()})
    say(f"{stage}: done in {seconds:.0f} s")


def pass_gate(config: RunConfig, rundir: RunDir) -> None:
    """Judge the reward's audit by the gate as the recipe has it now, and write that.

    If it says stop: a report of what there is so far, and UserError.
    """
    audit = read_json(rundir.audit_path)
    decided = gate(audit, config.reward.gate)
    if decided != audit.get("gate"):
        write_json(rundir.audit_path, {**audit, "gate": decided})
    if decided["decision"] == "stop":
        if not rundir.is_done("rl"):
            rundir.drop_metrics("rl")  # of one that was stopped before
        import_module("homestretch.stages.report").run(config, rundir)
        raise UserError(f"{gate_line(decided)}; see {rundir.report_path}; to go on anyway set reward.gate.action=warn")


@contextmanager
def opened(config: RunConfig, allowed_changes: tuple[str, ...] = ()) -> Iterator[RunDir]:
    """The run's directory, made and locked; a new one has the resolved recipe and the environment before any work."""
    rundir = RunDir(config.run_dir)
    rundir.path.mkdir(parents=True, exist_ok=True)
    with _locked(rundir):
        refuse(changed_recipe(config, allowed_changes))
        if not rundir.config_path.exists():
            write_text(rundir.config_path, dump_recipe(config))
        if not rundir.environment_path.exists():  # a run continued elsewhere keeps the record of where it was trained
            write_json(rundir.environment_path, describe())
        quiet_libraries()
        yield rundir


@contextmanager
def _locked(rundir: RunDir) -> Iterator[None]:
    """Hold the run directory; the lock goes with the process, however it ends."""
    import fcntl

    with (rundir.path / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{rundir.path}: another homestretch process ({file.read().strip() or 'starting'}) is at work here; "
                "wait for it, or give this run another name (name=...)"
            ) from error
        file.truncate(0)
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield
