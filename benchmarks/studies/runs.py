"""The runs of a study: a directory per variant and seed, continued where it stopped, and never run twice.

The recipe as it is is the variant `full`, the same one for all studies of a folder. Other variants begin with copies
of its finished stages, as far as they cannot differ from it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import RESULTS, Record, environment, rounded, save
from benchmarks.report import study_section
from homestretch.config import RunConfig
from homestretch.console import say
from homestretch.pipeline import refuse
from homestretch.recipe import differences, dump_recipe, load_recipe
from homestretch.rundir import STAGES, RunDir, append_jsonl, planned_stages, read_json, read_jsonl, write_text
from homestretch.types import UserError
from homestretch.validation import changed_recipe

SECTIONS_AFTER = {
    "sft": ("negatives.", "reward.", "rl.", "baselines.", "evaluate."),
    "negatives": ("reward.", "rl.", "baselines.", "evaluate."),
    "reward": ("rl.", "baselines.", "evaluate."),
    "rl": ("baselines.",),
}
"""Stage -> the sections on which no model and no row depends that it or a stage before it leaves. (Summaries do:
`rl.max_validation_examples` and `evaluate.selection_metrics` enter the score that SFT prints, and the audit.)"""

_FOLDERS = {"sft": ("base", "sft"), "negatives": ("negatives",), "reward": ("reward",), "rl": ("policy",)}
"""Stage -> what it leaves, beside its marker and its rows in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe with changes."""

    name: str
    overrides: tuple[str, ...] = ()
    shares: str | None = None
    """The last stage that is taken over from the run of the recipe as it is; None: nothing is."""
    until: str = STAGES[-1]
    """The last stage that is run."""


FULL = Variant("full")


@dataclass(frozen=True, slots=True)
class Study:
    """What a command line asks for."""

    recipe: Path
    settings: tuple[str, ...]
    """Overrides for all runs."""
    seeds: tuple[int, ...]
    folder: Path
    """Where this recipe's runs are."""
    only: tuple[str, ...]
    """The variants to run; none named: all. Others are read if they are finished."""
    json: Path
    """The result file."""

    def overrides(self, variant: Variant, seed: int) -> list[str]:
        """What makes the recipe this run's."""
        place = [f"seed={seed}", f"name={variant.name}-{seed}", f"output_dir={self.folder}"]
        return [*self.settings, *variant.overrides, *place]

    def config(self, variant: Variant, seed: int) -> RunConfig:
        """The resolved recipe of a run. Raises UserError for mistakes in it."""
        return load_recipe(self.recipe, self.overrides(variant, seed))


Runs = Mapping[int, Mapping[str, RunDir]]
"""Seed -> variant's name -> its finished run."""


# --- one run ---------------------------------------------------------------------------------------------------------


def finish(study: Study, variant: Variant, seed: int, *, until: str | None = None) -> RunDir:
    """The run with all stages up to `until` done (None: the variant's last); those that are missing are run now.

    Raises UserError if its directory holds a run of another recipe, or if a stage fails.
    """
    until = until or variant.until
    config = study.config(variant, seed)
    rundir = RunDir(config.run_dir)
    refuse(changed_recipe(config, SECTIONS_AFTER.get(until, ())))
    if not stages_left(rundir, config, until):
        return rundir
    if variant.shares and not rundir.is_done(variant.shares):
        take_over(finish(study, FULL, seed, until=variant.shares), rundir, config, last=variant.shares)
    left = stages_left(rundir, config, until)
    say(f"{config.run_dir}: {', '.join(left)}")
    for verb in ["run"] if until == STAGES[-1] else left:
        call(verb, study, variant, seed)
    return rundir


def stages_left(rundir: RunDir, config: RunConfig, until: str) -> list[str]:
    """The stages up to this one that are not done."""
    stages = planned_stages(with_baselines=bool(config.baselines.arms))
    return [stage for stage in stages[: stages.index(until) + 1] if not rundir.is_done(stage)]


