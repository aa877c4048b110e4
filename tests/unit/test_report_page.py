"""The report as a page: every section, nothing loaded, hostile text, missing parts, the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from homestretch.report.curves import PLANS
from homestretch.report.formatting import clean
from homestretch.report.verdict import verdict
from homestretch.rundir import RunDir, write_json, write_jsonl
from homestretch.stages.report import run
from report_run import (
    HOSTILE,
    NULL,
    UP,
    contrast,
    disputed,
    fake_audit,
    fake_negatives,
    fake_run,
    make_config,
)


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return fake_run(tmp_path)


def render(rundir: RunDir, tmp_path: Path) -> str:
    run(make_config(tmp_path), rundir)
    return rundir.report_path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags, ids and texts of a page, as a browser's parser splits them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


SECTIONS = ("verdict", "arms", "failures", "training", "audit", "negatives", "samples", "run")


def test_sections_are_all_there_and_in_order(rundir: RunDir, tmp_path: Path) -> None:
    html = render(rundir, tmp_path)
    sections = [attrs["id"] for attrs in Page(html).all("section")]
    assert sections == list(SECTIONS)
    assert 'class="missing"' not in html
    assert html.count("<svg ") == sum(not plan.is_optional for plan in PLANS) + 2
    for text in (
        "lunch-chats",
        "RL improved raw outputs",
        "wrong_entity",
        "model_type: llama",
        "packages.torch",
        "2 min 20 s",
        "RL alarm after update 25: the reward rose 0.412",
        "RL went back to its best checkpoint with a larger KL weight. The reward was trained on with 40 negatives",
        "alarms = 1",
    ):
        assert text in html


def test_ids_are_unique_and_references_to_them_resolve(rundir: RunDir, tmp_path: Path) -> None:
    page = Page(render(rundir, tmp_path))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        for name in ("aria-labelledby", "href"):
            target = attrs.get(name)
            assert target is None or target.removeprefix("#") in ids


def test_nothing_is_loaded_and_only_our_script_may_run(rundir: RunDir, tmp_path: Path) -> None:
    html = render(rundir, tmp_path)
    page = Page(html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]
    executed = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert len(executed) == 1
    digest = base64.b64encode(hashlib.sha256(executed[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    for tag, attrs in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attrs)
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", html)


def test_accessible_tables_and_charts(rundir: RunDir, tmp_path: Path) -> None:
    html = render(rundir, tmp_path)
    page = Page(html)
    assert html.count("<table>") == html.count("<caption ")
    assert all("scope" in attrs for attrs in page.all("th"))
    charts = page.all("svg")
    assert charts
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in charts)
    assert page.all("html") == [{"lang": "en"}]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(tmp_path: Path, hostile: str) -> None:
    rundir = fake_run(tmp_path, num=4, texts=(hostile,))
    plain = {tag for tag, _ in Page(render(fake_run(tmp_path / "plain", num=4), tmp_path)).tags}
    negatives = [
        row | {"text": hostile, "note": hostile, "example_id": hostile, "span": [1, 5]}
        for row in fake_negatives("a", 2)
    ]
    write_jsonl(rundir.negatives_dir / "train.jsonl", negatives)
    write_json(rundir.environment_path, {hostile: hostile})
    audit = fake_audit()
    audit["classes"][hostile] = {"auc": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    audit["overrated"] = audit["underrated"] = [{**disputed(hostile), "example_id": hostile}]
    audit["leave_one_out"] = [{"left_out": [hostile], "auc": {hostile: 0.5}}]
    audit["gate"] = {"decision": "stop", "reasons": [f"{hostile} at 0.50: unseen"]}
    write_json(rundir.audit_path, audit)
    html = render(rundir, tmp_path)
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= plain
    assert len(page.all("script")) == 2
    assert len(page.all("style")) == 1 + html.count("<svg ")  # matplotlib puts one into each chart
    assert clean(hostile) in "".join(page.texts["p"])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_the_verdict_says_what_the_gate_said(rundir: RunDir, tmp_path: Path) -> None:
    html = render(rundir, tmp_path)
    verdict_section = html[html.index('<section id="verdict"') : html.index('<section id="arms"')]
    assert "reward gate: warn: wrong_speaker at 0.62" in verdict_section


def test_same_directory_same_bytes(rundir: RunDir, tmp_path: Path) -> None:
    first = render(rundir, tmp_path)
    first_json = rundir.report_json_path.read_bytes()
    rundir.mark_done("report", {"seconds": 1.5})
    assert render(rundir, tmp_path) == first
    assert rundir.report_json_path.read_bytes() == first_json


def test_report_json_repeats_the_scores(rundir: RunDir, tmp_path: Path) -> None:
    summary = run(make_config(tmp_path), rundir)
    report = json.loads(rundir.report_json_path.read_text())
    scores = json.loads(rundir.scores_path.read_text())
    assert set(report) == {
        "schema", "verdict", "name", "seed", "num_examples", "arms", "contrasts", "failures", "audit", "alarms",
            "stages", "baseline_contrasts", "costs",
    }  # fmt: skip
    assert report["verdict"] == summary["verdict"] == verdict(scores)
    assert report["arms"]["rl/raw"]["rouge_l"] == scores["arms"]["rl/raw"]["metrics"]["rouge_l"]["mean"]
    assert report["failures"]["sft/raw"]["omission"] == scores["arms"]["sft/raw"]["failures"]["omission"]["rate"]
    assert len(report["contrasts"]) == 6
    assert report["stages"] == {"sft": 61.5, "negatives": 7.25, "reward": 48.0, "rl": 140.1, "evaluate": 12.0}
    assert report["audit"] == fake_audit()


def test_an_empty_run_directory_is_reported_not_crashed_on(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "empty")
    rundir.path.mkdir()
    html = render(rundir, tmp_path)
    assert [attrs["id"] for attrs in Page(html).all("section")] == list(SECTIONS)
    assert "No verdict: the evaluation has not been run." in html
    for words in ("No evaluation", "No failure rates", "Not recorded in metrics.jsonl: SFT loss", "No reward audit"):
        assert words in html
    for words in ("No negatives", "No samples", "config.yaml is missing", "environment.json is missing", "not run"):
        assert words in html
    report = json.loads(rundir.report_json_path.read_text())
    assert (report["audit"], report["arms"], report["stages"], report["num_examples"]) == (None, {}, {}, None)


@pytest.mark.parametrize("part", ["audit_path", "metrics_path", "samples_path", "environment_path", "config_path"])
def test_any_one_part_may_be_missing(rundir: RunDir, tmp_path: Path, part: str) -> None:
    getattr(rundir, part).unlink()
    html = render(rundir, tmp_path)
    assert html.count('class="missing"') == 1
    assert "RL improved raw outputs" in html


def test_failure_contrasts_are_shown_where_they_are(rundir: RunDir, tmp_path: Path) -> None:
    assert "McNemar" not in render(rundir, tmp_path)
    scores = json.loads(rundir.scores_path.read_text())
    row = {"name": "C1", "a": "rl/raw", "b": "sft/raw", "mode": "omission", "difference": -0.148, "p": 0.0004}
    write_json(rundir.scores_path, scores | {"failure_contrasts": [row]})
    html = render(rundir, tmp_path)
    assert "McNemar" in html
    assert '<span class="better">−0.148 better</span>' in html


def test_other_contrasts_are_named_where_they_are_significant(rundir: RunDir, tmp_path: Path) -> None:
    scores = json.loads(rundir.scores_path.read_text())
    primary = [row for row in scores["contrasts"] if row["primary"]]
    others = [contrast("C1", "rouge_l", *UP, primary=False), contrast("C3", "rouge_l", *UP, primary=False)]
    others.append(contrast("C1", "length_ratio", *NULL, primary=False))
    write_json(rundir.scores_path, scores | {"contrasts": [*primary, *others]})
    assert "All other contrasts (3; significant after Holm over all of them: rouge_l)" in render(rundir, tmp_path)


def test_alternatives_to_rl_and_their_costs_are_shown_where_they_are(rundir: RunDir, tmp_path: Path) -> None:
    assert "Alternatives to RL" not in render(rundir, tmp_path)
    scores = json.loads(rundir.scores_path.read_text())
    row = {**scores["contrasts"][0], "name": "C4", "b": "dpo/raw", "difference": -0.1, "p_holm": 0.001}
    costs = {
        "dpo": {"training_seconds": 61.0, "total_seconds": 75.0, "trained_tokens": 12345, "sampled_completions": 0}
    }
    scores["arms"]["dpo/raw"] = scores["arms"]["rl/raw"]
    write_json(rundir.scores_path, scores | {"baseline_contrasts": [row], "costs": costs})
    html = render(rundir, tmp_path)
    for words in ("Alternatives to RL (C4)", "1 min 15 s", "12,345", "The cheapest alternative was DPO", "dpo/raw"):
        assert words in html


def test_a_run_without_rl(rundir: RunDir, tmp_path: Path) -> None:
    scores = json.loads(rundir.scores_path.read_text())
    scores |= {"contrasts": [], "arms": {arm: scores["arms"][arm] for arm in ("sft/raw", "sft/post")}}
    write_json(rundir.scores_path, scores)
    samples = [json.loads(line) for line in rundir.samples_path.read_text().splitlines()]
    for sample in samples:
        sample["arms"] = {arm: sample["arms"][arm] for arm in ("sft/raw", "sft/post")}
    write_jsonl(rundir.samples_path, samples)
    html = render(rundir, tmp_path)
    assert "(arms evaluated: sft/raw, sft/post)" in html
    assert "There are no primary contrasts" in html


def test_five_hundred_samples_stay_small(tmp_path: Path) -> None:
    rundir = fake_run(tmp_path, num=500)
    html = render(rundir, tmp_path)
    assert len(html.encode()) < 5_000_000
    assert html.count("<article>") == 20
    data = json.loads("".join(Page(html).texts["script"]).split('"use strict"')[0])
    assert len(data["samples"]) == 500


def test_a_mode_that_applies_nowhere_is_said_beside_the_negatives(rundir: RunDir, tmp_path: Path) -> None:
    said = "Applies to no train example, so the reward did not learn it: "
    assert said not in render(rundir, tmp_path)
    rundir.mark_done("negatives", {"seconds": 1.0, "modes_that_never_apply": ["never", "<b>"]})
    assert f"{said}never, &lt;b&gt;." in render(rundir, tmp_path)
