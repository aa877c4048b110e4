"""What each arm cost: beyond SFT to make it, and in the evaluation to decode with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.config import RunConfig
from homestretch.rundir import RunDir
from homestretch.types import Completion

NEEDS: dict[str, tuple[str, ...]] = {
    "rl": ("negatives", "reward"),
    "rejection_sft": ("negatives", "reward"),
    "best_of_n": ("negatives", "reward"),
    "dpo": ("negatives",),
    "unlikelihood": ("negatives",),
}
"""The stages behind SFT whose files an arm is made of. Where arms share one, each is charged all of it."""

TOKENS = ("sampled_tokens", "scored_tokens", "trained_tokens")


@dataclass(frozen=True, slots=True)
class Decoding:
    """What the evaluation's outputs of one arm took."""

    tokens: int
    """Decoded, terminators included; those of samples that were not chosen count."""
    seconds: float
    """Loading the model included."""


def num_tokens(completions: Sequence[Completion]) -> int:
    """Tokens that were decoded, terminators included."""
    return sum(len(completion.ids) + completion.terminated for completion in completions)


def arm_costs(config: RunConfig, rundir: RunDir, decodings: Mapping[str, Decoding]) -> dict[str, dict[str, Any]]:
    """Per arm (sft, rl, ...): seconds and tokens. None is what was not recorded."""
    return {arm: _cost(arm, config, rundir, decoding) for arm, decoding in decodings.items() if arm != "base"}


def _cost(arm: str, config: RunConfig, rundir: RunDir, decoding: Decoding) -> dict[str, Any]:
    own = _own(arm, config, rundir)
    needed = sum(_seconds(rundir, stage) for stage in NEEDS.get(arm, ()))
    return {
        "needs": list(NEEDS.get(arm, ())),
        "needed_seconds": round(needed, 1),
        "training_seconds": own.get("seconds", 0.0),
        "total_seconds": round(needed + own.get("seconds", 0.0), 1),
        "sampled_completions": own.get("sampled_completions", 0),
        **{key: own.get(key, 0) for key in TOKENS},
        "samples_per_output": config.baselines.best_of_n.n if arm == "best_of_n" else 1,
        "decoded_tokens": decoding.tokens,
        "decoding_seconds": round(decoding.seconds, 1),
    }


def _own(arm: str, config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """What the arm's own training said of itself; nothing for SFT, which all of them start from, and for decoding."""
    if arm == "rl":
        done = rundir.summary("rl")
        sampled = done.get("updates", 0) * config.rl.prompts_per_update * config.rl.completions_per_prompt
        return dict.fromkeys(TOKENS) | done | {"sampled_completions": sampled}
    if arm in config.baselines.trained_arms:
        return dict(rundir.summary("baselines")["arms"][arm])
    return {}


def _seconds(rundir: RunDir, stage: str) -> float:
    return float(rundir.summary(stage).get("seconds", 0.0))