def call(verb: str, study: Study, variant: Variant, seed: int) -> None:
    """Run `homestretch VERB` in a process of its own, its output in a log beside the run's directory."""
    study.folder.mkdir(parents=True, exist_ok=True)
    log = study.folder / f"{variant.name}-{seed}.log"
    command = [sys.executable, "-m", "homestretch", verb, str(study.recipe), *study.overrides(variant, seed)]
    with log.open("a", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"]
        raise UserError(f"{variant.name}-{seed}: homestretch {verb} ended with code {code}: {said[-1]} ({log})")


def take_over(donor: RunDir, rundir: RunDir, config: RunConfig, *, last: str) -> None:
    """Copy the donor's stages up to `last` that are not done yet, each one's marker at its end.

    Raises UserError if the two recipes differ in what these stages depend on.
    """
    changed = differences(load_recipe(donor.config_path), config)
    if wrong := [line for line in changed if not line.startswith(SECTIONS_AFTER[last])]:
        raise UserError(f"{rundir.path}: cannot take {last} over from {donor.path}: {'; '.join(wrong)}")
    if not rundir.config_path.exists():
        write_text(rundir.config_path, dump_recipe(config))
    for stage in STAGES[: STAGES.index(last) + 1]:
        if rundir.is_done(stage):
            continue
        for folder in _FOLDERS[stage]:
            if (donor.path / folder).is_dir():
                shutil.rmtree(rundir.path / folder, ignore_errors=True)
                shutil.copytree(donor.path / folder, rundir.path / folder)
        if stage == "rl":
            shutil.copyfile(donor.rl_samples_path, rundir.rl_samples_path)
        rundir.drop_metrics(stage)
        for row in read_jsonl(donor.metrics_path):
            if row["stage"] == stage:
                append_jsonl(rundir.metrics_path, row)
        rundir.mark_done(stage, donor.summary(stage))
        say(f"{rundir.path}: {stage} taken over from {donor.path.name}")


def about(rundir: RunDir) -> Record:
    """What a finished run says of itself: seconds per stage, the commit, and what RL kept and why it ended."""
    done = {stage: rundir.summary(stage) for stage in STAGES if rundir.is_done(stage)}
    found: Record = {
        "git_commit": read_json(rundir.environment_path)["git_commit"],
        "seconds": {stage: summary["seconds"] for stage, summary in done.items()},
    }
    if "rl" in done:
        rl = {key: done["rl"][key] for key in ("updates", "kept_update", "stopped")}
        found["rl"] = rl | {"alarms": len(done["rl"]["alarms"])}
    return found


# --- all runs --------------------------------------------------------------------------------------------------------


def conduct(
    name: str,
    study: Study,
    variants: Callable[[int], Sequence[Variant]],
    measure: Callable[[Runs], Record],
) -> None:
    """Finish every run, seeds and variants in turn; measure those that did and write the study's result file.

    `variants` are those of a seed. A run that fails is told at the end (UserError) and does not keep others from
    being run and measured. What `measure` makes of the runs goes to `settings.RECIPE` of the file.
    """
    known_names = [variant.name for variant in variants(study.seeds[0])]
    if unknown := [name for name in study.only if name not in known_names]:
        raise UserError(f"--only: no variant {unknown[0]!r}; there are {', '.join(known_names)}")
    runs, failures = finish_all(study, variants)
    names = {f"{variant}-{seed}": rundir for seed, of_seed in runs.items() for variant, rundir in of_seed.items()}
    if names:
        known: Record = {
            "recipe": without_folders(str(study.recipe)),
            "set": [without_folders(s) for s in study.settings],
        }
        known |= {"seeds": list(runs), "runs": {run: about(rundir) for run, rundir in names.items()}}
        try:
            measured = measure(runs)
        except UserError as error:
            failures.append(str(error))
        else:
            write(name, study.json, study.recipe.stem, known | measured, study.config(FULL, study.seeds[0]))
    if failures:
        raise UserError("\n".join(failures))


def finish_all(study: Study, variants: Callable[[int], Sequence[Variant]]) -> tuple[Runs, list[str]]:
    """The finished runs, and a line for each that failed."""
    runs: dict[int, dict[str, RunDir]] = {}
    failures: list[str] = []
    for seed in study.seeds:
        for variant in variants(seed):
            config = study.config(variant, seed)
            is_wanted = not study.only or variant.name in study.only
            if not is_wanted and stages_left(RunDir(config.run_dir), config, variant.until):
                continue
            try:
                runs.setdefault(seed, {})[variant.name] = finish(study, variant, seed)
            except UserError as error:
                failures.append(str(error))
                say(f"failed: {error}")
    return runs, failures


def write(name: str, path: Path, key: str, setting: Record, config: RunConfig) -> None:
    """Put a setting's result into the study's file, with the environment, and print its tables."""
    from homestretch.environment import cpu_count
    from homestretch.models import resolve_device

    where = environment(str(resolve_device(config)), config.num_threads or cpu_count())
    where["command"] = [without_folders(argument) for argument in where["command"]]
    settings = {key: rounded(setting, 6)}
    save(path, {"environment": where, "settings": settings})
    print(study_section(name, {"settings": settings, "runs": {key: where}}))


def without_folders(argument: str) -> str:
    """An argument with absolute paths cut to their last part: a result file tells no paths of the machine."""
    return re.sub(r"(^|=)/(?:[^/]*/)*", r"\1", argument)


# --- the command line ------------------------------------------------------------------------------------------------


def parser(name: str, description: str | None, variants: Sequence[str] | None) -> argparse.ArgumentParser:
    """The options that all studies with runs have; `variants` are what --only may name (None: anything)."""
    options = argparse.ArgumentParser(prog=name, description=(description or "").splitlines()[0])
    options.add_argument("recipe", nargs="?", type=Path, default=Path("recipes/quickstart.yaml"))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    options.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=c", help="overrides, all runs")
    options.add_argument("--only", nargs="+", choices=variants, default=[], help="run these; read others if finished")
    options.add_argument("--out", type=Path, default=Path("runs/studies"), help="for runs (default %(default)s)")
    add_result_file(options, name)
    return options


def add_result_file(options: argparse.ArgumentParser, name: str) -> None:
    """The option for where the result goes."""
    options.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="result file (benchmarks/results)")


def study_of(args: argparse.Namespace) -> Study:
    """What the options say. Raises UserError for a seed that is given twice."""
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError("--seeds names a seed twice; every seed is one run")
    folder = args.out / args.recipe.stem
    return Study(args.recipe, tuple(args.set), tuple(args.seeds), folder, tuple(args.only), args.json)


@contextmanager
def answering_mistakes() -> Iterator[None]:
    """A UserError as a line on stderr and exit code 2; Ctrl-C as one line and 130."""
    try:
        yield
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; the same command continues: finished runs are kept", file=sys.stderr)
        raise SystemExit(130) from None
