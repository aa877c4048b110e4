"""Sharing a prompt among its completions changes nothing: values, gradients, rewards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import NEW_MODELS, tiny_config, tiny_examples
from homestretch.models import load_language_model, response_batch, response_forward
from homestretch.ops.logprobs import selected_logprobs
from homestretch.rewards.reward_model import build_reward_model
from homestretch.types import Completion

CAUSAL = [kind for kind in NEW_MODELS if kind in ("llama", "qwen2", "gpt2")]


def groups(codec, count=3):
    """Prompts of different lengths with 3, 1 and 4 completions; one is EOS alone, one lacks EOS."""
    prompts, completions = [], []
    for example, k in zip(tiny_examples(count), (3, 1, 4), strict=True):
        for j in range(k):
            text = Completion(" ".join(example.reference.split()[: 2 * j]), terminated=j != 1)
            prompts.append(codec.encode_prompt(example).ids)
            completions.append(codec.encode_completion(text))
    return prompts, completions


@pytest.mark.parametrize("kind", CAUSAL)
def test_values_and_gradients_are_those_of_separate_passes(kind, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    assert lm.shares_prompts
    prompts, completions = groups(lm.codec)
    found = []
    for shares in (True, False):
        batch = response_batch(prompts, completions, lm)
        out = response_forward(replace(lm, shares_prompts=shares), batch)
        logprobs = selected_logprobs(out.logits_BTV, batch.ids_BT) * batch.mask_BT
        lm.model.zero_grad()
        (logprobs.sum() + (out.hidden_BTD.sum(-1) * batch.mask_BT).sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in lm.model.parameters()])
        found.append((logprobs.detach(), (out.hidden_BTD * batch.mask_BT[..., None]).detach(), gradient))
    for shared, separate in zip(*found, strict=True):
        assert torch.allclose(shared, separate, rtol=1e-5, atol=1e-5 * separate.abs().max().item())


@pytest.mark.parametrize("kind", CAUSAL)
def test_rewards_are_those_of_transformers_own_classifier(kind, tiny_folders):
    model = build_reward_model(tiny_config(kind), tiny_folders[kind]).eval()
    encoded = list(zip(*groups(model.lm.codec), strict=True))
    assert model.lm.shares_prompts
    shared = model.logits(encoded)
    model.lm = replace(model.lm, shares_prompts=False)
    assert torch.allclose(shared, model.logits(encoded), atol=1e-5)


def test_a_model_with_its_own_masks_is_refused(tiny_folders):
    from homestretch.models import can_share_prompts

    lm = load_language_model(tiny_folders["llama"], tiny_config())
    lm.model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not can_share_prompts(lm.model)
