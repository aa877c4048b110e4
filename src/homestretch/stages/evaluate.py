"""Stage 5: every arm, raw and post-processed, on the same examples; metrics, failure rates, and tested differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homestretch.config import NegativesConfig, RunConfig
from homestretch.console import say, table
from homestretch.rundir import RunDir, write_json, write_jsonl
from homestretch.types import Completion, Corpus, Example, FailureMode, UserError

if TYPE_CHECKING:
    from homestretch.baselines.cost import Decoding

_MAIN_METRICS = ("rouge_1", "rouge_2", "rouge_l", "chrf", "entity_precision", "entity_f1", "length_ratio", "terminated")


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write evaluation/scores.json and evaluation/samples.jsonl, and return what they come to in a few numbers.

    The failure modes, which also are the post-processing, learn from the train split and judge every arm alike.
    """
    import numpy as np

    from homestretch.baselines.cost import arm_costs
    from homestretch.data import evaluation_examples, load_splits
    from homestretch.failures import build_modes
    from homestretch.metrics import build_metrics
    from homestretch.metrics.contrasts import primary_names, score_arms

    splits = load_splits(config)
    examples = evaluation_examples(config, splits)
    metrics = build_metrics(config, splits.train)
    primaries = primary_names(metrics, config.evaluate.primary_metrics)  # a mistake in it is told before decoding
    modes = build_modes(
        judging_modes(config.negatives, splits.train), Corpus(splits.train, config.seed, config.data.entities)
    )

    arms: dict[str, list[Completion]] = {}
    outputs, decodings = decode_arms(config, rundir, examples)
    for name, completions in outputs.items():
        arms[f"{name}/raw"] = completions
        arms[f"{name}/post"] = post_processed(modes, examples, completions)

    say(f"scoring {len(arms)} arms with {len(metrics)} metrics and {len(modes)} failure modes")
    rng = np.random.default_rng(config.seed)
    evaluation = score_arms(examples, arms, metrics, modes, config=config.evaluate, rng=rng)
    if config.baselines.arms:
        evaluation.scores["costs"] = arm_costs(config, rundir, decodings)
    evaluation.scores["data_notes"] = list(splits.notes)
    write_jsonl(rundir.samples_path, evaluation.samples)
    write_json(rundir.scores_path, evaluation.scores)
    print_scores(evaluation.scores, primaries)
    return summarize(evaluation.scores)


def judging_modes(negatives: NegativesConfig, train: Sequence[Example]) -> tuple[str, ...]:
    """Every mode of the full preset that this task can have and the recipe's own, whatever the reward was trained on.

    So a run with the paper's five classes is judged, and cleaned up, by the same detectors and repairs as any other.
    """
    from homestretch.failures import task_mode_names

    return task_mode_names(negatives.model_copy(update={"preset": "full", "exclude": ()}), train)


def model_paths(config: RunConfig, rundir: RunDir) -> dict[str, str | Path]:
    """The model folder (or hub id) behind each arm's name. UserError if a stage before has not left its model."""
    paths: dict[str, str | Path] = {}
    include_base = config.evaluate.include_base
    if config.model.path is not None if include_base is None else include_base:
        paths["base"] = rundir.base_dir if config.model.path is None else config.model.path
    for name, stage, folder in (("sft", "sft", rundir.sft_dir), ("rl", "rl", rundir.policy_dir)):
        if not folder.is_dir():
            raise UserError(f"{folder}: no model there; run `homestretch {stage}` with this recipe first")
        paths[name] = folder
    for arm in config.baselines.trained_arms:
        paths[arm] = rundir.baselines_dir / arm
        if not (rundir.baselines_dir / arm).is_dir():
            raise UserError(f"{paths[arm]}: no model there; run `homestretch baselines` with this recipe first")
    return paths


