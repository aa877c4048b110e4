"""Which of the model's own samples are bad, and which are good: a rule that is independent of the reward model.

The rule uses what every user has - references and detectors - and never a task's exact facts.

- Overlap: ROUGE-L and chrF against the references, each turned into a percentile rank over all samples given.
- *bad*: in the bottom `bad_fraction` by the **higher** of the two ranks (so low on both), and flagged: some detector's
  severity reaches 0.5, or the text is empty. A sample without terminator is bad whatever its overlap.
- *good*: in the top `good_fraction` by the **lower** of the two ranks (so high on both), terminated and without flags.
- All others are ambiguous and unused.

Low overlap alone is not a failure (there are many ways to put a thing) and neither is a flag alone (detectors err);
negatives that are only rule-made transfer poorly to real model errors (Goyal & Durrett 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from homestretch.types import Completion, Example, FailureMode

FLAG_SEVERITY = 0.5

Verdict = Literal["bad", "good", "unused"]


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What the rule says of one sample, and why."""

    verdict: Verdict
    flags: tuple[str, ...]
    """Names of the detectors that fired, and "empty" or "unterminated"."""


def judge_samples(
    examples: Sequence[Example],
    completions: Sequence[Completion],
    modes: Sequence[FailureMode],
    overlaps: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    bad_fraction: float,
    good_fraction: float,
    among: slice = slice(None),
) -> list[SampleVerdict]:
    """Apply the rule to n samples; `examples[i]` is what `completions[i]` answers.

    `overlaps` is ROUGE-L and chrF, each of shape (n,). Ranks are over the samples given: judge the splits apart, as a
    model's samples for prompts it was trained on are better. With `among` they are over those alone, for all.
    """
    verdicts = overlap_verdicts(*overlaps, bad_fraction=bad_fraction, good_fraction=good_fraction, among=among)
    flags = [
        sample_flags(example, completion, modes) for example, completion in zip(examples, completions, strict=True)
    ]
    return [SampleVerdict(_with_flags(verdict, found), found) for verdict, found in zip(verdicts, flags, strict=True)]


def overlap_verdicts(
    rouge_l: NDArray[np.float64],
    chrf: NDArray[np.float64],
    *,
    bad_fraction: float,
    good_fraction: float,
    among: slice = slice(None),
) -> list[Verdict]:
    """The overlap half of the rule on arrays of shape (n,), each sample ranked among those that `among` picks.

    Samples that tie with the last one inside a fraction are inside too: a model that collapses to one text must not
    hide by tying. Where the same samples would be bad and good (all tie), they are unused.
    """
    if rouge_l.shape != chrf.shape or rouge_l.ndim != 1:
        raise ValueError(f"expected two arrays of one shape (n,), got {rouge_l.shape} and {chrf.shape}")
    n = max(1, len(rouge_l[among]))
    ranks = np.stack([np.add(*_below_and_upto(values, among)) / 2 for values in (rouge_l, chrf)])
    num_worse, _ = _below_and_upto(ranks.max(axis=0), among)
    _, num_not_better = _below_and_upto(ranks.min(axis=0), among)
    is_bad, is_good = (num_worse + 1) / n <= bad_fraction, (n - num_not_better + 1) / n <= good_fraction
    return ["unused" if bad == good else "bad" if bad else "good" for bad, good in zip(is_bad, is_good, strict=True)]


def _below_and_upto(values: NDArray[np.float64], among: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of those among which is ranked are lower than each value, and how many are not higher; (n,) each."""
    ordered = np.sort(values[among])
    return np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")


def sample_flags(example: Example, completion: Completion, modes: Sequence[FailureMode]) -> tuple[str, ...]:
    """Names of the modes whose detector fires (a task's exact facts are hidden from it), "empty", "unterminated"."""
    blind = replace(example, facts={})
    severities = {mode.name: mode.detect(blind, completion) for mode in modes if "detect" in mode.faces()}
    flags = [name for name, severity in severities.items() if severity is not None and severity >= FLAG_SEVERITY]
    if not completion.text.strip():
        flags.append("empty")
    if not completion.terminated:
        flags.append("unterminated")
    return tuple(flags)


def _with_flags(verdict: Verdict, flags: tuple[str, ...]) -> Verdict:
    if "unterminated" in flags:
        return "bad"
    if (verdict == "bad" and not flags) or (verdict == "good" and flags):
        return "unused"
    return verdict
