"""Where the reward and the held-out score disagree most: the samples to read before RL is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.types import Completion, Example

NUM_EXTREMES = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Misplaced:
    """A prompt's sample that the reward places most above the score, or most below."""

    ranks: float
    """How many ranks."""
    gap: float
    """The same in standard deviations: what decides between equal ranks."""
    row: dict[str, Any]


def extremes(
    examples: Sequence[Example],
    samples: Sequence[Sequence[Completion]],
    reward: Sequence[Floats],
    score: Sequence[Floats],
) -> dict[str, list[dict[str, Any]]]:
    """`overrated`: samples that the reward ranks far above the held-out score, and `underrated`: far below.

    Ranks are those among the distinct samples of one prompt, best first, ties sharing their mean rank: RL compares
    nothing else. The ten largest differences, at most one of a prompt each; ties by the gap in standard deviations.
    Prompts where either is constant rank nothing and are left out; so are samples without a finite number.
    """
    over: list[_Misplaced] = []
    under: list[_Misplaced] = []
    reward_sd, score_sd = _within_sd(reward), _within_sd(score)
    for example, group, rewards, scores in zip(examples, samples, reward, score, strict=True):
        kept = _distinct(group, rewards, scores)
        r, s = rewards[kept], scores[kept]
        if len(kept) < 2 or np.ptp(r) == 0 or np.ptp(s) == 0:
            continue
        rank_r, rank_s = _ranks(r), _ranks(s)
        gap = (r - r.mean()) / reward_sd - (s - s.mean()) / score_sd
        # Lexsort sorts by its last key first: ranks, then the gap.
        order = np.lexsort((gap, rank_s - rank_r))
        for found, best, sign in ((over, order[-1], 1.0), (under, order[0], -1.0)):
            ranks = sign * (rank_s[best] - rank_r[best])
            if ranks > 0:
                completion = group[kept[best]]
                row = {
                    "example_id": example.id,
                    "text": completion.text,
                    "terminated": completion.terminated,
                    "reward": float(r[best]),
                    "score": float(s[best]),
                    "reward_rank": float(rank_r[best]),
                    "score_rank": float(rank_s[best]),
                    "of": len(kept),
                }
                found.append(_Misplaced(float(ranks), float(sign * gap[best]), row))
    return {"overrated": _most(over), "underrated": _most(under)}


def _most(found: Sequence[_Misplaced]) -> list[dict[str, Any]]:
    return [item.row for item in sorted(found, key=lambda item: (-item.ranks, -item.gap))[:NUM_EXTREMES]]


def _distinct(group: Sequence[Completion], rewards: Floats, scores: Floats) -> list[int]:
    """Indices of the samples with finite numbers, a text that was drawn twice once."""
    first: dict[tuple[str, bool], int] = {}
    for i, completion in enumerate(group):
        if np.isfinite(rewards[i]) and np.isfinite(scores[i]):
            first.setdefault((completion.text, completion.terminated), i)
    return list(first.values())


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(-values), dtype=np.float64)


def _within_sd(groups: Sequence[Floats]) -> float:
    """The standard deviation within prompts; 1 where nothing varies."""
    finite = [group[np.isfinite(group)] for group in groups]
    deviations = [group - group.mean() for group in finite if len(group)]
    return float(np.concatenate(deviations).std()) or 1.0 if deviations else 1.0
