"""Does RL with the learned reward help more where labels are few?

python -m benchmarks.studies.label_fraction [RECIPE] --seeds 0 1 2 [--fractions 10 30]

For each seed and fraction a run with so many percent of the recipe's labelled train examples, the first of one random
order, so that they are nested; 100 % is the run of the recipe. The documents that lose their labels stay prompts for
RL. (A built-in task generates: there the first examples keep their labels, and as many prompts as are lost are added.)
SFT and reward take as many optimizer steps as with all labels, in more passes, and SFT is validated as often.
Validation and test keep their labels. C1 per fraction, and its difference from C1 with all labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies import runs, tables
from benchmarks.studies.seeds import (
    Outputs,
    add_holm,
    contrast,
    difference,
    mean_levels,
    read_outputs,
    require_same,
    require_seeds,
)
from homestretch.config import RunConfig
from homestretch.data import load_splits, prompt_template
from homestretch.rundir import write_jsonl
from homestretch.types import Example, UserError

ALL = 100


def variant_name(percent: int) -> str:
    """The run's name without its seed."""
    return runs.FULL.name if percent == ALL else f"labels-{percent}"


def variants(study: runs.Study, percents: Sequence[int], seed: int) -> list[runs.Variant]:
    """The recipe, and the recipe with fewer labels, whose files are written where it reads files."""
    config = study.config(runs.FULL, seed)
    if config.data.task and "train" in config.data.max_examples:
        raise UserError(
            "data.max_examples.train: label_fraction sets data.sizes.train of a built-in task; leave it out"
        )
    num_train = len(load_splits(config).train)
    made = [runs.FULL]
    for percent in percents:
        num_labelled = max(1, round(num_train * percent / 100))
        overrides = _steps(config, num_train, num_labelled)
        if config.data.task:
            prompts = config.data.sizes.prompts + num_train - num_labelled
            overrides += [f"data.sizes.train={num_labelled}", f"data.sizes.prompts={prompts}"]
        else:
            overrides += write_split(config, num_labelled, study.folder / f"{variant_name(percent)}-{seed}-data")
        made.append(runs.Variant(variant_name(percent), tuple(overrides)))
    return made