def decode_arms(
    config: RunConfig, rundir: RunDir, examples: Sequence[Example]
) -> tuple[dict[str, list[Completion]], dict[str, Decoding]]:
    """Every arm's outputs as they are, and what decoding them took."""
    from homestretch.baselines.cost import Decoding, num_tokens

    def greedy(name: str, path: str | Path) -> tuple[list[Completion], int]:
        completions = decode(path, config, examples, name)
        return completions, num_tokens(completions)

    arms: dict[str, Callable[[], tuple[list[Completion], int]]] = {
        name: partial(greedy, name, path) for name, path in model_paths(config, rundir).items()
    }
    if "best_of_n" in config.baselines.arms:
        from homestretch.baselines.best_of_n import decode_best_of_n

        arms["best_of_n"] = partial(decode_best_of_n, config, rundir, examples)
    outputs, decodings = {}, {}
    for name, work in arms.items():
        start = time.perf_counter()
        outputs[name], tokens = work()
        decodings[name] = Decoding(tokens, time.perf_counter() - start)
    return outputs, decodings


def decode(path: str | Path, config: RunConfig, examples: Sequence[Example], name: str) -> list[Completion]:
    """Greedy completions of one model, which is loaded here and gone when this returns."""
    from homestretch.models import load_language_model
    from homestretch.rollouts.sampler import generate
    from homestretch.training import MemoryBudget

    lm = load_language_model(path, config)
    completions = generate(
        lm,
        examples,
        max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size"),
        description=f"decoding {name}",
    )
    return [samples[0] for samples in completions]


def post_processed(
    modes: Sequence[FailureMode], examples: Sequence[Example], completions: Sequence[Completion]
) -> list[Completion]:
    """The frozen post-processing of each completion."""
    from homestretch.failures import post_process

    return [post_process(modes, example, completion) for example, completion in zip(examples, completions, strict=True)]


def print_scores(scores: dict[str, Any], primaries: Sequence[str]) -> None:
    """Print the arms by the main metrics, and the contrasts of the primary ones."""
    arms = scores["arms"]
    known = next(iter(arms.values()))["metrics"]
    names = [name for name in dict.fromkeys((*primaries, *_MAIN_METRICS)) if name in known]
    rows = [[arm, *(_cell(values["metrics"][name]["mean"]) for name in names)] for arm, values in arms.items()]
    ceiling = scores["references"]["metrics"]
    rows.append(["references", *(_cell(ceiling[name]["mean"]) if name in ceiling else "" for name in names)])
    table(f"{scores['split']}: {scores['num_examples']} examples, greedy", ["arm", *names], rows)
    primary = [row for row in scores["contrasts"] if row["primary"]]
    percent = f"{100 * scores['confidence']:g} %"
    table(
        "primary contrasts, a - b",
        ["contrast", "metric", "difference", f"{percent} interval", "p", "p (Holm)", "n"],
        [_contrast_cells(row) for row in primary],
    )
    if scores.get("baseline_contrasts"):
        table(
            "alternatives to RL, a - b",
            ["contrast", "metric", "difference", f"{percent} interval", "p", "p (Holm)", "n"],
            [_contrast_cells(row) for row in scores["baseline_contrasts"]],
        )
    if scores.get("costs"):
        table("what each arm cost beyond SFT", list(_COST_COLUMNS), _cost_rows(scores["costs"]))


def summarize(scores: dict[str, Any]) -> dict[str, Any]:
    """The stage's summary: what was evaluated, and the primary contrasts."""
    keys = ("name", "metric", "difference", "low", "high", "p_holm")
    return {
        "split": scores["split"],
        "num_examples": scores["num_examples"],
        "arms": list(scores["arms"]),
        "primary": [{key: row[key] for key in keys} for row in scores["contrasts"] if row["primary"]],
    }


_COST_COLUMNS = {
    "arm": "", "training s": "training_seconds", "with reward, negatives s": "total_seconds",
    "sampled": "sampled_completions", "trained tokens": "trained_tokens", "decoded tokens": "decoded_tokens",
    "decoding s": "decoding_seconds",
}  # fmt: skip
"""Column -> key of a row of `costs`."""


def _cost_rows(costs: dict[str, dict[str, Any]]) -> list[list[str]]:
    keys = [key for key in _COST_COLUMNS.values() if key]
    return [[arm, *("-" if cost[key] is None else f"{cost[key]:,}" for key in keys)] for arm, cost in costs.items()]


def _contrast_cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['name']}: {row['a']} - {row['b']}",
        row["metric"],
        f"{row['difference']:+.4f}",
        f"{row['low']:+.4f} .. {row['high']:+.4f}",
        f"{row['p']:.4f}",
        f"{row['p_holm']:.4f}",
        str(row["n"]),
    ]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
