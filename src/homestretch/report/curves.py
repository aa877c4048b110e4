"""The training curves of a run, from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.report.charts import MAX_POINTS, Line, line_chart
from homestretch.report.formatting import is_number


@dataclass(frozen=True, slots=True)
class Plan:
    """A chart to draw: which keys of which stage, and what it tells."""

    name: str
    stage: str
    title: str
    keys: tuple[tuple[str, str], ...]
    """(key in metrics.jsonl, label) per line."""
    meaning: str
    is_optional: bool = False
    """Not every run has it: nothing is missing without it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart that was drawn."""

    title: str
    meaning: str
    svg: str
    legend: tuple[str, ...]
    summary: str


PLANS = (
    Plan("sft", "sft", "SFT loss", (("sft/loss", "training"), ("sft/validation_loss", "validation")),
         "Nats per reference token. Validation loss that rises again is over-fitting; the best checkpoint is kept."),
    Plan("reward-loss", "reward", "Reward-model loss",
         (("reward/loss", "training"), ("reward/validation_loss", "validation")),
         "Lower is a better fit."),
    Plan("reward-accuracy", "reward", "Reward-model accuracy",
         (("reward/accuracy", "training"), ("reward/validation_accuracy", "validation")),
         "Share of pairs told apart."),
    Plan("score", "rl", "RL score",
         (("rl/score", "score"), ("rl/reward_model", "reward model"), ("validation/score", "score on validation"),
          ("validation/held_out_reward", "held-out reward on validation")),
         "What RL maximises, and a reward that it is never paid, if there is one. A rise here with a falling held-out "
         "score or reward is reward hacking. Dashed: an alarm, after which the reward may be another one."),
    Plan("ensemble", "rl", "Reward ensemble",
         (("rl/ensemble_mean", "members' mean"), ("rl/ensemble_sd", "members' SD"),
          ("validation/ensemble_sd", "SD on validation")),
         "What the reward models say of a completion, and how far they disagree. An SD that rises says that RL has "
         "gone where they were not taught alike.", is_optional=True),
    Plan("selection", "rl", "Held-out score", (("validation/selection", "validation"),),
         "Mean of the selection metrics on validation; it chooses the checkpoint, the reward never does. "
         "Dashed: an alarm."),
    Plan("kl", "rl", "KL to the SFT model", (("rl/kl", "KL"),), "Nats per completion: how far the policy has moved."),
    Plan("beta", "rl", "KL weight beta", (("rl/beta", "beta"),), "Adapted to hold the KL target."),
    Plan("length", "rl", "Length ratio", (("rl/length_ratio", "rollouts"), ("validation/length_ratio", "validation")),
         "Completion length over expected length; 1 is on target."),
    Plan("terminated", "rl", "Terminated", (("rl/terminated", "rollouts"), ("validation/terminated", "validation")),
         "Share of completions that ended by themselves before the cap."),
)  # fmt: skip


_WITH_ALARMS = frozenset({"score", "selection"})


def curves(rows: Sequence[Mapping[str, Any]], alarms: Sequence[int] = ()) -> tuple[list[Curve], list[str]]:
    """The charts that can be drawn from the rows of metrics.jsonl, and the titles of those that cannot.

    `alarms` are the updates at which RL's guard raised one.
    """
    drawn, missing = [], []
    for plan in PLANS:
        lines = [line for key, label in plan.keys if (line := _line(rows, plan.stage, key, label)).values]
        if lines:
            drawn.append(_draw(plan, lines, alarms if plan.name in _WITH_ALARMS else ()))
        elif not plan.is_optional:
            missing.append(plan.title)
    return drawn, missing


def _line(rows: Sequence[Mapping[str, Any]], stage: str, key: str, label: str) -> Line:
    points = [(row["step"], row[key]) for row in rows if row.get("stage") == stage and is_number(row.get(key))]
    return Line(label, tuple(step for step, _ in points), tuple(value for _, value in points))


def _draw(plan: Plan, lines: Sequence[Line], marks: Sequence[int]) -> Curve:
    summary = "; ".join(_summary(line, len(lines) > 1) for line in lines)
    x_label = "update" if plan.stage == "rl" else "step"
    svg = line_chart(f"curve-{plan.name}", lines, x_label=x_label, description=f"{plan.title}: {summary}", marks=marks)
    note = f" Drawn as {MAX_POINTS} means." if any(len(line.values) > MAX_POINTS for line in lines) else ""
    return Curve(plan.title, plan.meaning + note, svg, tuple(line.label for line in lines), summary)


def _summary(line: Line, named: bool) -> str:
    label = f"{line.label}: " if named else ""
    values = line.values
    if len(values) == 1:
        return f"{label}{_short(values[0])}"
    ends = f"first {_short(values[0])}, last {_short(values[-1])}"
    return f"{label}{ends} (range {_short(min(values))} to {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
