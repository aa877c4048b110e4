"""The browsable samples: cleaned, cut to a size a page can carry, rendered on the server and given to the script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homestretch.ops.drawing import evenly
from homestretch.report.formatting import clean, is_number
from homestretch.report.tables import in_order, metric_directions, primary_metrics

MAX_SAMPLES = 500
"""More samples than this are thinned evenly; all of them are in evaluation/samples.jsonl."""
TEXT_BUDGET = 1_500_000
"""Characters that sources may take together; longer ones are cut."""
PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class Output:
    """What one arm wrote for one sample."""

    arm: str
    text: str
    same_as: str
    """The earlier arm with the same text, or ""."""
    terminated: bool
    flags: tuple[str, ...]
    """Failure modes whose severity reached the threshold."""
    metrics: tuple[float | None, ...]
    """In the browser's order of metrics, four decimals."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of the browser."""

    id: str
    source: str
    cut: int
    """Characters of the source that are left out."""
    references: tuple[str, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Browser:
    """The samples and what they can be filtered and sorted by."""

    samples: tuple[Sample, ...]
    total: int
    arms: tuple[str, ...]
    metrics: tuple[str, ...]
    directions: tuple[bool | None, ...]
    modes: tuple[str, ...]
    shown: tuple[int, ...]
    """Indices of the metrics shown beside every output."""

    @property
    def first_page(self) -> tuple[Sample, ...]:
        """What is shown without a script."""
        return self.samples[:PAGE_SIZE]


def browser(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Any] | None, threshold: float) -> Browser:
    """The browser of the rows of evaluation/samples.jsonl; a flag counts from the severity `threshold` on."""
    kept = evenly(rows, MAX_SAMPLES)
    arms = in_order({arm for row in kept for arm in row["arms"]})
    directions = metric_directions(scores or {})
    for row in kept:
        for arm in row["arms"].values():
            for metric in arm.get("metrics", {}):
                directions.setdefault(metric, None)
    metrics = tuple(directions)
    primaries = set(primary_metrics(scores or {}) or metrics[:2])
    max_source = max(400, TEXT_BUDGET // max(1, len(kept)))
    samples = tuple(_sample(row, arms, metrics, threshold, max_source) for row in kept)
    modes = sorted({flag for sample in samples for output in sample.outputs for flag in output.flags})
    shown = tuple(i for i, metric in enumerate(metrics) if metric in primaries)
    return Browser(samples, len(rows), arms, metrics, tuple(directions.values()), tuple(modes), shown)


def _sample(
    row: Mapping[str, Any], arms: Sequence[str], metrics: Sequence[str], threshold: float, max_source: int
) -> Sample:
    outputs: list[Output] = []
    for arm in arms:
        if arm in row["arms"]:
            outputs.append(_output(arm, row["arms"][arm], metrics, threshold, outputs))
    source = clean(row.get("source", ""))
    return Sample(
        id=clean(row["id"]),
        source=source[:max_source],
        cut=max(0, len(source) - max_source),
        references=tuple(clean(text) for text in row.get("references", ())),
        outputs=tuple(outputs),
    )


def _output(
    arm: str, cell: Mapping[str, Any], metrics: Sequence[str], threshold: float, earlier: Sequence[Output]
) -> Output:
    text = clean(cell["text"])
    flags = cell.get("flags") or {}
    values = cell.get("metrics") or {}
    return Output(
        arm=arm,
        text=text,
        same_as=next((output.arm for output in earlier if output.text == text), ""),
        terminated=bool(cell.get("terminated", True)),
        flags=tuple(sorted(clean(mode) for mode, s in flags.items() if is_number(s) and s >= threshold)),
        metrics=tuple(round(values[m], 4) if is_number(values.get(m)) else None for m in metrics),
    )


def browser_json(view: Browser) -> str:
    """The browser's data for <script type="application/json">.

    `<`, `>` and `&` are written as \\u escapes, so that no text can end the element or open another.
    """
    mode_index = {mode: i for i, mode in enumerate(view.modes)}
    arm_index = {arm: i for i, arm in enumerate(view.arms)}
    data = {
        "arms": view.arms,
        "metrics": view.metrics,
        "directions": view.directions,
        "modes": view.modes,
        "shown": view.shown,
        "pageSize": PAGE_SIZE,
        "samples": [
            {
                "id": sample.id,
                "source": sample.source,
                "cut": sample.cut,
                "references": sample.references,
                "outputs": [
                    [
                        arm_index[output.arm],
                        # An equal text is stored once: the index of the arm that has it.
                        arm_index[output.same_as] if output.same_as else output.text,
                        int(output.terminated),
                        [mode_index[flag] for flag in output.flags],
                        output.metrics,
                    ]
                    for output in sample.outputs
                ],
            }
            for sample in view.samples
        ],
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
