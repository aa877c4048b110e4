"""The command line: one verb per thing a person does. Heavy modules are imported by the verb that needs them."""

from __future__ import annotations

import contextlib
import errno
import functools
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from homestretch.types import UserError

if TYPE_CHECKING:
    from homestretch.config import RunConfig

app = typer.Typer(
    name="homestretch",
    help="Reinforcement learning for last-mile fine-tuning of language models, without human feedback.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; docs/config.md lists its keys.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[a.b=value]...", help="Values that replace the recipe's: rl.kl.beta=0.1")
]


class Arm(StrEnum):
    """Which of a run's models, or ways to decode."""

    rl = "rl"
    sft = "sft"
    rejection_sft = "rejection_sft"
    dpo = "dpo"
    unlikelihood = "unlikelihood"
    best_of_n = "best_of_n"


@contextlib.contextmanager
def _answering_mistakes() -> Iterator[None]:
    """Turn a mistake of the user's, a full disk, or Ctrl-C into a line on stderr and an exit code (2, 2, 130)."""
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted; the same command continues: finished stages are kept", file=sys.stderr)
        raise typer.Exit(130) from None
    except _system_errors() as error:
        if (message := _system_message(error)) is None:
            raise
        _fail(message)


def _fail(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    raise typer.Exit(2) from None


def _system_errors() -> tuple[type[Exception], ...]:
    """What a full disk is reported by. safetensors has an error of its own, and is imported if it wrote something."""
    safetensors = sys.modules.get("safetensors")
    return (OSError,) if safetensors is None else (OSError, safetensors.SafetensorError)


def _system_message(error: BaseException) -> str | None:
    """One line for what the system refuses and a person can set right; None for anything else."""
    code = getattr(error, "errno", None)
    name = getattr(error, "filename", None)
    where = f"{name}: " if name else ""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if code in full or any(f"(os error {number})" in str(error) for number in full):  # the latter is safetensors'
        return f"{where}the disk is full (or a limit on file sizes is reached); free some space and repeat the command"
    if name and isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return f"{where}{error.strerror}"
    return f"{where}the file system is read-only; choose another place" if code == errno.EROFS else None


def _verb(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def answered(*arguments: Any, **options: Any) -> None:
        with _answering_mistakes():
            command(*arguments, **options)

    return answered


def _check_output(path: Path | None) -> None:
    """Before any work: a folder cannot be written to as a file."""
    if path is not None and path.is_dir():
        raise UserError(f"{path}: is a directory; give a file to write")


def _load(recipe: Path, overrides: list[str] | None) -> RunConfig:
    from homestretch.recipe import load_recipe

    return load_recipe(recipe, overrides or ())


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from homestretch import __version__

        print(__version__)
        raise typer.Exit


@app.command()
@_verb
def run(recipe: Recipe, overrides: Overrides = None) -> None:
    """Run all stages of a recipe; the same command again continues."""
    from homestretch.pipeline import run as run_pipeline

    config = _load(recipe, overrides)
    _show_results(config, is_shown_already="evaluate" in run_pipeline(config))


def _show_results(config: RunConfig, *, is_shown_already: bool) -> None:
    """The result table, and where the report is."""
    from homestretch.console import say
    from homestretch.rundir import RunDir, read_json
    from homestretch.stages.evaluate import print_scores

    rundir = RunDir(config.run_dir)
    if not is_shown_already:  # the evaluate stage has printed it otherwise
        scores = read_json(rundir.scores_path)
        print_scores(scores, list(dict.fromkeys(row["metric"] for row in scores["contrasts"] if row["primary"])))
    say(f"report: {rundir.report_path}")
    say(f"models: {rundir.policy_dir} (reinforcement learning), {rundir.sft_dir} (maximum likelihood)")


def _add_stage(stage: str, does: str) -> None:
    @_verb
    def command(recipe: Recipe, overrides: Overrides = None) -> None:
        from homestretch.pipeline import run_alone

        run_alone(stage, _load(recipe, overrides))

    app.command(stage, help=f"{does} This stage again, alone.")(command)


_add_stage("sft", "Maximum likelihood on (prompt, reference).")
_add_stage("negatives", "Make failed versions of the references.")
_add_stage("reward", "Train, calibrate and audit the reward model.")
_add_stage("rl", "Reinforcement learning with the learned reward.")
_add_stage("baselines", "Train the arms that RL is compared with.")
_add_stage("evaluate", "Score every arm, raw and post-processed.")
_add_stage("report", "Write report.html and report.json.")


@app.command()
@_verb
def validate(recipe: Recipe, overrides: Overrides = None) -> None:
    """Check recipe, data and model before any weights are loaded; list every problem."""
    from homestretch.console import say, table
    from homestretch.data import load_splits
    from homestretch.validation import split_lengths
    from homestretch.validation import validate as find_problems

    config = _load(recipe, overrides)
    if problems := find_problems(config):
        _fail("\n".join(problems))
    rows = []
    for row in split_lengths(config):
        spreads = ["-" if s is None else " / ".join(map(str, s)) for s in (row.prompt_tokens, row.reference_tokens)]
        counts = (str(row.num_examples), str(row.num_cut_prompts), str(row.num_cut_references))
        rows.append([row.split, counts[0], spreads[0], counts[1], spreads[1], counts[2]])
    columns = ["split", "examples", "prompt tokens *", "cut prompts", "reference tokens *", "cut references"]
    table("data", columns, rows)
    say(f"* median / 95th percentile / longest; {config.data.max_prompt_tokens} prompt tokens "
        f"and {config.data.max_completion_tokens} completion tokens are kept")  # fmt: skip
    for note in load_splits(config).notes:
        say(note)
    say(f"{recipe}: no problems found")


@app.command()
@_verb
def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")],
    input: Annotated[
        Path, typer.Option(help="Documents: .jsonl, .csv or .parquet with the recipe's columns, or .txt.")
    ],
    output: Annotated[Path | None, typer.Option(help="JSONL to write (standard output if not given).")] = None,
    arm: Annotated[Arm, typer.Option(help="After reinforcement learning, before, or another arm.")] = Arm.rl,
    raw: Annotated[bool, typer.Option("--raw/--post-process", help="Outputs as they are, or cleaned up.")] = True,
) -> None:
    """Write completions of a file's documents: one line each with id, text and terminated."""
    from homestretch.generation import generate_rows

    _check_output(output)
    if output is not None:
        from homestretch.rundir import write_lines

        write_lines(output, generate_rows(run, input, arm=arm.value, is_raw=raw))
        return
    import json

    with contextlib.redirect_stdout(sys.stderr):  # progress goes there; standard output is for the rows
        rows = generate_rows(run, input, arm=arm.value, is_raw=raw)
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))


