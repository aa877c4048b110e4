"""The sampler against transformers' own generate, and against the distribution it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from homestretch.config import SamplingConfig
from homestretch.encoding import pad
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import load_language_model
from homestretch.rollouts import sampler, slots
from homestretch.rollouts.sampler import _choose, generate, restrict
from homestretch.rollouts.slots import SlotRows, supports_slots
from homestretch.types import Example
from tiny import NEW_MODELS, tiny_config, tiny_examples

EOS = 2


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


def sampled(lm, *, num_examples=7, num_samples=3, batch_size=64, seed=4, max_new_tokens=8):
    rows = generate(
        lm, tiny_examples(num_examples), max_new_tokens=max_new_tokens, batch_size=batch_size,
        sampling=SamplingConfig(), num_samples=num_samples, seed=seed,
    )  # fmt: skip
    return [[(c.ids, c.terminated) for c in row] for row in rows]


@pytest.fixture
def natural_ends(monkeypatch):
    """End every completion at random, a quarter of them a step, as far as its own random numbers go."""

    def choose(logits, uniforms, sampling):
        return torch.where(uniforms < 0.25, EOS, _choose(logits, uniforms, sampling))

    monkeypatch.setattr(sampler, "_choose", choose)


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_samples_do_not_depend_on_the_number_of_slots(kind, tiny_folders, natural_ends):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    assert lm.codec.eos_id == EOS
    runs = [sampled(lm, batch_size=size) for size in (1, 4, 7, 21)]
    assert all(run == runs[0] for run in runs)
    lengths = {len(ids) for row in runs[0] for ids, _ in row}
    assert len(lengths) > 3, "rows should end at different times"
    assert sampled(lm, seed=5) != runs[0]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_shared_prompt_states_change_nothing(kind, tiny_folders, natural_ends, monkeypatch):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    assert supports_slots(lm)
    shared = sampled(lm, batch_size=6)
    monkeypatch.setattr(sampler, "supports_slots", lambda lm: False)
    assert sampled(lm, batch_size=6) == shared


def test_rows_join_as_others_end(tiny_folders, natural_ends, monkeypatch):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    rows_at_admission = []
    admit = SlotRows.admit

    def watched(self, prompts, num_samples):
        rows_at_admission.append(self.num_rows)
        logits = admit(self, prompts, num_samples)
        assert self.num_rows <= self.num_slots
        assert self.num_groups <= self.max_groups
        return logits

    monkeypatch.setattr(SlotRows, "admit", watched)
    sampled(lm, num_examples=30, num_samples=2, batch_size=8)
    assert any(rows_at_admission), "nothing joined while others were being decoded"


def test_a_model_that_refuses_the_attention_falls_back(tiny_folders, monkeypatch):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    expected = sampled(lm)

    def refuse(*args, **kwargs):
        raise ValueError("attention scores with further terms")

    other = load_language_model(tiny_folders["llama"], tiny_config())
    with monkeypatch.context() as patch:
        patch.setattr(slots, "_attend", refuse)
        assert not supports_slots(other)
    assert sampled(other) == expected


def test_first_tokens_follow_the_models_distribution(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    rows = generate(
        lm, tiny_examples(1), max_new_tokens=1, batch_size=512, sampling=SamplingConfig(), num_samples=20_000, seed=1
    )
    prompt = torch.tensor([lm.codec.encode_prompt(tiny_examples(1)[0]).ids])
    with torch.no_grad():
        expected = lm.model(prompt).logits[0, -1].double().softmax(-1).numpy()
    drawn = np.bincount([c.ids[0] if c.ids else EOS for c in rows[0]], minlength=len(expected))
    order = np.argsort(expected)
    bins = np.array_split(order, 30)  # the vocabulary in 30 parts, so that each expects hundreds
    assert stats.chisquare([drawn[b].sum() for b in bins], [expected[b].sum() * 20_000 for b in bins]).pvalue > 0.001


def test_prompts_of_one_token_and_no_prompts(tiny_folders):
    lm = load_language_model(tiny_folders["llama"], tiny_config())
    short = Example(id="s", source="Hi", prompt="Hi", document_span=(0, 2))
    assert len(lm.codec.encode_prompt(short).ids) <= 2
    (row,) = generate(lm, [short], max_new_tokens=4, batch_size=2, sampling=SamplingConfig(), num_samples=5)
    assert len(row) == 5
    assert generate(lm, [], max_new_tokens=4, batch_size=2) == []


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(), SamplingConfig(temperature=0.7), SamplingConfig(top_k=3), SamplingConfig(top_p=0.6)]
)
def test_samples_follow_the_distribution(sampling):
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, float("-inf"), 0.0])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000, dtype=np.float32))
    drawn = _choose(logits.expand(len(uniforms), -1) / sampling.temperature, uniforms, sampling)
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


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_recorded_logprobs_are_the_training_forwards(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    examples, sampling = tiny_examples(3), SamplingConfig(temperature=0.7, top_k=20)
    rows = generate(lm, examples, max_new_tokens=6, batch_size=8, sampling=sampling, num_samples=4)
    prompts = [lm.codec.encode_prompt(e).ids for e in examples for _ in range(4)]
    completions = [c for row in rows for c in row]
    ids = [(*c.ids, lm.codec.eos_id) if c.terminated else c.ids for c in completions]
    batch = response_batch(prompts, ids, lm)
    with torch.no_grad():
        expected = response_logprobs(lm, batch, temperature=0.7).logprobs_BT[batch.mask_BT]
    recorded = torch.tensor([value for c in completions for value in c.logprobs])
    assert torch.allclose(recorded, expected, atol=1e-4)
