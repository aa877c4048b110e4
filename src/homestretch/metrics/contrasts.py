"""From the arms' completions to scores.json: every arm's metrics and failure rates, and the contrasts C1-C4.

An arm is a model and a way to use its outputs: sft/raw, sft/post, rl/raw, rl/post, base/raw, base/post where the
model before SFT is evaluated too, and the alternatives to RL that the recipe asks for. All arms answer the same
examples, so every comparison is paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homestretch.config import EvaluateConfig
from homestretch.metrics import require_direction
from homestretch.ops.significance import (
    bootstrap_interval,
    effect_size,
    equivalence,
    holm,
    mcnemar,
    paired_randomization,
    wilson_interval,
)
from homestretch.types import Completion, Example, FailureMode, Metric, UserError

SCHEMA = 1

CONTRASTS: tuple[tuple[str, str, str], ...] = (
    ("C1", "rl/raw", "sft/raw"),
    ("C2", "rl/raw", "sft/post"),
    ("C3", "rl/post", "sft/post"),
)
"""Name, arm a, arm b; a difference is a - b. C1 is the paper's comparison; C2 asks whether RL's raw outputs are better
than cleaned-up maximum likelihood; C3 compares both cleaned up."""

_CORE = ("base", "sft", "rl")
"""The arms of every run; all others are alternatives to RL, and C4 is rl/raw minus each one's raw outputs."""

EQUIVALENCE_MARGIN = 0.01
"""Mean differences inside +-this are "the same" in the test that the gap is bridged."""


class Evaluation(NamedTuple):
    """What the evaluation stage writes."""

    scores: dict[str, Any]
    """scores.json."""
    samples: list[dict[str, Any]]
    """samples.jsonl: one row per example, every arm's text, metrics and flags."""


@dataclass(frozen=True)
class Judgement:
    """One arm, judged example by example; every array has shape (num_examples,)."""

    completions: Sequence[Completion]
    metrics: Mapping[str, NDArray[np.float64]]
    """Metric -> scores, NaN where undefined."""
    severities: Mapping[str, NDArray[np.float64]]
    """Failure mode -> severity 0..1, NaN where it cannot be judged."""


