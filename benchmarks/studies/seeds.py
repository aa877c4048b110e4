"""Paired differences over seeds: what one run's evaluation says of each example, and what several seeds say together.

A pair of runs speaks about two models. A claim about the method is about other seeds, so its interval is made of the
spread between seeds; with few of them it is wide, and rightly so.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.ops.significance import bootstrap_interval, holm, paired_randomization
from homestretch.rundir import RunDir, read_json, read_jsonl
from homestretch.types import UserError

Array = NDArray[np.float64]
Keys = Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Outputs:
    """A finished run's evaluation, example by example."""

    keys: tuple[tuple[str, str], ...]
    """Which examples: id and source (built-in tasks number anew for every seed)."""
    arms: Mapping[str, Mapping[str, Array]]
    """Arm -> metric or failure mode -> scores, (n,), NaN where undefined. Modes are 1 where flagged, else 0. A metric
    goes before a mode of the same name: a task's exact `wrong_speaker` before the detector's."""
    texts: Mapping[str, tuple[str, ...]]
    """Arm -> its outputs."""
    primaries: tuple[str, ...]
    higher_is_better: Mapping[str, bool | None]
    confidence: float
    num_resamples: int


def read_outputs(rundir: RunDir) -> Outputs:
    """Read evaluation/samples.jsonl and scores.json of a run."""
    rows, scores = read_jsonl(rundir.samples_path), read_json(rundir.scores_path)
    arms = {}
    for arm, summary in scores["arms"].items():
        cells = [row["arms"][arm] for row in rows]
        flags = {mode: _flags([cell["flags"].get(mode) for cell in cells], scores["flag_threshold"])
                 for mode in summary["failures"]}  # fmt: skip
        metrics = {name: _numbers([cell["metrics"][name] for cell in cells]) for name in summary["metrics"]}
        arms[arm] = flags | metrics
    some = scores["arms"]["sft/raw"]
    directions = {mode: False for mode in some["failures"]}
    return Outputs(
        keys=tuple((row["id"], row["source"]) for row in rows),
        arms=arms,
        texts={arm: tuple(row["arms"][arm]["text"] for row in rows) for arm in arms},
        primaries=tuple(dict.fromkeys(row["metric"] for row in scores["contrasts"] if row["primary"])),
        higher_is_better=directions | {name: about["higher_is_better"] for name, about in some["metrics"].items()},
        confidence=scores["confidence"],
        num_resamples=scores["num_resamples"],
    )


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _flags(severities: Sequence[float | None], threshold: float) -> Array:
    values = _numbers(severities)
    return np.where(np.isnan(values), np.nan, (values >= threshold).astype(float))


def difference(a: Outputs, arm_a: str, b: Outputs, arm_b: str, metric: str) -> Array:
    """a - b on every example, (n,), NaN where one is undefined. UserError if the two answered other examples."""
    require_same(a, b)
    return a.arms[arm_a][metric] - b.arms[arm_b][metric]


def require_same(a: Outputs, b: Outputs) -> None:
    """UserError if two runs were evaluated on other examples."""
    if a.keys != b.keys:
        raise UserError("two runs of one seed were evaluated on other examples; begin anew with another --out")


# --- over seeds ------------------------------------------------------------------------------------------------------


def across_seeds(differences: Sequence[Array], keys: Sequence[Keys], *, confidence: float) -> dict[str, float | None]:
    """The mean of the seeds' mean differences, with a t interval and p for other seeds and other examples.

    `differences` has an array per seed, (n_s,), and `keys` says of which examples. Squared standard error: the variance
    of the S seed means / S, which is all of it where every seed has examples of its own; where seeds share examples,
    plus the variance that the shared ones bring (together min F', Clark 1973, which errs on the safe side). Degrees of
    freedom after Satterthwaite: S - 1 where nothing is shared. `p_sign_flip` asks for no distribution: exact, over the
    2^S signs of the seed means, so never below 2 / 2^S. A single seed has a mean and nothing else.
    """
    means = np.array([values.mean() for values in differences])
    num, mean = len(means), float(means.mean())
    if num < 2:
        return {"mean": mean, "low": None, "high": None, "p": None, "p_sign_flip": None}
    flips = paired_randomization(means, num_resamples=2**16, rng=np.random.default_rng(0))
    of_seeds = float(means.var(ddof=1)) / num
    of_examples, num_shared = _shared_variance(differences, keys)
    variance = of_seeds + of_examples
    if variance <= (1e-12 * max(1.0, abs(mean))) ** 2:  # all alike: nothing to test
        p = 1.0 if abs(mean) <= 1e-12 else 0.0
        return {"mean": mean, "low": mean, "high": mean, "p": p, "p_sign_flip": flips}
    from scipy.stats import t

    degrees = variance**2 / (of_seeds**2 / (num - 1) + of_examples**2 / max(1, num_shared - 1))
    half = float(t.ppf((1 + confidence) / 2, degrees)) * variance**0.5
    p = 2 * float(t.sf(abs(mean) / variance**0.5, degrees))
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "p_sign_flip": flips}


