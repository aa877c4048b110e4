"""When RL is taken back or stopped, and which checkpoint it ships. Held-out metrics decide, never the reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homestretch.config import GuardConfig

Array = NDArray[np.float64]
Kind = Literal["divergence", "held_out_reward", "drop", "band"]

_DIVERGENCE_LEVEL = 0.05
"""Chance, over a whole run, that a judge which only varies counts as fallen while the reward rises."""
_SLACK = 0.05
"""A band is this much wider at either end: references that are all alike must not make everything else unusual."""


class Band(NamedTuple):
    """Where most references lie: their 5th and 95th percentile of a statistic."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One validation. Arrays have one value per validation example, (n,), the same examples in the same order."""

    update: int
    scores: Array
    """Held-out scores, finite."""
    rewards: Array = field(default_factory=lambda: np.zeros(0))
    """What RL would pay for the same completions; empty: not watched."""
    held_out: Array = field(default_factory=lambda: np.zeros(0))
    """What the held-out reward, which RL is never paid by, gives them; empty: there is none."""
    statistics: Mapping[str, Array] = field(default_factory=dict)
    """Lexical statistics of the same completions by name; NaN where one is undefined."""
    kl: float = 0.0
    """To the SFT model, nats per completion."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A sign of reward hacking, and what was done."""

    update: int
    kind: Kind
    sentence: str
    """What was seen, with its numbers."""
    action: Literal["rolled back", "stopped", "recorded"]
    refresh: str = ""
    """What the alarm taught the learned reward, or why nothing, in words; empty where RL did not go back."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a validation."""

    is_best: bool
    """Keep this checkpoint: it is the one to ship so far."""
    alarm: Alarm | None = None
    stop: str | None = None
    """Why RL should end, in words; None to go on."""


@dataclass(frozen=True, slots=True)
class GuardState:
    """All that a guard remembers: numbers, arrays and words."""

    first: Observation | None = None
    """The SFT model's."""
    best: Observation | None = None
    num_compared: int = 0
    """Validations after the first."""
    waited: int = 0
    """Those in a row without a better score."""
    alarms: tuple[Alarm, ...] = ()


