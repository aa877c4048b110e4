"""Invented run directories for the tests of the studies."""

from __future__ import annotations

from homestretch.recipe import dump_recipe
from homestretch.rundir import RunDir, write_json, write_jsonl, write_text

N = 12
ABOUT = {"fact_f1": True, "rouge_l": True, "entity_precision": True, "length_ratio": None, "terminated": True}


def sample(i, arm, lift, *, text="same", speaker=0.0):
    metrics = {"fact_f1": 0.5 + 0.01 * i + lift, "rouge_l": 0.4 + lift / 2, "length_ratio": 1.0, "terminated": 1.0,
               "entity_precision": None if i == 0 else 0.9}  # fmt: skip
    return {"text": f"{text} {arm} {i}", "terminated": True, "metrics": metrics,
            "flags": {"wrong_speaker": speaker} | ({"omission": 0.7} if i % 2 else {})}  # fmt: skip


def evaluated(rundir, lifts, *, seed=0, sft_text="same", more=None):
    """Write an evaluation: `lifts` maps an arm to what it has more than SFT."""
    rows = [
        {"id": f"test-{i}", "source": f"seed {seed} document {i}", "references": ["r"],
         "arms": {arm: sample(i, arm, lift, text=sft_text if arm.startswith("sft") else "rl",
                              speaker=0.0 if lift else 0.8) for arm, lift in lifts.items()}}
        for i in range(N)
    ]  # fmt: skip
    summary = {"metrics": {name: {"higher_is_better": up} for name, up in ABOUT.items()},
               "failures": {"wrong_speaker": {}, "omission": {}}}  # fmt: skip
    contrasts = [{"metric": metric, "primary": metric in ("fact_f1", "rouge_l")} for metric in ABOUT]
    write_jsonl(rundir.samples_path, rows)
    settings = {"flag_threshold": 0.5, "confidence": 0.95, "num_resamples": 300}
    scores = {"arms": {arm: summary for arm in lifts}, "contrasts": contrasts} | settings | (more or {})
    write_json(rundir.scores_path, scores)


def begun(study, variant, seed, stages):
    """A run's directory with these stages done."""
    config = study.config(variant, seed)
    rundir = RunDir(config.run_dir)
    write_text(rundir.config_path, dump_recipe(config))
    write_json(rundir.environment_path, {"git_commit": "abc"})
    for stage in stages:
        rl = {"updates": 8, "kept_update": 4, "stopped": "all updates done", "alarms": []} if stage == "rl" else {}
        leave(rundir, stage)
        rundir.mark_done(stage, {"seconds": 1.0, "name": variant.name} | rl)
    return rundir


def leave(rundir, stage):
    for folder in {"sft": ("base", "sft"), "negatives": ("negatives",), "reward": ("reward",), "rl": ("policy",)}.get(
        stage, ()
    ):
        write_text(rundir.path / folder / "model.safetensors", f"{rundir.path.name} {folder}")
    if stage in ("sft", "rl"):
        rundir.log_metrics(stage, 1, {f"{stage}/loss": 1.0})
    if stage == "rl":
        write_jsonl(rundir.rl_samples_path, [{"update": 0}])
