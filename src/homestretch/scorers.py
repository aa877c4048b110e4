"""Scorers put to use in RL: reward terms by their names in a recipe, and the text statistics that the guard watches.

Metrics, detectors, plug-ins and users' own functions are all scorers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.algorithms.guard import Band
from homestretch.config import RunConfig
from homestretch.failures import FAILURE_MODES, build_modes
from homestretch.metrics import METRICS, build_metric, build_metrics, selection_names
from homestretch.metrics.contrasts import primary_names
from homestretch.metrics.scoring import MetricContext
from homestretch.ops.drawing import drawn
from homestretch.registry import resolve
from homestretch.rewards.composition import RewardComposition
from homestretch.rewards.length import LengthModel, fit_length_model
from homestretch.rewards.terms import RewardTerm
from homestretch.types import Completion, Corpus, Example, FailureMode, Metric, Scorer, UserError

_GROUP = "homestretch.scorers"

STATISTICS = ("relative_length", "density", "repetition_3", "distinct_2")
"""What the guard watches of the text: length against what the source predicts, copying, repetition, variety."""
_MAX_BAND_EXAMPLES = 1000
"""The references' bands are learnt from at most this many training examples: enough for a 95th percentile."""


def build_terms(config: RunConfig, train: Sequence[Example]) -> tuple[RewardTerm, ...]:
    """The scorers of `rl.terms`, those that learn from references fitted to `train`.

    UserError, in one line, for a name that nobody knows, a failure mode without a detector, something that cannot be
    called, and a weight that would pay for what is known to be bad.
    """
    metrics = _metric_names(config)
    modes = FAILURE_MODES | {point.name: point.value for point in entry_points(group="homestretch.failure_modes")}

    def built(name: str, weight: float) -> RewardTerm:
        if name in metrics:
            return RewardTerm(name, _metric(build_metric(name, MetricContext(config, train)), weight), weight)
        found = resolve(name, dict.fromkeys(metrics, "") | modes, _GROUP, "scorer")
        if isinstance(found, type) and issubclass(found, FailureMode):
            mode = build_modes([name], Corpus(tuple(train), config.seed, config.data.entities))[0]
            return RewardTerm(name, _detector(mode, name, weight), weight)
        if not callable(found) or isinstance(found, type):
            raise UserError(f"scorer {name!r} is no function (examples, completions) -> one number each")
        return RewardTerm(name, found, weight)

    terms = []
    for term in config.rl.terms:
        try:
            terms.append(built(term.scorer, term.weight))
        except UserError as error:
            raise UserError(f"rl.terms: {error}") from error
    return tuple(terms)


def build_reward(config: RunConfig, reward: Scorer, floor: float, train: Sequence[Example]) -> RewardComposition:
    """What RL is paid in this run, made of the learned `reward` and its `floor`."""
    return RewardComposition(
        reward, floor, fit_length_model(train), config.rl.length, config.rl.shaping,
        weight=config.rl.reward_weight, terms=build_terms(config, train),
    )  # fmt: skip


def lost_judges(config: RunConfig, train: Sequence[Example]) -> Iterator[str]:
    """A warning for each term that also chooses checkpoints or is tested at the end: it is no held-out judge then."""
    paid = [term.scorer for term in config.rl.terms if term.weight]
    if not paid:
        return
    primaries = primary_names(build_metrics(config, train), config.evaluate.primary_metrics)
    for key, names in (("selection", selection_names(config)), ("primary", primaries)):
        for name in sorted(set(paid) & set(names)):
            yield (
                f"rl.terms: {name} is in the reward and is a {key} metric too, so a gain in it is what was paid for, "
                f"and no evidence; name another under evaluate.{key}_metrics"
            )


def _metric_names(config: RunConfig) -> set[str]:
    from homestretch.tasks import build_task

    of_task = build_task(config.data.task).metrics() if config.data.task else ()
    plugins = entry_points(group="homestretch.metrics")
    return {*METRICS, *(metric.name for metric in of_task), *(point.name for point in plugins)}


def _metric(metric: Metric, weight: float) -> Scorer:
    if weight and metric.higher_is_better is not None and metric.higher_is_better != (weight > 0):
        raise UserError(
            f"{metric.name}: {'higher' if metric.higher_is_better else 'lower'} is better, and a weight of {weight:g} "
            f"pays for the other end; use {-weight:g}"
        )
    return metric.scorer


def _detector(mode: FailureMode, name: str, weight: float) -> Scorer:
    """The mode's severity, 0..1; NaN where it cannot be judged."""
    if "detect" not in mode.faces():
        raise UserError(f"{name}: this failure mode has no detector, so there is nothing to score with")
    if weight > 0:
        raise UserError(f"{name}: a severity is high where the failure is, and a weight of {weight:g} pays for it; "
                        f"use {-weight:g}")  # fmt: skip
    detect: Callable[[Example, Completion], Any] = mode.detect

    def scorer(examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        severities = [detect(example, completion) for example, completion in zip(examples, completions, strict=True)]
        return np.array([np.nan if severity is None else severity for severity in severities], dtype=np.float64)

    return scorer


def build_statistics(config: RunConfig, train: Sequence[Example], length_model: LengthModel) -> dict[str, Scorer]:
    """The scorers of `STATISTICS`, in that order. None of them compares with a reference."""
    context = MetricContext(config, train)
    names = [name for name in STATISTICS if name != "relative_length"]
    return {"relative_length": length_model.relative} | {name: build_metric(name, context).scorer for name in names}


def reference_bands(statistics: Mapping[str, Scorer], train: Sequence[Example], seed: int) -> dict[str, Band]:
    """The 5th and 95th percentile of each statistic over the training references; one defined nowhere has no band."""
    drawn_examples = drawn(list(train), _MAX_BAND_EXAMPLES, np.random.default_rng(seed))
    examples = [example for example in drawn_examples for _ in example.references]
    references = [Completion(reference) for example in drawn_examples for reference in example.references]
    values = {name: np.asarray(scorer(examples, references)) for name, scorer in statistics.items()}
    defined = {name: value[~np.isnan(value)] for name, value in values.items()}
    return {name: Band(*map(float, np.percentile(value, (5, 95)))) for name, value in defined.items() if len(value)}
