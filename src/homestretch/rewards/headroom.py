"""Is there anything for RL to gain with this reward? The best of a prompt's samples by it, against greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homestretch.ops.significance import bootstrap_interval

Floats = NDArray[np.float64]


def best_of_n(
    reward: Sequence[Floats],
    score: Sequence[Floats],
    greedy_P: Floats,
    *,
    confidence: float,
    num_resamples: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Means over P prompts of a held-out score: of greedy decoding (`greedy`), of all samples (`mean`), of the sample
    that the reward prefers (`best`) and of the sample that the score itself prefers (`oracle`: the most that choosing
    among these could bring). `difference` is best - greedy, paired, with its BCa interval `low`, `high` over prompts.

    `reward[i]` and `score[i]` have shape (k_i,), greedy_P (P,). Equal rewards share the choice. Samples without a
    finite reward or score are left out, prompts without any other left or without a greedy score too; `n` counts the
    rest. Every number is None where that is 0.

    RL with a small KL weight moves towards what best-of-n picks (Gao et al. 2023, arXiv 2210.10760), and users decode
    greedily: a reward may rank samples well because bad luck in sampling shows in it, and still prefer nothing to the
    text that greedy decoding writes anyway.
    """
    rows: list[tuple[float, float, float, float]] = []
    for rewards, scores, greedy in zip(reward, score, greedy_P, strict=True):
        kept = np.isfinite(rewards) & np.isfinite(scores)
        if kept.any() and np.isfinite(greedy):
            r, s = rewards[kept], scores[kept]
            rows.append((float(greedy), float(s.mean()), float(s[r == r.max()].mean()), float(s.max())))
    names = ("greedy", "mean", "best", "oracle")
    if not rows:
        return dict.fromkeys((*names, "difference", "low", "high")) | {"n": 0}
    columns = dict(zip(names, np.array(rows).T, strict=True))
    differences = columns["best"] - columns["greedy"]
    low, high = bootstrap_interval(differences, confidence=confidence, num_resamples=num_resamples, rng=rng)
    means = {name: float(column.mean()) for name, column in columns.items()}
    return {**means, "difference": float(differences.mean()), "low": low, "high": high, "n": len(rows)}
