"""Stage 6: the report, from the run directory only."""

from __future__ import annotations

from typing import Any

from homestretch.config import RunConfig
from homestretch.report.content import read_content, report_json
from homestretch.report.page import render_page
from homestretch.rundir import RunDir, write_json, write_text


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Write report.html and report.json; the summary holds the verdict and the report's path."""
    content = read_content(config, rundir)
    summary = report_json(content)
    write_text(rundir.report_path, render_page(content))
    write_json(rundir.report_json_path, summary)
    return {"verdict": summary["verdict"], "report": str(rundir.report_path)}