def _shared_variance(differences: Sequence[Array], keys: Sequence[Keys]) -> tuple[float, int]:
    """The variance of the mean that examples which several seeds have bring, and their number."""
    parts: dict[Hashable, list[float]] = {}
    for values, of_seed in zip(differences, keys, strict=True):
        share = (values - values.mean()) / (len(differences) * len(values))
        for key, part in zip(of_seed, share, strict=True):
            parts.setdefault(key, []).append(float(part))
    shared = np.array([sum(part) for part in parts.values() if len(part) > 1])
    return (float((shared**2).sum()) * len(shared) / (len(shared) - 1) if len(shared) > 1 else 0.0), len(shared)


def of_these_models(
    differences: Sequence[Array], keys: Sequence[Keys], *, confidence: float, num_resamples: int
) -> dict[str, float]:
    """The same mean for these very models: a BCa interval over examples and a paired randomization p.

    An example that several seeds have is drawn, and changes its sign, with all its differences.
    """
    totals: dict[Hashable, float] = {}
    for values, of_seed in zip(differences, keys, strict=True):
        for key, value in zip(of_seed, values, strict=True):
            totals[key] = totals.get(key, 0.0) + float(value) / (len(differences) * len(values))
    values = len(totals) * np.array(list(totals.values()))
    rng = np.random.default_rng(0)
    low, high = bootstrap_interval(values, confidence=confidence, num_resamples=num_resamples, rng=rng)
    return {"low": low, "high": high, "p": paired_randomization(values, num_resamples=num_resamples, rng=rng)}


def contrast(
    about: Mapping[str, Any], outputs: Mapping[int, Outputs], differences: Mapping[int, Array]
) -> dict[str, Any] | None:
    """A row of a contrast: `about`, each seed, all seeds, these models. None where no example has the difference.

    `outputs` are any of a seed's runs: they say which examples its differences, (n,), are of. NaN is left out.
    """
    kept = {seed: ~np.isnan(values) for seed, values in differences.items()}
    differences = {seed: differences[seed][kept[seed]] for seed in differences if kept[seed].any()}
    if not differences:
        return None
    keys = {seed: [outputs[seed].keys[i] for i in np.flatnonzero(kept[seed])] for seed in differences}
    some = next(iter(outputs.values()))
    settings = {"confidence": some.confidence, "num_resamples": some.num_resamples}
    seeds = [
        {"seed": seed, "n": len(values), "difference": float(values.mean())}
        | of_these_models([values], [keys[seed]], **settings)  # type: ignore[arg-type]
        for seed, values in differences.items()
    ]
    every = (list(differences.values()), [keys[seed] for seed in differences])
    return {
        **about,
        **across_seeds(*every, confidence=some.confidence),
        "these_models": of_these_models(*every, **settings),  # type: ignore[arg-type]
        "seeds": seeds,
    }


def add_holm(rows: Sequence[dict[str, Any]]) -> None:
    """Holm-corrected p: the primary rows are one family, all others another one."""
    for is_primary in (True, False):
        family = [row for row in rows if row["primary"] is is_primary]
        models = holm([row["these_models"]["p"] for row in family])
        tested = [row for row in family if row["p"] is not None]
        for row, p in zip(family, models, strict=True):
            row["p_holm"], row["these_models"]["p_holm"] = None, p
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"] = p


def mean_levels(outputs: Mapping[int, Outputs], arms: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Arm -> metric -> each seed's mean over the examples on which it is defined (None: on none)."""

    def mean(values: Array) -> float | None:
        return None if np.isnan(values).all() else float(np.nanmean(values))

    return {arm: {m: [mean(of_seed.arms[arm][m]) for of_seed in outputs.values()] for m in metrics} for arm in arms}


def require_seeds(outputs: Sized, needs: str) -> None:
    """UserError if no seed has all runs that a comparison needs."""
    if not len(outputs):
        raise UserError(f"nothing to compare yet: no seed has {needs} finished")