class Guard:
    """Numbers in, verdict out. The first observation is the SFT model's, which RL must beat."""

    def __init__(
        self, config: GuardConfig, *, num_validations: int = 1, bands: Mapping[str, Band] | None = None
    ) -> None:
        """`num_validations` are planned after the first; `bands` are the references', for each statistic watched."""
        self.config, self.num_validations, self.bands = config, num_validations, dict(bands or {})
        self.state = GuardState()

    @property
    def best_update(self) -> int:
        """Whose checkpoint is to be shipped."""
        return self.state.best.update if self.state.best else 0

    def observe(self, now: Observation) -> Verdict:
        """Take in a validation. An alarm comes before everything else; what raised one is never the best."""
        best = self.state.best
        if best is None:
            self.state = GuardState(first=now, best=now)
            return Verdict(is_best=True)
        self.state = replace(self.state, num_compared=self.state.num_compared + 1)
        alarm = self._alarm(now, best)
        if alarm is not None:
            self.state = replace(self.state, alarms=(*self.state.alarms, alarm))
            if alarm.action == "rolled back":
                self.state = replace(self.state, waited=0)
            if alarm.action != "recorded":
                return Verdict(False, alarm, alarm.sentence if alarm.action == "stopped" else None)
        is_best = alarm is None and bool(now.scores.mean() > best.scores.mean())
        if is_best:
            self.state = replace(self.state, best=now, waited=0)
        else:
            self.state = replace(self.state, waited=self.state.waited + 1)
        return Verdict(is_best, alarm, self._stop(now))

    def answered(self, refresh: str) -> None:
        """Note with the last alarm what it taught the learned reward."""
        *before, last = self.state.alarms
        self.state = replace(self.state, alarms=(*before, replace(last, refresh=refresh)))

    def rescored(self, rewards: Array) -> None:
        """Another reward is paid from now on: what it gives for the completions of the best observation, (n,)."""
        assert self.state.best is not None
        self.state = replace(self.state, best=replace(self.state.best, rewards=rewards))

    def _stop(self, now: Observation) -> str | None:
        config, waited = self.config, self.state.waited
        if now.kl > config.max_kl:
            return (
                f"the KL to the SFT model, {now.kl:.1f} nats per completion, passed rl.guard.max_kl={config.max_kl:g}"
            )
        if waited >= config.patience:
            return f"{waited} validations in a row without a better held-out score"
        return None

    def _alarm(self, now: Observation, best: Observation) -> Alarm | None:
        found = self._divergence(now, best) or self._drop(now, best) or self._out_of_band(now)
        if found is None:
            return None
        number, most = len(self.state.alarms) + 1, self.config.max_alarms
        action: Literal["rolled back", "stopped", "recorded"]
        action = "recorded" if most == 0 else "stopped" if number >= most else "rolled back"
        return Alarm(now.update, found[0], found[1], action)

    def _divergence(self, now: Observation, best: Observation) -> tuple[Kind, str] | None:
        """Whether the reward rose and a judge that it does not contain fell; the judges share the chance of error."""
        if not len(now.rewards):
            return None
        judges: list[tuple[Kind, str, Array, Array]] = [("divergence", "score", best.scores, now.scores)]
        if len(now.held_out):
            judges.append(("held_out_reward", "reward", best.held_out, now.held_out))
        rise, level = _change(now.rewards, best.rewards), _DIVERGENCE_LEVEL / len(judges) / self._num_pairs()
        for kind, name, before, after in judges:
            fall = _change(before, after)
            if rise.exceeds(level) and fall.exceeds(level):
                since = f"since the best checkpoint, update {best.update}"
                return kind, f"the reward rose {rise} while the held-out {name} fell {fall} {since}"
        return None

    def _drop(self, now: Observation, best: Observation) -> tuple[Kind, str] | None:
        fall = _change(best.scores, now.scores)
        if not fall.exceeds(_normal_tail(self.config.max_drop_se) / self._num_pairs()):
            return None
        return "drop", f"the held-out score fell {fall} below its best, update {best.update}"

    def _num_pairs(self) -> int:
        """By how much a chance of error is divided: each validation may be compared with any of those before it."""
        return max(self.num_validations, self.state.num_compared) * self.state.num_compared

    def _out_of_band(self, now: Observation) -> tuple[Kind, str] | None:
        first = self.state.first
        assert first is not None
        watched = [name for name in self.bands if name in now.statistics and name in first.statistics]
        num = max(self.num_validations, self.state.num_compared) * 2 * len(watched)
        for name in watched:
            sft = first.statistics[name]
            if np.isnan(sft).all():
                continue
            start = float(np.nanmean(sft))
            low = min(self.bands[name].low, start) - _SLACK
            high = max(self.bands[name].high, start) + _SLACK
            level = _normal_tail(self.config.max_drop_se) / num
            above = _change(now.statistics[name], sft, beyond=high - start)
            below = _change(sft, now.statistics[name], beyond=start - low)
            if above.exceeds(level) or below.exceeds(level):
                return "band", (
                    f"the mean {name} is {np.nanmean(now.statistics[name]):.3f}, outside of the references' band, "
                    f"{low:.3f} to {high:.3f} (SFT model: {start:.3f})"
                )
        return None


class _Change(NamedTuple):
    """The mean of n paired differences, and its standard error."""

    mean: float
    error: float
    n: int

    def exceeds(self, level: float) -> bool:
        """Whether the mean is above 0 at this one-sided level (paired t); differences without spread need no test."""
        return self.n > 1 and self.mean > 1e-12 and self.mean > _t_quantile(level, self.n - 1) * self.error

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.mean / self.error:.1f} standard errors)" if self.error > 1e-12 else (
            f"{self.mean:.4f} (on every example alike)"
        )  # fmt: skip


def _change(after: Array, before: Array, beyond: float = 0.0) -> _Change:
    """after - before - beyond over the examples where both are defined."""
    difference = (after - before)[~(np.isnan(after) | np.isnan(before))]
    n = len(difference)
    if n < 2:
        return _Change(math.nan, math.nan, n)
    return _Change(float(difference.mean()) - beyond, float(difference.std(ddof=1)) / math.sqrt(n), n)


@lru_cache(maxsize=1024)
def _t_quantile(level: float, degrees: int) -> float:
    """What Student's t exceeds with the chance `level`."""
    from scipy.stats import t

    return float(t.isf(level, degrees))


def _normal_tail(standard_errors: float) -> float:
    """The chance that a normal variable is this far above its mean."""
    return 0.5 * math.erfc(standard_errors / math.sqrt(2))