def score_arms(
    examples: Sequence[Example],
    arms: Mapping[str, Sequence[Completion]],
    metrics: Sequence[Metric],
    modes: Sequence[FailureMode],
    *,
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> Evaluation:
    """Score, judge and compare the arms; `arms` maps an arm's name to one completion per example.

    Modes without a detector are left out. Numbers that do not exist (a mean over no example) are None: JSON has no
    NaN. Raises ValueError for an arm of another length, UserError for a primary metric that is not among `metrics`.
    """
    primaries = primary_names(metrics, config.primary_metrics)
    detectors = [mode for mode in modes if "detect" in mode.faces()]
    judged = {name: judge(examples, completions, metrics, detectors) for name, completions in arms.items()}
    others = {name: arm for name, arm in judged.items() if name.partition("/")[0] not in _CORE}
    scores: dict[str, Any] = {
        "schema": SCHEMA,
        "split": config.split,
        "num_examples": len(examples),
        "arms": {name: _arm(arm, metrics, config, rng) for name, arm in judged.items() if name not in others},
        "contrasts": _contrasts(judged, metrics, primaries, config, rng),
        "failure_contrasts": _failure_contrasts(judged, config, rng),
        "references": _references(examples, metrics, detectors, config, rng),
        "equivalence_margin": EQUIVALENCE_MARGIN,
        "confidence": config.confidence,
        "num_resamples": config.num_resamples,
        "flag_threshold": config.flag_threshold,
    }
    # last, so that the resampling of everything above is what it would be without them
    scores["arms"] |= {name: _arm(arm, metrics, config, rng) for name, arm in others.items()}
    scores["baseline_contrasts"] = _baseline_contrasts(judged, metrics, primaries, config, rng)
    return Evaluation(scores, _sample_rows(examples, judged))


def judge(
    examples: Sequence[Example],
    completions: Sequence[Completion],
    metrics: Sequence[Metric],
    detectors: Sequence[FailureMode],
) -> Judgement:
    """Every metric and every detector on one completion per example."""
    if len(completions) != len(examples):
        raise ValueError(f"{len(completions)} completions for {len(examples)} examples")
    scored = {metric.name: np.asarray(metric.scorer(examples, completions), dtype=np.float64) for metric in metrics}
    pairs = list(zip(examples, completions, strict=True))
    severities = {
        mode.name: np.array([_number(mode.detect(example, completion)) for example, completion in pairs], dtype=float)
        for mode in detectors
    }
    return Judgement(completions, scored, severities)


def primary_names(metrics: Iterable[Metric], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """The pre-registered metrics: `chosen`, or rouge_l and fact_f1 (entity_precision where there are no exact facts).

    Raises UserError if one of `chosen` is not among `metrics` or has no direction.
    """
    by_name = {metric.name: metric for metric in metrics}
    if chosen is None:
        defaults = ("rouge_l", "fact_f1" if "fact_f1" in by_name else "entity_precision")
        return tuple(name for name in defaults if name in by_name)
    for name in chosen:
        if name not in by_name:
            raise UserError(f"evaluate.primary_metrics: no metric {name!r}; known: {', '.join(sorted(by_name))}")
        require_direction(by_name[name], "evaluate.primary_metrics")
    return tuple(dict.fromkeys(chosen))


def _arm(arm: Judgement, metrics: Sequence[Metric], config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "metrics": {
            metric.name: _mean(arm.metrics[metric.name], config, rng) | {"higher_is_better": metric.higher_is_better}
            for metric in metrics
        },
        "failures": {name: _rate(severities, config) for name, severities in arm.severities.items()},
        "num_unterminated": sum(not completion.terminated for completion in arm.completions),
    }


def _references(
    examples: Sequence[Example],
    metrics: Sequence[Metric],
    detectors: Sequence[FailureMode],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The first references scored as if a model had written them: the ceiling for what is measured against the source.

    The references are hidden from the metrics, so that those which compare with them are undefined and drop out. The
    detectors see all: what they flag here is their false-alarm rate.
    """
    labelled = [example for example in examples if example.references]
    completions = [Completion(example.reference) for example in labelled]
    blind = judge([replace(example, references=()) for example in labelled], completions, metrics, ())
    flags = judge(labelled, completions, (), detectors).severities
    directions = {metric.name: metric.higher_is_better for metric in metrics}
    return {
        "metrics": {
            name: _mean(values, config, rng) | {"higher_is_better": directions[name]}
            for name, values in blind.metrics.items()
            if not np.isnan(values).all()
        },
        "failures": {name: _rate(severities, config) for name, severities in flags.items()},
    }


def _contrasts(
    judged: Mapping[str, Judgement],
    metrics: Sequence[Metric],
    primaries: Sequence[str],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Each contrast by each metric with a direction. Holm within two families: all primaries, and all the others."""
    directed = [metric.name for metric in metrics if metric.higher_is_better is not None]
    rows = _compared(_present(judged), judged, directed, config, rng)
    for row in rows:
        row["primary"] = row["metric"] in primaries
    for is_primary in (True, False):
        _add_holm([row for row in rows if row["primary"] is is_primary])
    return rows


def _baseline_contrasts(
    judged: Mapping[str, Judgement],
    metrics: Sequence[Metric],
    primaries: Sequence[str],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """C4, RL minus each alternative on raw outputs, by the primary metrics alone. One Holm family, apart from C1-C3."""
    names = [name for name in judged if name.endswith("/raw") and name.partition("/")[0] not in _CORE]
    contrasts = [("C4", "rl/raw", name) for name in names if "rl/raw" in judged]
    chosen = [metric.name for metric in metrics if metric.name in primaries]
    rows = _compared(contrasts, judged, chosen, config, rng)
    _add_holm(rows)
    return rows


def _compared(
    contrasts: Sequence[tuple[str, str, str]],
    judged: Mapping[str, Judgement],
    metrics: Sequence[str],
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """A row for each contrast and metric, over the examples on which both arms have the metric; none where none do."""
    rows = []
    for name, a, b in contrasts:
        for metric in metrics:
            differences = judged[a].metrics[metric] - judged[b].metrics[metric]
            differences = differences[~np.isnan(differences)]
            if differences.size:
                about = {"name": name, "a": a, "b": b, "metric": metric}
                rows.append(about | _comparison(differences, config, rng))
    return rows


def _comparison(differences: NDArray[np.float64], config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    interval = bootstrap_interval(
        differences, confidence=config.confidence, num_resamples=config.num_resamples, rng=rng
    )
    return {
        "difference": float(differences.mean()),
        "low": interval.low,
        "high": interval.high,
        "p": paired_randomization(differences, num_resamples=config.num_resamples, rng=rng),
        "n": int(differences.size),
        "effect_size": effect_size(differences),
        "p_equivalence": equivalence(differences, margin=EQUIVALENCE_MARGIN),
    }


def _failure_contrasts(
    judged: Mapping[str, Judgement], config: EvaluateConfig, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The failure rates of C1-C3, a - b, on the examples judged in both arms; one Holm family."""
    rows = []
    for name, a, b in _present(judged):
        for mode in judged[a].severities:
            pair = np.stack([judged[arm].severities[mode] for arm in (a, b)])
            flags = pair[:, ~np.isnan(pair).any(axis=0)] >= config.flag_threshold
            if not flags.shape[1]:
                continue
            differences = flags[0].astype(float) - flags[1]
            interval = bootstrap_interval(
                differences, confidence=config.confidence, num_resamples=config.num_resamples, rng=rng
            )
            only_a, only_b = int(np.sum(flags[0] & ~flags[1])), int(np.sum(flags[1] & ~flags[0]))
            rows.append(
                {
                    "name": name,
                    "a": a,
                    "b": b,
                    "mode": mode,
                    "difference": float(differences.mean()),
                    "low": interval.low,
                    "high": interval.high,
                    "p": mcnemar(only_a, only_b),
                    "n": flags.shape[1],
                    "only_a": only_a,
                    "only_b": only_b,
                }
            )
    _add_holm(rows)
    return rows


def _sample_rows(examples: Sequence[Example], judged: Mapping[str, Judgement]) -> list[dict[str, Any]]:
    return [
        {
            "id": example.id,
            "source": example.source,
            "references": list(example.references),
            "arms": {name: _sample(arm, i) for name, arm in judged.items()},
        }
        for i, example in enumerate(examples)
    ]


def _sample(arm: Judgement, i: int) -> dict[str, Any]:
    return {
        "text": arm.completions[i].text,
        "terminated": arm.completions[i].terminated,
        "metrics": {name: _or_none(values[i]) for name, values in arm.metrics.items()},
        "flags": {name: float(values[i]) for name, values in arm.severities.items() if not np.isnan(values[i])},
    }


def _present(judged: Mapping[str, Judgement]) -> list[tuple[str, str, str]]:
    return [contrast for contrast in CONTRASTS if contrast[1] in judged and contrast[2] in judged]


def _add_holm(rows: Sequence[dict[str, Any]]) -> None:
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p


def _mean(values: NDArray[np.float64], config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Mean over the examples on which the metric is defined, with its BCa interval and their number."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = bootstrap_interval(defined, confidence=config.confidence, num_resamples=config.num_resamples, rng=rng)
    return {"mean": float(defined.mean()), "low": low, "high": high, "n": int(defined.size)}


def _rate(severities: NDArray[np.float64], config: EvaluateConfig) -> dict[str, Any]:
    """Share of the judged examples that are flagged, with its Wilson interval."""
    judged = severities[~np.isnan(severities)]
    if not judged.size:
        return {"rate": None, "low": None, "high": None, "n": 0}
    num_flagged = int(np.sum(judged >= config.flag_threshold))
    low, high = wilson_interval(num_flagged, judged.size, confidence=config.confidence)
    return {"rate": num_flagged / judged.size, "low": low, "high": high, "n": int(judged.size)}


def _number(severity: float | None) -> float:
    return np.nan if severity is None else float(severity)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
