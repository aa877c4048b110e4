"""Completions of a file's documents from a run's models: what `homestretch generate` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from homestretch.rundir import RunDir, open_finished
from homestretch.types import UserError

_FOLDERS = {"sft": ("sft", "sft"), "rl": ("rl", "policy"), "best_of_n": ("reward", "reward")}
"""Arm -> the stage that leaves what it is decoded with, and the folder; the others are trained by `baselines`."""


def generate_rows(run: Path, input_path: Path, *, arm: str, is_raw: bool) -> list[dict[str, Any]]:
    """Completions, one row {"id", "text", "terminated"} per document, in the file's order.

    `arm` is "sft", "rl" or one of `baselines.arms`, decoded as in the evaluation: greedily, but for "best_of_n", which
    needs no training beyond the reward. Without `is_raw` they go through the run's post-processing. That learns its
    statistics from the run's train split, as the reward of "best_of_n" does; it must still be there then.
    Raises UserError if the run, its model or the input cannot be used.
    """
    from homestretch.data import load_prompts, load_splits
    from homestretch.recipe import load_recipe

    stage, folder = _FOLDERS.get(arm, ("baselines", f"baselines/{arm}"))
    if stage == "baselines" and RunDir(run).config_path.is_file() and not (run / folder).is_dir():
        raise UserError(f"{run}: no arm {arm!r} in this run; add it to baselines.arms and run `homestretch baselines`")
    rundir = open_finished(run, stage, folder=folder)
    config = load_recipe(rundir.config_path)
    examples = load_prompts(config, input_path)
    train = () if is_raw else load_splits(config).train

    from homestretch.environment import quiet_libraries
    from homestretch.stages.evaluate import decode, judging_modes

    quiet_libraries()
    if arm == "best_of_n":
        from homestretch.baselines.best_of_n import decode_best_of_n

        completions, _ = decode_best_of_n(config, rundir, examples)
    else:
        completions = decode(rundir.path / folder, config, examples, arm)
    if not is_raw:
        from homestretch.failures import build_modes, post_process
        from homestretch.types import Corpus

        modes = build_modes(judging_modes(config.negatives, train), Corpus(train, config.seed, config.data.entities))
        completions = [post_process(modes, e, c) for e, c in zip(examples, completions, strict=True)]
    return [
        {"id": e.id, "text": c.text, "terminated": c.terminated} for e, c in zip(examples, completions, strict=True)
    ]
