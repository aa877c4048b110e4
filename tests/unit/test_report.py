"""The report: verdicts for every case, every section, hostile text, missing parts, the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from homestretch.audit_findings import WARNING, audit_lines
from homestretch.config import DataConfig, ModelConfig, NewModelConfig, RunConfig
from homestretch.report.audit import audit_view
from homestretch.report.charts import Interval, Line, interval_chart, line_chart
from homestretch.report.curves import PLANS, curves
from homestretch.report.formatting import clean, duration, interval, number, p_value, percent, signed
from homestretch.report.negatives import negative_classes
from homestretch.report.samples import MAX_SAMPLES, TEXT_BUDGET, browser, browser_json
from homestretch.report.tables import arms_table, contrast_rows, effect_in_words, failures_table
from homestretch.report.verdict import tone, verdict
from homestretch.rundir import RunDir, write_json, write_jsonl, write_text
from homestretch.stages.report import run

ARMS = ("sft/raw", "sft/post", "rl/raw", "rl/post")
METRICS: dict[str, bool | None] = {
    "rouge_l": True,
    "fact_f1": True,
    "chrf": True,
    "repetition_4": False,
    "length_ratio": None,
}
MODES = ("repetition", "truncation", "wrong_entity", "wrong_speaker", "omission")
CONTRASTS = (("C1", "rl/raw", "sft/raw"), ("C2", "rl/raw", "sft/post"), ("C3", "rl/post", "sft/post"))
HOSTILE = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror=window.hacked=1>',
    "</script><script>window.hacked=1</script>",
    "{{7*7}} {% for x in y %}",
    "<!--<script>",
    "nul \x00 bell \x07 escape \x1b[31m c1 \x9b",
    "override \u202eevil\u202c separator \u2028 end",
    "]]></svg><style>*{display:none}</style>",
)


# --- a fake run directory, in the formats of the stages ---


def make_config(tmp_path: Path, **changes: Any) -> RunConfig:
    changes = {"name": "lunch-chats", "seed": 3, "output_dir": str(tmp_path), **changes}
    return RunConfig(data=DataConfig(task="chats"), model=ModelConfig(new=NewModelConfig()), **changes)


def fake_samples(num: int, rng: np.random.Generator, texts: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    names, places, days = (
        ("Ada", "Ben", "Cleo", "Dev"),
        ("the pier", "Luigi's", "the old library"),
        ("Monday", "Friday"),
    )
    rows = []
    for i in range(num):
        who, other = rng.choice(names, 2, replace=False)
        place, day = str(rng.choice(places)), str(rng.choice(days))
        lines = [f"{who}: Shall we meet at {place} on {day}?", f"{other}: Sure! What time suits you?", f"{who}: 7 pm?"]
        reference = f"{who} and {other} will meet at {place} on {day} at 7 pm."
        wrong = reference.replace(day, "Sunday")
        outputs = {"sft/raw": wrong if i % 3 else f"{wrong} {wrong}", "sft/post": wrong}
        outputs |= {"rl/raw": reference if i % 4 else wrong, "rl/post": reference if i % 4 else wrong}
        if texts:
            outputs["rl/raw"] = texts[i % len(texts)]
        rows.append(
            {
                "id": f"test-{i:04d}",
                "source": "\n".join(lines * 4) if not texts else texts[(i + 1) % len(texts)],
                "references": [reference if not texts else texts[(i + 2) % len(texts)]],
                "arms": {arm: fake_output(text, arm, i, rng) for arm, text in outputs.items()},
            }
        )
    return rows


def fake_output(text: str, arm: str, i: int, rng: np.random.Generator) -> dict[str, Any]:
    lift = 0.08 if arm.startswith("rl") else 0.0
    metrics: dict[str, float | None] = {m: float(rng.beta(6, 4)) + lift for m in METRICS}
    metrics["length_ratio"] = float(rng.normal(1.1 - lift, 0.1))
    if i % 17 == 0:
        metrics["fact_f1"] = None
    rate = 0.1 if lift else 0.25
    return {
        "text": text,
        "terminated": bool(arm.endswith("post") or rng.random() > 0.1),
        "metrics": metrics,
        "flags": {mode: (1.0 if rng.random() < rate else 0.2) for mode in MODES},
    }


def fake_scores(samples: list[dict[str, Any]]) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for arm in ARMS:
        cells = [sample["arms"][arm] for sample in samples]
        metrics = {}
        for metric, higher in METRICS.items():
            values = np.array([c["metrics"][metric] for c in cells if c["metrics"][metric] is not None])
            mean, half = float(values.mean()), float(1.96 * values.std() / len(values) ** 0.5)
            metrics[metric] = {"mean": mean, "low": mean - half, "high": mean + half, "higher_is_better": higher}
        failures = {}
        for mode in MODES:
            rate = float(np.mean([c["flags"][mode] >= 0.5 for c in cells]))
            failures[mode] = {"rate": rate, "low": max(0.0, rate - 0.03), "high": rate + 0.03}
        unterminated = sum(not c["terminated"] for c in cells)
        arms[arm] = {"metrics": metrics, "failures": failures, "num_unterminated": unterminated}
    contrasts = []
    for metric in METRICS:
        for name, a, b in CONTRASTS:
            difference = arms[a]["metrics"][metric]["mean"] - arms[b]["metrics"][metric]["mean"]
            primary = metric in ("rouge_l", "fact_f1")
            contrasts.append(contrast(name, metric, difference, 0.0004, primary=primary, a=a, b=b))
    return {
        "schema": 1,
        "split": "test",
        "num_examples": len(samples),
        "arms": arms,
        "contrasts": contrasts,
        "failure_contrasts": [],
        "references": {
            "metrics": {"chrf": {"mean": 1.0, "low": None, "high": None}, "fact_f1": {"mean": 0.93}},
            "failures": {mode: {"rate": 0.02, "low": 0.01, "high": 0.04} for mode in MODES},
        },
        "equivalence_margin": 0.01,
    }


def contrast(name: str, metric: str, difference: float, p: float | None, **changes: Any) -> dict[str, Any]:
    _, a, b = next(c for c in CONTRASTS if c[0] == name)
    row = {"name": name, "a": a, "b": b, "metric": metric, "difference": difference, "low": difference - 0.02}
    return row | {"high": difference + 0.02, "p": p, "p_holm": p, "primary": True} | changes


def fake_audit() -> dict[str, Any]:
    aucs = dict(zip(MODES, (0.99, 0.97, 0.81, 0.62, 0.74), strict=True))
    return {
        "classes": {m: {"auc": a, "low": a - 0.04, "high": min(1.0, a + 0.03), "n": 120} for m, a in aucs.items()},
        "probes": {
            "length_only": 0.73,
            "source_blind": {"wrong_entity": 0.66, "repetition": 0.95, "omission": 0.55, "echo": None},
        },
        "within_prompt_rank_correlation": {
            "rouge_l": {"tau": 0.05, "low": -0.02, "high": 0.12},
            "fact_f1": {"tau": 0.31, "low": 0.25, "high": 0.37},
        },
        "reward_spread": {"within_prompt_sd": 0.61, "between_prompt_sd": 0.8},
        "calibration": {"ece": 0.04, "temperature": 1.3},
        "terminator": {"drop": 2.1},
        "length": {"tau": -0.2, "low": -0.3, "high": -0.1, "spearman": None},
        "notes": ["class echo: no reference to compare with"],
        "n_documents": 300,
        "samples_per_prompt": 8,
    }


def fake_negatives(split: str, num: int) -> list[dict[str, Any]]:
    rows = []
    for i in range(num):
        text = "Ada and Ben will meet at the pier on Friday at 7 pm."
        shared = {"example_id": f"{split}-{i}", "terminated": True, "seed": i}
        rows.append({**shared, "text": text, "mode": "reference", "label": 0.95, "span": [0, 0], "note": ""})
        wrong = {"mode": "wrong_entity", "label": 0.05, "span": [14, 18], "note": "Ben -> Cleo"}
        rows.append({**shared, "text": text.replace("Ben", "Cleo"), **wrong, "span": [8, 12]})
        gap = {"mode": "omission", "label": 0.05, "span": [33, 33], "note": "removed: on Friday at 7 pm"}
        rows.append({**shared, "text": "Ada and Ben will meet at the pier.", **gap})
        cut = {"mode": "truncation", "label": 0.0, "span": [21, 21], "note": "cut at 40 %", "terminated": False}
        rows.append({**shared, "text": text[:21], **cut})
    return rows


def fake_metrics(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 401):
        row = {"stage": "sft", "step": step, "sft/loss": float(4 * np.exp(-step / 90) + 0.6 + rng.normal(0, 0.1))}
        rows.append(row | ({"sft/validation_loss": float(4 * np.exp(-step / 90) + 0.7)} if step % 50 == 0 else {}))
    for step in range(1, 121):
        loss = float(0.69 * np.exp(-step / 40) + rng.normal(0, 0.02))
        rows.append({"stage": "reward", "step": step, "reward/loss": loss, "reward/accuracy": float(1 - loss / 1.4)})
    for step in range(1, 51):
        rl = {
            "rl/score": step / 40 - 0.1,
            "rl/reward_model": step / 35,
            "rl/kl": step / 12,
            "rl/beta": 0.05 + step / 1e3,
        }
        rl |= {"rl/length_ratio": 1.2 - step / 400, "rl/terminated": min(1.0, 0.9 + step / 500)}
        rows.append({"stage": "rl", "step": step, **rl})
        if step % 5 == 0:
            held = {"validation/selection": 0.6 + step / 900, "validation/terminated": 0.97}
            rows.append({"stage": "rl", "step": step, **held, "validation/length_ratio": 1.05})
    return rows


def fake_run(tmp_path: Path, *, num: int = 40, texts: tuple[str, ...] = (), name: str = "lunch-chats") -> RunDir:
    rng = np.random.default_rng(5)
    rundir = RunDir(tmp_path / name)
    samples = fake_samples(num, rng, texts)
    write_text(
        rundir.config_path, f"name: {name}\nseed: 3\ndata:\n  task: chats\nmodel:\n  new: {{model_type: llama}}\n"
    )
    write_json(rundir.environment_path, {"python": "3.12.1", "packages": {"torch": "2.13.0"}, "cores": 2, "cuda": None})
    write_jsonl(rundir.metrics_path, fake_metrics(rng))
    write_json(rundir.audit_path, fake_audit())
    write_jsonl(rundir.negatives_dir / "train.jsonl", fake_negatives("train", 30))
    write_jsonl(rundir.negatives_dir / "validation.jsonl", fake_negatives("validation", 7))
    write_jsonl(rundir.samples_path, samples)
    write_json(rundir.scores_path, fake_scores(samples))
    for stage, seconds in {"sft": 61.5, "negatives": 7.25, "reward": 48.0, "rl": 140.1, "evaluate": 12.0}.items():
        rundir.mark_done(stage, {"seconds": seconds, "steps": 400, "best": {"loss": 0.6123456789}})
    return rundir


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


# --- the verdict ---


def scores_of(*contrasts: dict[str, Any], higher: bool = True) -> dict[str, Any]:
    metrics = {row["metric"]: {"mean": 0.5, "higher_is_better": higher} for row in contrasts}
    return {"schema": 1, "arms": {arm: {"metrics": metrics} for arm in ARMS}, "contrasts": list(contrasts)}


def one(c1: tuple[float, float], c2: tuple[float, float] | None, c3: tuple[float, float] | None) -> dict[str, Any]:
    given = zip(("C1", "C2", "C3"), (c1, c2, c3), strict=True)
    return scores_of(*(contrast(name, "fact_f1", *pair) for name, pair in given if pair))


UP, DOWN, NULL = (0.041, 0.003), (-0.041, 0.003), (0.002, 0.6)


def test_verdict_better_and_the_gain_remains() -> None:
    text = verdict(one(UP, UP, UP))
    assert text.startswith(
        "RL improved raw outputs over SFT on fact_f1 by +0.041 [0.021, 0.061] (Holm p = .003), "
        "and the gain on fact_f1 remains after post-processing both"
    )
    assert "would have done" not in text
    assert "though" not in text


@pytest.mark.parametrize(
    ("c2", "c3", "words"),
    [
        (NULL, NULL, "post-processing alone would have done on fact_f1: raw RL is not significantly better"),
        (NULL, None, "post-processing alone would have done on fact_f1"),
        (DOWN, NULL, "post-processing alone would have done better on fact_f1: raw RL is worse"),
        (UP, NULL, "no significant difference is left once both are post-processed"),
        (UP, None, "and raw RL is better than post-processed SFT on fact_f1 too"),
        (NULL, UP, "though raw RL is not significantly better than post-processed SFT"),
        (UP, DOWN, "but RL is worse on fact_f1 after post-processing both"),
        (None, UP, "remains after post-processing both"),
        (None, NULL, "no significant difference on fact_f1 is left after post-processing both"),
        (None, None, "whether post-processing would have done on fact_f1 was not tested"),
    ],
)
def test_verdict_says_what_post_processing_makes_of_a_gain(c2: Any, c3: Any, words: str) -> None:
    text = verdict(one(UP, c2, c3))
    assert text.startswith("RL improved raw outputs over SFT on fact_f1")
    assert words in text
    assert text.endswith(".")


def test_verdict_equal_is_not_called_equal() -> None:
    text = verdict(one(NULL, NULL, NULL))
    assert text.startswith("No significant difference between RL and SFT was found on raw outputs (fact_f1 +0.002")
    assert "nor was one on fact_f1 after post-processing both" in text
    assert "better" not in text


def test_verdict_equal_raw_but_different_after_post_processing() -> None:
    assert "while RL is better on fact_f1 after post-processing both" in verdict(one(NULL, NULL, UP))
    assert "while RL is worse on fact_f1 after post-processing both" in verdict(one(NULL, NULL, DOWN))


def test_verdict_worse() -> None:
    assert verdict(one(DOWN, DOWN, DOWN)).startswith("RL made raw outputs worse than SFT on fact_f1 by -0.041")
    assert "stays worse on fact_f1" in verdict(one(DOWN, DOWN, DOWN))
    assert "is left after post-processing both" in verdict(one(DOWN, DOWN, NULL))
    assert verdict(one(DOWN, None, None)).endswith("(Holm p = .003).")


def test_verdict_mixed_metrics() -> None:
    rows = [contrast(name, "fact_f1", *UP) for name in ("C1", "C2", "C3")]
    rows += [contrast(name, "rouge_l", *DOWN) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows))
    assert text.startswith("RL is a trade on raw outputs: better than SFT on fact_f1")
    assert "but worse on rouge_l by -0.041" in text
    assert tone(scores_of(*rows)) == "mixed"


def test_verdict_better_on_one_and_undecided_on_the_other() -> None:
    rows = [contrast(name, "fact_f1", *UP) for name in ("C1", "C2", "C3")]
    rows += [contrast(name, "rouge_l", *NULL) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows))
    assert "improved raw outputs over SFT on fact_f1" in text
    assert "with no significant difference on rouge_l (+0.002" in text
    assert "nor was one" not in text


def test_verdict_groups_metrics_with_the_same_fate() -> None:
    rows = [contrast(name, metric, *UP) for metric in ("fact_f1", "rouge_l") for name in ("C1", "C2", "C3")]
    assert verdict(scores_of(*rows)).count("remains after post-processing both") == 1
    assert "the gain on fact_f1 and rouge_l remains" in verdict(scores_of(*rows))


def test_verdict_knows_metrics_where_lower_is_better() -> None:
    rows = [contrast(name, "wrong_speaker_rate", *DOWN) for name in ("C1", "C2", "C3")]
    text = verdict(scores_of(*rows, higher=False))
    assert text.startswith("RL improved raw outputs over SFT on wrong_speaker_rate by -0.041")
    assert "lower is better" in text


def test_verdict_uses_the_corrected_p_and_primaries_only() -> None:
    corrected = scores_of(contrast("C1", "fact_f1", 0.04, 0.01, p_holm=0.2))
    assert verdict(corrected).startswith("No significant difference")
    secondary = scores_of(contrast("C1", "fact_f1", *UP, primary=False))
    assert verdict(secondary).startswith("No verdict: there is no tested primary contrast")


def test_verdict_of_missing_parts() -> None:
    assert verdict(None) == "No verdict: the evaluation has not been run."
    assert "(arms evaluated: sft/raw)" in verdict({"arms": {"sft/raw": {}}, "contrasts": []})
    assert verdict(scores_of(contrast("C1", "fact_f1", 0.1, None))).startswith("No verdict")
    assert tone(None) == "unknown"


@pytest.mark.parametrize(
    ("contrasts", "expected"),
    [
        ((UP, UP, UP), "better"),
        ((UP, None, None), "better"),
        ((UP, NULL, NULL), "mixed"),
        ((UP, UP, DOWN), "mixed"),
        ((DOWN, NULL, NULL), "worse"),
        ((NULL, UP, UP), "equal"),
    ],
)
def test_tone_is_no_rosier_than_the_verdict(contrasts: Any, expected: str) -> None:
    assert tone(one(*contrasts)) == expected


# --- the page ---

SECTIONS = ("verdict", "arms", "failures", "training", "audit", "negatives", "samples", "run")


def test_sections_are_all_there_and_in_order(rundir: RunDir, tmp_path: Path) -> None:
    html = render(rundir, tmp_path)
    sections = [attrs["id"] for attrs in Page(html).all("section")]
    assert sections == list(SECTIONS)
    assert 'class="missing"' not in html
    assert html.count("<svg ") == len(PLANS) + 1
    for text in (
        "lunch-chats",
        "RL improved raw outputs",
        "wrong_entity",
        "model_type: llama",
        "packages.torch",
        "2 min 20 s",
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
    write_json(rundir.audit_path, audit)
    html = render(rundir, tmp_path)
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= plain
    assert len(page.all("script")) == 2
    assert len(page.all("style")) == 1 + html.count("<svg ")  # matplotlib puts one into each chart
    assert clean(hostile) in "".join(page.texts["p"])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


def test_sample_json_survives_and_cannot_end_its_element() -> None:
    rows = fake_samples(len(HOSTILE), np.random.default_rng(0), HOSTILE)
    view = browser(rows, fake_scores(rows), 0.5)
    text = browser_json(view)
    assert not re.search("[<>&\u2028\u2029]", text)
    data = json.loads(text)
    for row, sample in zip(rows, data["samples"], strict=True):
        outputs = {data["arms"][o[0]]: o for o in sample["outputs"]}
        assert outputs["rl/raw"][1] == clean(row["arms"]["rl/raw"]["text"])
        assert sample["source"] == clean(row["source"])
        flags = {mode for mode, severity in row["arms"]["rl/raw"]["flags"].items() if severity >= 0.5}
        assert {data["modes"][i] for i in outputs["rl/raw"][3]} == flags
        assert bool(outputs["rl/raw"][2]) == row["arms"]["rl/raw"]["terminated"]


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
        "schema", "verdict", "name", "seed", "num_examples", "arms", "contrasts", "failures", "audit", "stages"
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


# --- the parts ---


def test_long_sources_are_cut_and_many_samples_thinned() -> None:
    rows = fake_samples(MAX_SAMPLES + 200, np.random.default_rng(0))
    rows[0]["source"] = "x" * 2 * TEXT_BUDGET
    view = browser(rows, None, 0.5)
    assert (len(view.samples), view.total) == (MAX_SAMPLES, MAX_SAMPLES + 200)
    assert len({sample.id for sample in view.samples}) == MAX_SAMPLES
    assert view.samples[0].cut == 2 * TEXT_BUDGET - TEXT_BUDGET // MAX_SAMPLES
    assert view.samples[1].cut == 0


def test_arms_table_marks_the_best_by_direction() -> None:
    scores = fake_scores(fake_samples(30, np.random.default_rng(1)))
    table = arms_table(scores)
    assert table.columns == (*ARMS, "references")
    assert [row.name for row in table.rows][:2] == ["rouge_l", "fact_f1"]
    rows = {row.name: row for row in table.rows}
    for metric, choose in (("rouge_l", max), ("repetition_4", min)):
        means = [scores["arms"][arm]["metrics"][metric]["mean"] for arm in ARMS]
        assert [cell.is_best for cell in rows[metric].cells[:4]] == [mean == choose(means) for mean in means]
    assert not any(cell.is_best for cell in rows["length_ratio"].cells)
    assert [row.cells[4].text for row in table.rows][:3] == ["–", "0.930", "1.000"]
    assert [cell.text for cell in table.rows[-1].cells[:4]] == [
        str(scores["arms"][a]["num_unterminated"]) for a in ARMS
    ]


def test_failures_table_bars_are_the_rates() -> None:
    scores = fake_scores(fake_samples(30, np.random.default_rng(1)))
    assert failures_table(scores).columns == (*ARMS, "references")
    for row in failures_table(scores).rows:
        assert (row.cells[4].text, row.cells[4].is_best) == ("2.0 %", False)
        rates = [scores["arms"][arm]["failures"][row.name]["rate"] for arm in ARMS]
        assert [cell.share for cell in row.cells[:4]] == rates
        assert [cell.text for cell in row.cells[:4]] == [f"{100 * rate:.1f} %" for rate in rates]


def test_contrast_rows_judge_by_direction() -> None:
    rows = [contrast("C1", "rouge_l", *UP), contrast("C1", "repetition_4", *UP, primary=False)]
    scores = fake_scores(fake_samples(10, np.random.default_rng(1))) | {"contrasts": rows[::-1]}
    first, second = contrast_rows(scores, [])
    assert (first.metric, first.outcome, first.is_primary) == ("rouge_l", "better", True)
    assert (second.metric, second.outcome) == ("repetition_4", "worse")
    assert (first.difference, first.interval, first.p_holm) == ("+0.041", "[0.021, 0.061]", ".003")


def test_effect_in_words_counts_pairs() -> None:
    pairs = [(1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (None, 0.0)]
    samples = [{"arms": {"a": {"metrics": {"m": x}}, "b": {"metrics": {"m": y}}}} for x, y in pairs]
    row = {"a": "a", "b": "b"}
    differences = np.array([1.0, 1.0, -1.0, 0.0])
    d = differences.mean() / differences.std(ddof=1)
    assert effect_in_words(row, "m", True, samples) == f"small (d {d:+.2f}); better on 50 %, worse on 25 %"
    assert "better on 25 %, worse on 50 %" in effect_in_words(row, "m", False, samples)
    assert "higher on 50 %, lower on 25 %" in effect_in_words(row, "m", None, samples)
    assert effect_in_words({"a": "a", "b": "c"}, "m", True, samples) == ""
    tested = row | {"effect_size": -0.7, "p_equivalence": 0.012}
    assert effect_in_words(tested, "m", True, []) == "large (d −0.70); equivalent within the margin (p .012)"
    assert effect_in_words(row | {"effect_size": None, "p_equivalence": 0.4}, "m", True, []) == ""


def test_audit_warns_exactly_where_it_is_bad() -> None:
    view = audit_view(fake_audit())
    bad = {row.name for row in (*view.classes, *view.others) if row.is_bad}
    assert bad == {
        "wrong_speaker", "Length-only probe", "Source-blind probe, wrong_entity", "Rank correlation with rouge_l"
    }  # fmt: skip
    assert len(view.warnings) == len(bad)
    assert view.classes[0].name == "wrong_speaker"
    assert view.setting == "300 held-out documents, 8 SFT samples per prompt"


def test_audit_tells_a_saturated_reward() -> None:
    audit = {"classes": {mode: {"auc": 0.999, "low": 0.99, "high": 1.0, "n": 9} for mode in MODES}}
    assert any("almost perfectly" in warning for warning in audit_view(audit).warnings)
    assert not audit_view({"classes": {}}).warnings


def test_audit_warns_of_what_the_printed_audit_warns_of() -> None:
    audit = fake_audit() | {"n_prompts": 40, "terminator": {"drop": -0.1}, "calibration": {"ece": 0.2}}
    printed = [line.partition(": ")[2] for line in audit_lines(audit) if line.startswith(WARNING)]
    shown = audit_view(audit).warnings
    assert len(shown) == 6
    assert [text.split(": ")[1:] for text in shown] == [text.split(": ")[1:] for text in printed]


def test_negative_classes_count_and_mark_the_edit() -> None:
    classes = {c.name: c for c in negative_classes(fake_negatives("train", 30), fake_negatives("validation", 7))}
    assert next(iter(classes)) == "reference"
    swap = classes["wrong_entity"]
    assert (swap.label, swap.num_train, swap.num_validation, len(swap.examples)) == ("negative", 30, 7, 3)
    assert {(e.before, e.span, e.after[:5]) for e in swap.examples} == {("Ada and ", "Cleo", " will")}
    assert len({e.example_id for e in swap.examples}) == 3
    gap = classes["omission"].examples[0]
    assert (gap.span, gap.has_edit) == ("", True)
    assert (classes["truncation"].num_unterminated, classes["reference"].examples) == (30, ())


def test_curves_draw_what_is_there_and_name_the_rest() -> None:
    drawn, missing = curves(fake_metrics(np.random.default_rng(0)))
    assert ([curve.title for curve in drawn], missing) == ([plan.title for plan in PLANS], [])
    drawn, missing = curves([{"stage": "rl", "step": 1, "rl/kl": 0.5}, {"stage": "rl", "step": 2, "rl/kl": None}])
    assert [curve.title for curve in drawn] == ["KL to the SFT model"]
    assert drawn[0].summary == "0.5"
    assert len(missing) == len(PLANS) - 1


def test_charts_are_deterministic_and_follow_the_page() -> None:
    line = Line("a & <b>", tuple(range(1000)), tuple(np.sin(np.arange(1000) / 50).tolist()))
    svg = line_chart("one", [line], x_label="$step$ <i>", description='says "hi" & <b>')
    assert svg == line_chart("one", [line], x_label="$step$ <i>", description='says "hi" & <b>')
    assert "var(--series-1)" in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", svg)
    assert "<i>" not in svg
    assert "<b>" not in svg
    assert "$step$ &lt;i&gt;" in svg
    assert "date" not in svg.lower()
    row = [Interval("</text><script>", 0.7, 0.6, 0.8), Interval("no interval", 0.2)]
    assert "<script" not in interval_chart("two", row, marks={"chance": 0.5}, description="d")


def test_formatting() -> None:
    assert [p_value(p) for p in (0.0004, 0.042, 1.0, None, float("nan"))] == ["< .001", ".042", "1", "–", "–"]
    assert (number(-0.5), signed(0.04), percent(0.123)) == ("−0.500", "+0.040", "12.3 %")
    assert interval({"low": 0.1, "high": 0.25}) == "[0.100, 0.250]"
    assert interval({"low": None, "high": 1}) == ""
    assert [duration(s) for s in (4.26, 65, 3720, None)] == ["4.3 s", "1 min 5 s", "1 h 2 min", "–"]
    assert clean("a\tb\r\nc\x00\x1b\x7f\x9b\u202e\ud800") == "a\tb\nc␀␛␡���"
