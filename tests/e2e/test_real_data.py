"""Real chats, where the internal data folder lies beside the repository; skipped elsewhere. No row is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from homestretch.config import NegativesConfig, NewModelConfig, RunConfig, TokenizerConfig
from homestretch.data import load_splits
from homestretch.failures import build_modes, task_mode_names
from homestretch.pipeline import run
from homestretch.rundir import read_json
from homestretch.types import Completion, Corpus
from tiny import NEW_MODELS

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the internal data folder is not beside this repository"),
]


def samsum(**overrides: object) -> RunConfig:
    data = {
        "path": str(DATA / "samsum"), "template": "summarize dialogue: {document}", "flatten_lines": True,
        "drop_overlaps": ["validation", "test"], "max_prompt_tokens": 256, "max_completion_tokens": 48,
    }  # fmt: skip
    base = {"data": data, "model": {"new": NEW_MODELS["llama"]}, "device": "cpu"}
    return RunConfig.model_validate(base | overrides, strict=False)


def test_rows_that_overlap_the_evaluation_splits_are_dropped() -> None:
    splits = load_splits(samsum())
    assert 14_000 < len(splits.train) < 14_731
    assert len(splits.validation) == 818
    assert len(splits.test) == 400
    sources = {" ".join(e.source.split()) for e in splits.train}
    assert not sources & {" ".join(e.source.split()) for e in (*splits.validation, *splits.test)}


def test_detectors_leave_human_references_alone_and_find_what_was_made() -> None:
    splits = load_splits(samsum())
    modes = build_modes(task_mode_names(NegativesConfig(), splits.train), Corpus(splits.train[:500]))
    examples = splits.validation[:100]
    for mode in modes:
        if "detect" not in mode.faces():
            continue
        on_references = [mode.detect(e, Completion(e.reference)) for e in examples]
        flagged = np.mean([severity >= 0.5 for severity in on_references if severity is not None])
        assert flagged <= 0.1, mode.name
        edits = [(e, mode.corrupt(e, np.random.default_rng(i))) for i, e in enumerate(examples)]
        found = [mode.detect(e, edit.completion) or 0.0 for e, edit in edits if edit is not None]
        assert np.mean([severity >= 0.5 for severity in found]) >= 0.35, mode.name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "encoder-decoder"])
def test_the_whole_path_runs_on_real_chats(kind: str, tmp_path: Path) -> None:
    new = NewModelConfig(
        model_type=kind,
        config=dict(NEW_MODELS[kind].config) | ({"max_position_embeddings": 384} if kind == "llama" else {}),
        tokenizer=TokenizerConfig(kind="word", vocab_size=300),
    )
    data = samsum().data.model_dump() | {"max_examples": {"train": 60, "validation": 12, "test": 12}}
    config = samsum(
        data=data, model={"new": new.model_dump()}, output_dir=str(tmp_path), name="real",
        sft={"max_steps": 2, "batch_size": 8}, reward={"max_steps": 2, "audit": {"num_prompts": 4}},
        negatives={"max_validation_examples": 6, "on_policy": {"max_prompts": 3}},
        rl={"num_updates": 1, "critic_warmup_updates": 0, "prompts_per_update": 4, "validate_every": 1,
            "max_validation_examples": 6},
        evaluate={"num_resamples": 100},
    )  # fmt: skip
    run(config)
    scores = read_json(tmp_path / "real" / "evaluation" / "scores.json")
    assert scores["num_examples"] == 12
    assert {"sft/raw", "sft/post", "rl/raw", "rl/post"} <= set(scores["arms"])
