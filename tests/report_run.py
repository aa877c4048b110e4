"""A fake run directory for the report, in the formats of the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from homestretch.config import DataConfig, ModelConfig, NewModelConfig, RunConfig
from homestretch.rundir import RunDir, write_json, write_jsonl, write_text

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
UP, DOWN, NULL = (0.041, 0.003), (-0.041, 0.003), (0.002, 0.6)
"""(difference, Holm p) of a gain, a loss and neither."""
FAKE_ALARM = {
    "update": 25,
    "kind": "divergence",
    "sentence": "the reward rose 0.412 (5.1 standard errors) while the held-out score fell",
    "action": "rolled back",
    "refresh": "the reward was trained on with 40 negatives and replaced",
}
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


FAKE_BINS = [
    {"predicted": 0.1, "observed": 0.2, "count": 70, "weight": 0.7},
    {"predicted": 0.9, "observed": 0.8, "count": 30, "weight": 0.3},
]
FAKE_GATE = {
    "decision": "warn",
    "reasons": ["wrong_speaker at 0.62: the reward cannot see it", "Length-only probe at 0.73: length does it"],
    "settings": {"action": "warn"},
}


def disputed(text: str) -> dict[str, Any]:
    ranks = {"reward_rank": 1.0, "score_rank": 7.5, "of": 8, "reward": 1.25, "score": 0.1}
    return {"example_id": "chat-3", "text": text, "terminated": False, **ranks}


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
        "best_of_n": {
            "greedy": 0.6,
            "mean": 0.5,
            "best": 0.63,
            "oracle": 0.8,
            "difference": 0.03,
            "low": 0.01,
            "high": 0.05,
            "n": 80,
        },
        "reward_spread": {"within_prompt_sd": 0.61, "between_prompt_sd": 0.8},
        "calibration": {"ece": 0.04, "temperature": 1.3, "reliability": FAKE_BINS},
        "terminator": {"drop": 2.1},
        "length": {"tau": -0.2, "low": -0.3, "high": -0.1, "spearman": None},
        "notes": ["class echo: no reference to compare with"],
        "n_documents": 300,
        "samples_per_prompt": 8,
        "leave_one_out": [
            {"left_out": [], "auc": aucs},
            {"left_out": ["wrong_speaker"], "auc": {**aucs, "wrong_speaker": 0.51}},
        ],
        "overrated": [disputed("Ada likes Ada.")],
        "underrated": [disputed("Ada and Ben meet.")],
        "gate": FAKE_GATE,
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
        alarms = {"alarms": [FAKE_ALARM]} if stage == "rl" else {}
        rundir.mark_done(stage, {"seconds": seconds, "steps": 400, "best": {"loss": 0.6123456789}} | alarms)
    return rundir