def _steps(config: RunConfig, num_train: int, num_labelled: int) -> list[str]:
    """Overrides that keep the optimizer steps of SFT and reward what they are with all labels."""
    sft, reward = config.sft, config.reward

    def per_epoch(num: int, batch: int) -> int:
        return -(-num // batch)

    of_sft = per_epoch(num_train, sft.batch_size)
    of_reward = per_epoch(num_train, reward.prompts_per_batch)
    sft_steps = min(sft.num_epochs * of_sft, sft.max_steps or sft.num_epochs * of_sft)
    reward_steps = min(reward.num_epochs * of_reward, reward.max_steps or reward.num_epochs * of_reward)
    return [
        f"sft.max_steps={sft_steps}",
        f"sft.num_epochs={per_epoch(sft_steps, per_epoch(num_labelled, sft.batch_size))}",
        f"sft.eval_every={sft.eval_every or of_sft}",
        f"reward.max_steps={reward_steps}",
        f"reward.num_epochs={per_epoch(reward_steps, per_epoch(num_labelled, reward.prompts_per_batch))}",
    ]


def write_split(config: RunConfig, num_labelled: int, folder: Path) -> list[str]:
    """Write the labelled rows and the other documents as files, and return the overrides that read them."""
    if columns := prompt_template(config.data).columns:
        raise UserError(f"data.template uses {{{columns[0]}}}: label_fraction keeps document, reference and id only")
    splits, names = load_splits(config), config.data.columns
    order = np.random.default_rng([config.seed, 7]).permutation(len(splits.train))
    labelled = [splits.train[i] for i in order[:num_labelled]]
    unlabelled = [*(splits.train[i] for i in order[num_labelled:]), *splits.prompts]
    document, reference, id = names.document or "document", names.reference or "reference", names.id or "id"

    def row(example: Example) -> dict[str, Any]:
        return {id: example.id, document: example.source}

    write_jsonl(folder / "train.jsonl", [row(e) | {reference: list(e.references)} for e in labelled])
    overrides = [f"data.train={folder / 'train.jsonl'}", f"data.max_examples.train={num_labelled}"]
    if not unlabelled:
        return overrides
    write_jsonl(folder / "prompts.jsonl", [row(e) for e in unlabelled])
    return [
        *overrides, f"data.prompts={folder / 'prompts.jsonl'}", f"data.max_examples.prompts={len(unlabelled)}",
    ]  # fmt: skip


def measure(found: runs.Runs) -> dict[str, Any]:
    """C1 for each fraction, and each fraction's minus that with all labels, over the seeds that have the runs."""
    outputs = {
        seed: {name: read_outputs(rundir) for name, rundir in of_seed.items()} for seed, of_seed in found.items()
    }
    names = list(dict.fromkeys(name for of_seed in outputs.values() for name in of_seed))
    require_seeds(names, "a run")
    rows: list[dict[str, Any] | None] = []
    levels: dict[str, Any] = {}
    for name in names:
        of_name = {seed: of_seed[name] for seed, of_seed in outputs.items() if name in of_seed}
        metrics = next(iter(of_name.values())).primaries
        rows += [_gain(name, of_name, metric) for metric in metrics]
        both = {seed: (of[name], of[runs.FULL.name]) for seed, of in outputs.items() if {name, runs.FULL.name} <= {*of}}
        if name != runs.FULL.name and both:
            rows += [_gain_over_full(name, both, metric) for metric in metrics]
        found_levels = mean_levels(of_name, ("sft/raw", "rl/raw"), (*metrics, "length_ratio"))
        levels |= {f"{name} {arm}": values for arm, values in found_levels.items()}
    kept = [row for row in rows if row is not None]
    add_holm(kept)
    return {"contrasts": kept, "levels": levels}


def _gain(name: str, outputs: Mapping[int, Outputs], metric: str) -> dict[str, Any] | None:
    about = {"name": "C1", "a": f"{name} rl/raw", "b": "sft/raw", "metric": metric, "primary": True}
    gains = {seed: difference(of, "rl/raw", of, "sft/raw", metric) for seed, of in outputs.items()}
    return contrast(about, outputs, gains)


def _gain_over_full(name: str, outputs: Mapping[int, tuple[Outputs, Outputs]], metric: str) -> dict[str, Any] | None:
    """What RL gains with few labels minus what it gains with all, on the same examples."""
    about = {"name": "C1", "a": f"{name}'s gain", "b": f"{runs.FULL.name}'s", "metric": metric, "primary": False}
    gains = {}
    for seed, (few, full) in outputs.items():
        require_same(few, full)
        with_few, with_all = (difference(of, "rl/raw", of, "sft/raw", metric) for of in (few, full))
        gains[seed] = with_few - with_all
    return contrast(about, {seed: few for seed, (few, _) in outputs.items()}, gains)


def section(setting: dict[str, Any]) -> str:
    """The tables of one recipe."""
    rows = setting["contrasts"]
    primary, others = [row for row in rows if row["primary"]], [row for row in rows if not row["primary"]]
    parts = [
        tables.level_table(setting["levels"]), tables.kept_line(setting),
        tables.contrast_table(primary), tables.seeds_line(rows),
    ]  # fmt: skip
    if others:
        parts += ["RL's gain with few labels minus its gain with all (a Holm family of its own):",
                  tables.contrast_table(others)]  # fmt: skip
    return "\n\n".join(parts)


def main() -> None:
    """Run, compare, write."""
    options = runs.parser("label_fraction", __doc__, None)
    options.add_argument("--fractions", nargs="+", type=int, default=[10, 30], metavar="PERCENT", help="below 100")
    args = options.parse_args()
    with runs.answering_mistakes():
        if bad := [percent for percent in args.fractions if not 0 < percent < ALL]:
            raise UserError(f"--fractions: {bad[0]} is not between 0 and 100; all labels are always one of them")
        study = runs.study_of(args)
        runs.conduct("label_fraction", study, lambda seed: variants(study, args.fractions, seed), measure)


if __name__ == "__main__":
    main()
