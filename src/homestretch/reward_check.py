"""Does a run's reward rank summaries as people do? What `homestretch reward-check` measures, writes and prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from homestretch.labelled import Labelled, LabelledColumns, load_labelled
from homestretch.rundir import open_finished
from homestretch.types import Scorer, UserError

if TYPE_CHECKING:
    from homestretch.config import RunConfig
    from homestretch.encoding import Codec
    from homestretch.models import LanguageModel
    from homestretch.rewards.agreement import Judgements

SCHEMA = 1
SFT_LOGPROB = "sft_logprob"
"""The baseline that is a model: the SFT model's mean log-probability of the summary's tokens."""
MIN_SHARE = 0.1
"""A side of the threshold with a smaller share of the rows is warned of."""

Floats = NDArray[np.float64]


def check_reward(run: Path, file: Path, columns: LabelledColumns, *, threshold: float | None) -> dict[str, Any]:
    """Score a labelled file with a run's reward and with the baselines; what --json writes.

    A row is positive from `threshold` on; None: the highest label in the file. Raises UserError if the run or the file
    cannot be used, before any model is loaded, and if the reward is not finite.
    """
    from homestretch.recipe import load_recipe

    rundir = open_finished(run, "reward", folder="reward")
    config = load_recipe(rundir.config_path)
    labelled = load_labelled(file, columns, config.data)
    from homestretch.rewards.agreement import Judgements, agreement, comparison, verdict

    judged = Judgements(labelled.labels_N, labelled.groups_N, positive_from(labelled, file, threshold))

    from homestretch.console import say
    from homestretch.environment import quiet_libraries
    from homestretch.metrics.baselines import lexical_baselines
    from homestretch.models import load_language_model
    from homestretch.rewards.reward_model import load_reward_model
    from homestretch.training import set_up_torch

    quiet_libraries()
    set_up_torch(config)
    say(f"reward-check: {len(labelled.places)} labelled rows of {file.name}")
    reward = load_reward_model(rundir.reward_dir, config)
    reward_N = finite_rewards(reward, labelled)
    notes = [*_row_notes(labelled, judged), *_cut_notes(reward.lm.codec, labelled)]
    del reward
    baselines = lexical_baselines(config, labelled.examples, labelled.completions)
    lexical = tuple(baselines)
    if rundir.is_done("sft"):
        lm = load_language_model(rundir.sft_dir, config)
        baselines[SFT_LOGPROB] = mean_logprobs(lm, config, labelled)
    whole = agreement(reward_N, judged, seed=config.seed)
    compared = {name: comparison(reward_N, scores, judged, seed=config.seed) for name, scores in baselines.items()}
    return {
        "schema": SCHEMA,
        "run": config.name,
        "file": file.name,
        "seed": config.seed,
        "n": len(labelled.places),
        "n_documents": len(set(labelled.groups_N.tolist())),
        "n_without_label": labelled.num_unlabelled,
        "n_positive": int(judged.is_positive_N.sum()),
        "threshold": judged.threshold,
        **whole,
        "baselines": compared,
        "verdict": verdict(whole, compared, lexical),
        "notes": notes,
    }


def positive_from(labelled: Labelled, file: Path, threshold: float | None) -> float:
    """The label from which a row is positive. Raises UserError if all rows would be on one side of it."""
    low, high = float(labelled.labels_N.min()), float(labelled.labels_N.max())
    if threshold is None:
        return high
    if not low < threshold <= high:
        raise UserError(
            f"{file}: --threshold {threshold:g} leaves no row on one side: the labels go from {low:g} to {high:g}, "
            "and a row is positive from the threshold on"
        )
    return threshold


def finite_rewards(reward: Scorer, labelled: Labelled) -> Floats:
    """The rewards of the rows, shape (n,). Raises UserError, with the first bad row's place, if one is not finite."""
    rewards = np.asarray(reward(labelled.examples, labelled.completions), dtype=np.float64)
    if rewards.shape != labelled.labels_N.shape:
        raise UserError(
            f"the reward has shape {rewards.shape} for {len(labelled.places)} rows, one number each is needed"
        )
    if len(bad := np.flatnonzero(~np.isfinite(rewards))):
        raise UserError(
            f"{labelled.places[bad[0]]}: the reward is {rewards[bad[0]]} ({len(bad)} of {len(rewards)} rows are not "
            "finite); the reward model is broken: train it again with a lower reward.optimizer.lr"
        )
    return rewards


