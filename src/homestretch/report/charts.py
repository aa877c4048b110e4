"""Charts as inline SVG: no script, no fonts, coloured by the page's CSS variables, the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib wants colours, the page wants variables that follow light and dark: each stand-in becomes its variable.
_INK, _MUTED, _GRID, _BAD = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#050505", "#060606", "#070707")
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line", _BAD: "--bad"}
_VARIABLES |= {colour: f"--series-{i + 1}" for i, colour in enumerate(_SERIES)}

MAX_POINTS = 300
"""A longer series is drawn as means over this many equal stretches."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series of a chart."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """Cases with like probabilities."""

    predicted: float
    observed: float
    share: float
    """Of all cases."""


def line_chart(name: str, lines: Sequence[Line], *, x_label: str, description: str, marks: Sequence[float] = ()) -> str:
    """Up to three lines over steps, as an <svg> element; `marks` are dashed vertical lines at steps.

    `name` keeps the ids of several charts apart; `description` is read out instead of the picture.
    """
    with _figure(4.6, 2.4) as (figure, axes):
        for line, colour in zip(lines, _SERIES, strict=False):
            steps, values = _thin(line)
            marker = "o" if len(values) <= 30 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, markersize=3)
        for step in marks:
            axes.axvline(step, color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(x_label)
        axes.grid(True, color=_GRID, linewidth=0.6)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.locator_params(axis="y", nbins=5)
        return _svg(figure, name, description)


def interval_chart(name: str, rows: Sequence[Interval], *, marks: Mapping[str, float], description: str) -> str:
    """Estimates in [0, 1] with their intervals, one row each; `marks` are labelled vertical lines."""
    with _figure(6.4, 0.7 + 0.24 * len(rows)) as (figure, axes):
        positions = np.arange(len(rows))[::-1]
        for position, row in zip(positions, rows, strict=True):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [position, position], color=_SERIES[0], linewidth=2.2, alpha=0.45)
            axes.plot([row.value], [position], "o", color=_SERIES[0], markersize=5)
        for text, x in marks.items():
            axes.axvline(x, color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(text, (x, 1), xycoords=("data", "axes fraction"), xytext=(3, 3), textcoords="offset points")
        axes.set_yticks(positions, [row.label for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        lowest = min([0.45, *(row.value if row.low is None else row.low for row in rows)])
        axes.set_xlim(max(-0.02, lowest - 0.02), 1.02)
        axes.grid(True, axis="x", color=_GRID, linewidth=0.6)
        return _svg(figure, name, description)


def reliability_chart(name: str, points: Sequence[Point], *, description: str) -> str:
    """Observed shares over stated probabilities, both in [0, 1], the dots' areas as their shares; dashed: exact."""
    with _figure(3.4, 3.0) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_BAD, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            [p.predicted for p in points], [p.observed for p in points], color=_SERIES[0], linewidth=1, alpha=0.45
        )
        for point in points:
            size = 3 + 12 * float(np.sqrt(point.share))
            axes.plot([point.predicted], [point.observed], "o", color=_SERIES[0], markersize=size, alpha=0.8)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("stated probability of good")
        axes.set_ylabel("observed share")
        axes.grid(True, color=_GRID, linewidth=0.6)
        return _svg(figure, name, description)


def _thin(line: Line) -> tuple[Any, Any]:
    """The series as arrays of at most MAX_POINTS, each the mean of its stretch."""
    steps, values = np.asarray(line.steps, dtype=float), np.asarray(line.values, dtype=float)
    if len(values) <= MAX_POINTS:
        return steps, values
    pieces = np.array_split(np.arange(len(values)), MAX_POINTS)
    return np.array([steps[p].mean() for p in pieces]), np.array([values[p].mean() for p in pieces])


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A bare figure in our style, whatever the user's matplotlibrc says. Sizes in inches."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "homestretch",
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": _MUTED,
        "axes.labelcolor": _MUTED,
        "axes.edgecolor": _GRID,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.parse_math": False,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _INK,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an <svg> element for an HTML page: sized by the page, ids made unique, colours made variables."""
    from xml.sax.saxutils import quoteattr

    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The text stays text: the browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, _, body = text.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None, "matplotlib writes a viewBox"
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
    body = re.sub(r"font: [\d.]+px '[^;\"]*", "font: 9px var(--sans)", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return f'<svg {view_box.group()} role="img" aria-label={quoteattr(description)}>{body}'
