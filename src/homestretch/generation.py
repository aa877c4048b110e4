"""Completions of a file's documents from a run's models: what `homestretch generate` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from homestretch.rundir import open_finished


def generate_rows(run: Path, input_path: Path, *, arm: str, is_raw: bool) -> list[dict[str, Any]]:
    """Greedy completions, one row {"id", "text", "terminated"} per document, in the file's order.

    `arm` is "rl" or "sft". Without `is_raw` they go through the run's post-processing, which learns its statistics from
    the run's train split; that must still be there.
    Raises UserError if the run, its model or the input cannot be used.
    """
    from homestretch.data import load_prompts, load_splits
    from homestretch.recipe import load_recipe

    rundir = open_finished(run, arm, folder={"rl": "policy", "sft": "sft"}[arm])
    folder = {"rl": rundir.policy_dir, "sft": rundir.sft_dir}[arm]
    config = load_recipe(rundir.config_path)
    examples = load_prompts(config, input_path)
    train = () if is_raw else load_splits(config).train

    from homestretch.environment import quiet_libraries
    from homestretch.models import load_language_model
    from homestretch.rollouts.sampler import generate
    from homestretch.training import MemoryBudget

    quiet_libraries()
    lm = load_language_model(folder, config)
    budget = MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size")
    rows = generate(lm, examples, max_new_tokens=config.data.max_completion_tokens, batch_size=budget)
    completions = [row[0] for row in rows]
    if not is_raw:
        from homestretch.failures import build_modes, post_process
        from homestretch.stages.evaluate import judging_modes
        from homestretch.types import Corpus

        modes = build_modes(judging_modes(config.negatives, train), Corpus(train, config.seed, config.data.entities))
        completions = [post_process(modes, e, c) for e, c in zip(examples, completions, strict=True)]
    return [
        {"id": e.id, "text": c.text, "terminated": c.terminated} for e, c in zip(examples, completions, strict=True)
    ]
