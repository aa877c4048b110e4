"""What the report says, read from a run directory and nothing else. A part that is missing is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homestretch.config import RunConfig
from homestretch.report.formatting import DASH, clean, duration, is_number
from homestretch.report.verdict import verdict
from homestretch.rundir import RunDir, planned_stages, read_json, read_jsonl

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What a stage said of itself when it was done."""

    name: str
    is_done: bool
    seconds: float | None
    facts: tuple[tuple[str, str], ...]

    @property
    def duration(self) -> str:
        """How long the stage took, in words."""
        return duration(self.seconds)


@dataclass(frozen=True, slots=True)
class Content:
    """The raw parts of a run."""

    name: str
    seed: int
    flag_threshold: float
    scores: Mapping[str, Any] | None
    samples: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    audit: Mapping[str, Any] | None
    negatives_train: list[dict[str, Any]]
    negatives_validation: list[dict[str, Any]]
    unused_modes: tuple[str, ...]
    """Failure modes that apply to no train example, as the negatives stage found."""
    kept_sft: bool
    """Whether RL ended with the SFT model, as no update had a better held-out score."""
    stages: tuple[StageFacts, ...]
    alarms: list[dict[str, Any]]
    """Of RL's guard: update, kind, sentence, action."""
    recipe: str
    environment: tuple[tuple[str, str], ...]


def read_content(config: RunConfig, rundir: RunDir) -> Content:
    """Read the run directory; nothing is computed here, and what stages that are not done have left is not read."""
    stages = planned_stages(with_baselines=bool(config.baselines.arms))
    recipe = rundir.config_path.read_text(encoding="utf-8") if rundir.config_path.exists() else ""
    rl = rundir.summary("rl") if rundir.is_done("rl") else {}
    return Content(
        name=config.name,
        seed=config.seed,
        flag_threshold=config.evaluate.flag_threshold,
        scores=_json(rundir.scores_path) if rundir.is_done("evaluate") else None,
        samples=_jsonl(rundir.samples_path) if rundir.is_done("evaluate") else [],
        metrics=[row for row in _jsonl(rundir.metrics_path) if rundir.is_done(str(row.get("stage")))],
        audit=_json(rundir.audit_path) if rundir.is_done("reward") else None,
        negatives_train=_jsonl(rundir.negatives_dir / "train.jsonl") if rundir.is_done("negatives") else [],
        negatives_validation=_jsonl(rundir.negatives_dir / "validation.jsonl") if rundir.is_done("negatives") else [],
        unused_modes=_unused_modes(rundir),
        kept_sft=rl.get("kept_update") == 0,
        # The report's own stage is left out: the report would change by being written.
        stages=tuple(_stage(rundir, stage) for stage in stages if stage != "report"),
        alarms=rl.get("alarms", []),
        recipe=clean(recipe),
        environment=_flat(_json(rundir.environment_path) or {}),
    )


def report_json(content: Content) -> dict[str, Any]:
    """The report for programs: the verdict and the means behind it."""
    scores = content.scores or {}
    arms: Mapping[str, Any] = scores.get("arms", {})
    return {
        "schema": SCHEMA,
        "verdict": verdict(content.scores, kept_sft=content.kept_sft),
        "name": content.name,
        "seed": content.seed,
        "num_examples": scores.get("num_examples"),
        "arms": {
            arm: {metric: cell.get("mean") for metric, cell in values.get("metrics", {}).items()}
            for arm, values in arms.items()
        },
        "contrasts": [row for row in scores.get("contrasts", ()) if row.get("primary")],
        "baseline_contrasts": scores.get("baseline_contrasts") or [],
        "costs": scores.get("costs"),
        "failures": {
            arm: {mode: cell.get("rate") for mode, cell in values.get("failures", {}).items()}
            for arm, values in arms.items()
        },
        "audit": content.audit,
        "alarms": content.alarms,
        "stages": {stage.name: stage.seconds for stage in content.stages if stage.is_done},
    }


def _json(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def _unused_modes(rundir: RunDir) -> tuple[str, ...]:
    summary = rundir.summary("negatives") if rundir.is_done("negatives") else {}
    return tuple(map(clean, summary.get("modes_that_never_apply") or ()))


def _stage(rundir: RunDir, stage: str) -> StageFacts:
    if not rundir.is_done(stage):
        return StageFacts(stage, False, None, ())
    summary = rundir.summary(stage)
    seconds = summary.pop("seconds", None)
    if isinstance(alarms := summary.get("alarms"), list):
        summary["alarms"] = len(alarms)  # the curves have them in words
    return StageFacts(stage, True, seconds if is_number(seconds) else None, _flat(summary))


def _flat(value: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """A nested mapping as dotted names with readable values."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            rows.extend(_flat(item, f"{name}."))
        elif isinstance(item, float):
            rows.append((clean(name), f"{item:.6g}"))
        elif isinstance(item, list | tuple):
            rows.append((clean(name), clean(", ".join(str(part) for part in item)) or DASH))
        else:
            rows.append((clean(name), DASH if item is None else clean(item)))
    return tuple(rows)