def mean_logprobs(lm: LanguageModel, config: RunConfig, labelled: Labelled) -> Floats:
    """The mean log-probability, in nats, of each summary's tokens and its terminator after its prompt, shape (n,)."""
    import torch

    from homestretch.forward import response_batch, response_logprobs
    from homestretch.training import grouped_microbatches

    prompts = [lm.codec.encode_prompt(example).ids for example in labelled.examples]
    completions = [lm.codec.encode_completion(completion) for completion in labelled.completions]
    result = np.empty(len(prompts))
    budget = config.reward.tokens_per_microbatch
    for part in grouped_microbatches(prompts, [len(ids) for ids in completions], budget):
        batch = response_batch([prompts[i] for i in part], [completions[i] for i in part], lm)
        with torch.no_grad():
            totals_B = response_logprobs(lm, batch).logprobs_BT.sum(1)
        result[part] = (totals_B / batch.mask_BT.sum(1)).double().cpu().numpy()
    return result


def _row_notes(labelled: Labelled, judged: Judgements) -> list[str]:
    notes = []
    if labelled.num_unlabelled:
        notes.append(f"rows without a label, left out: {labelled.num_unlabelled}")
    num_positive, num_rows = int(judged.is_positive_N.sum()), len(labelled.labels_N)
    if min(num_positive, num_rows - num_positive) < MIN_SHARE * num_rows:
        notes.append(
            f"{num_positive} of {num_rows} rows are positive (label >= {judged.threshold:g}): the AUC rests on few; "
            "--threshold moves the line, the rank correlations do not depend on it"
        )
    return notes


def _cut_notes(codec: Codec, labelled: Labelled) -> list[str]:
    """What the reward does not see whole, as in training: it would not in RL either."""
    num_prompts = sum(codec.encode_prompt(example).was_cut for example in labelled.examples)
    num_summaries = sum(codec.encode_completion(c)[-1] != codec.eos_id for c in labelled.completions)
    data, count, notes = codec.data, len(labelled.places), []
    if num_prompts:
        notes.append(f"{num_prompts} of {count} documents are cut at data.max_prompt_tokens={data.max_prompt_tokens}")
    if num_summaries:
        notes.append(
            f"{num_summaries} of {count} summaries are longer than data.max_completion_tokens="
            f"{data.max_completion_tokens}: the reward sees them cut off, and so as unfinished"
        )
    return notes


def print_check(results: Mapping[str, Any]) -> None:
    """The table, what to know of the rows, and the verdict."""
    from homestretch.console import say, table, warn

    columns = ["score", "AUC", "95 %", "Spearman", "tau within", "reward's lead", "95 %"]
    scores = {"reward": results} | results["baselines"]
    rows = [_table_row(name, found, results["n"]) for name, found in scores.items()]
    table(f"{results['file']}: {results['n']} rows of {results['n_documents']} documents", columns, rows)
    say(f"positive: label >= {results['threshold']:g}, {results['n_positive']} of {results['n']} rows. "
        "tau within: Kendall's tau-b with the labels within a document, which is what RL compares; "
        "lead: the reward's AUC minus this one's")  # fmt: skip
    for note in results["notes"]:
        warn(note)
    say(results["verdict"])


def _table_row(name: str, found: Mapping[str, Any], num_rows: int) -> list[str]:
    return [
        name if found["n"] == num_rows else f"{name} (n = {found['n']})",
        _shown(found["auc"]),
        _interval(found["low"], found["high"]),
        _shown(found["spearman"]),
        _shown(found["within_document_tau"]["tau"]),
        _shown(found.get("difference"), "+"),
        _interval(found.get("difference_low"), found.get("difference_high"), "+"),
    ]


def _shown(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "-" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"
