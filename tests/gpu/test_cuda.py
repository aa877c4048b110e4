"""What a CUDA device must give as well. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from homestretch.algorithms.learner import Learner
from homestretch.config import PPOConfig
from homestretch.models import frozen_copy, load_language_model
from homestretch.rollouts.collect import collect
from homestretch.rollouts.sampler import generate
from homestretch.types import ScoredCompletions
from tiny import tiny_config, tiny_examples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_greedy_in_float32_is_the_cpus(kind, tiny_folders):
    texts = []
    for device in ("cpu", "cuda"):
        lm = load_language_model(tiny_folders[kind], tiny_config(kind, device=device))
        rows = generate(lm, tiny_examples(4), max_new_tokens=10, batch_size=4)
        texts.append([row[0].ids for row in rows])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_an_update_in_bfloat16_starts_at_ratio_1(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind, device="cuda", dtype="bfloat16"))
    config = PPOConfig(prompts_per_update=4, completions_per_prompt=4, critic_warmup_updates=0)

    def reward(_examples, completions):
        lengths = np.array([float(len(c.ids)) for c in completions])
        return ScoredCompletions(lengths, {"length": lengths})

    learner = Learner(lm, frozen_copy(lm), config)
    rollouts = collect(lm, reward, tiny_examples(4), config, max_new_tokens=8, seed=0)
    stats = learner.update(rollouts, np.random.default_rng(0))
    assert stats.ratio_first == pytest.approx(1.0, abs=0.02)
    assert all(bool(torch.isfinite(p).all()) for p in lm.model.parameters())
