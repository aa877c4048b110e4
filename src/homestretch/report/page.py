"""The report as one HTML page: Jinja2 with autoescape, nothing loaded, scripts allowed by hash only."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from homestretch.report.audit import audit_view
from homestretch.report.content import Content
from homestretch.report.curves import curves
from homestretch.report.formatting import duration, number
from homestretch.report.negatives import negative_classes
from homestretch.report.samples import browser, browser_json
from homestretch.report.tables import (
    arms_table,
    baseline_rows,
    contrast_rows,
    costs_table,
    failure_contrast_rows,
    failures_table,
)
from homestretch.report.verdict import tone, verdict

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(content: Content) -> str:
    """The whole report. Every text is escaped but our own style, script and charts, and the samples' escaped JSON."""
    from markupsafe import Markup

    script, style = _asset("report.js"), _asset("report.css")
    scores = content.scores
    samples = browser(content.samples, scores, content.flag_threshold)
    timed = [stage.seconds for stage in content.stages if stage.seconds is not None]
    drawn, undrawn = curves(content.metrics, [alarm["update"] for alarm in content.alarms])
    page = _environment().get_template("report.html.jinja")
    return page.render(
        content=content,
        policy=_policy(script),
        style=Markup(style),
        script=Markup(script),
        verdict=verdict(scores, kept_sft=content.kept_sft),
        tone=tone(scores),
        scores=scores,
        arms=arms_table(scores) if scores else None,
        contrasts=contrast_rows(scores, content.samples) if scores else [],
        alternatives=baseline_rows(scores, content.samples) if scores else [],
        costs=costs_table(scores or {}),
        failures=failures_table(scores) if scores else None,
        failure_contrasts=failure_contrast_rows(scores) if scores else [],
        curves=drawn,
        undrawn=undrawn,
        audit=audit_view(content.audit) if content.audit else None,
        negatives=negative_classes(content.negatives_train, content.negatives_validation),
        browser=samples,
        samples_json=Markup(browser_json(samples)),
        total_duration=duration(sum(timed)) if timed else "",
    )


def _asset(name: str) -> str:
    return (files("homestretch.report") / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """The Content-Security-Policy: no loads at all, inline style, and this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("homestretch", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    environment.filters["svg"] = Markup
    return environment