@app.command()
@_verb
def reward_check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled summaries: .jsonl, .csv or .parquet.")],
    json: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="JSON file to write.")] = None,
    document_column: Annotated[str, typer.Option(help="The document.")] = "document",
    summary_column: Annotated[str, typer.Option(help="The summary to be scored.")] = "summary",
    label_column: Annotated[
        str, typer.Option(help="A number, higher for better; empty: the row is left out.")
    ] = "label",
    reference_column: Annotated[str | None, typer.Option(help="A reference [default: reference, if there].")] = None,
    group_column: Annotated[str | None, typer.Option(help="The document's id [default: the document's text].")] = None,
    threshold: Annotated[float | None, typer.Option(help="Good from this label on [default: the highest].")] = None,
) -> None:
    """Score a labelled file with a run's reward: does it rank as people do, and better than simple baselines?"""
    from homestretch.labelled import LabelledColumns
    from homestretch.reward_check import check_reward, print_check
    from homestretch.rundir import write_json

    _check_output(json)
    columns = LabelledColumns(document_column, summary_column, label_column, reference_column, group_column)
    results = check_reward(run, file, columns, threshold=threshold)
    print_check(results)
    if json is not None:
        write_json(json, results)


@app.command()
@_verb
def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="Where to write it.")] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe for your own data."""
    from homestretch.console import say
    from homestretch.rundir import write_text

    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: is there already; give another path")
    write_text(path, resources.files("homestretch").joinpath("init.yaml").read_text(encoding="utf-8"))
    say(f"wrote {path}; next: homestretch validate {path}")


@app.command()
@_verb
def env() -> None:
    """Print versions, cores, memory, device, and which arithmetic a quick probe finds faster."""
    from homestretch.environment import describe
    from homestretch.models import bfloat16_speedup

    for key, value in describe().items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        if key not in ("schema", "command"):
            print(f"{key}: {value if value is not None else 'none'}")
    print(f"bfloat16 on this CPU: {bfloat16_speedup(512):.2f} times as fast as float32 (width 512)")


def main() -> None:
    """The entry point. Exit codes: 0 done, 2 a mistake to be set right, 130 interrupted; a traceback is our bug."""
    app()
