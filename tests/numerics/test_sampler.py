"""The sampler against transformers' own generate, and against the distribution it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from conftest import NEW_MODELS, tiny_config, tiny_examples
from homestretch.config import SamplingConfig
from homestretch.encoding import pad
from homestretch.models import load_language_model
from homestretch.rollouts.sampler import _choose, generate, restrict


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_greedy_is_generate_token_for_token(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    examples = tiny_examples(6)
    ours = generate(lm, examples, max_new_tokens=12, batch_size=4)
    prompts = [lm.codec.encode_prompt(e).ids for e in examples]
    ids, mask = pad(prompts, lm.codec.pad_id, left=lm.family == "causal")
    theirs = lm.model.generate(ids, attention_mask=mask.long(), max_new_tokens=12, do_sample=False)
    offset = ids.shape[1] if lm.family == "causal" else 1
    for (completion,), row in zip(ours, theirs[:, offset:].tolist(), strict=True):
        expected = row[: row.index(lm.codec.eos_id)] if lm.codec.eos_id in row else row
        assert list(completion.ids) == expected[: len(completion.ids)]
        assert completion.terminated == (lm.codec.eos_id in row)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_samples_do_not_depend_on_the_batch_size(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    runs = [
        generate(
            lm, tiny_examples(5), max_new_tokens=8, batch_size=size, sampling=SamplingConfig(), num_samples=3, seed=4
        )
        for size in (3, 15)
    ]
    assert [[c.ids for c in row] for row in runs[0]] == [[c.ids for c in row] for row in runs[1]]
    other = generate(
        lm, tiny_examples(5), max_new_tokens=8, batch_size=15, sampling=SamplingConfig(), num_samples=3, seed=5
    )
    assert [[c.ids for c in row] for row in other] != [[c.ids for c in row] for row in runs[0]]


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(temperature=0.7), SamplingConfig(top_k=3), SamplingConfig(top_p=0.6)]
)
def test_samples_follow_the_distribution(sampling):
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, float("-inf"), 0.0])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000, dtype=np.float32))
    drawn = _choose(logits.expand(len(uniforms), -1), uniforms, sampling)
    expected = torch.softmax(restrict((logits / sampling.temperature)[None], sampling)[0].double(), -1).numpy()
    counts = np.bincount(drawn.numpy(), minlength=6)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible] / expected.sum() * counts.sum()).pvalue > 0.001


def test_the_cap_is_reported_as_unterminated(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    for row in generate(lm, tiny_examples(3), max_new_tokens=1, batch_size=8, sampling=SamplingConfig(), num_samples=4):
        for completion in row:
            assert completion.terminated == (len(completion.ids) == 0)
