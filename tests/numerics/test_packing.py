"""Sharing a prompt among its completions changes nothing: values, gradients, rewards."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from homestretch import forward
from homestretch.config import LoRAConfig, NewModelConfig
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import add_lora, build_base, load_language_model, projects_last
from homestretch.rewards.reward_model import Encoded, build_reward_model
from homestretch.types import Completion
from tiny import NEW_MODELS, tiny_config, tiny_examples

CAUSAL = [kind for kind in NEW_MODELS if kind in ("llama", "qwen2", "gpt2")]
SEQ2SEQ = [kind for kind in NEW_MODELS if kind not in CAUSAL]


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
        out = response_logprobs(replace(lm, shares_prompts=shares), batch)
        logprobs = out.logprobs_BT
        lm.model.zero_grad()
        (logprobs.sum() + (out.hidden_BTD.sum(-1) * batch.mask_BT).sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in lm.model.parameters()])
        found.append((logprobs.detach(), (out.hidden_BTD * batch.mask_BT[..., None]).detach(), gradient))
    for shared, separate in zip(*found, strict=True):
        assert torch.allclose(shared, separate, rtol=1e-5, atol=1e-5 * separate.abs().max().item())


@pytest.mark.parametrize("kind", CAUSAL)
def test_rewards_are_those_of_transformers_own_classifier(kind, tiny_folders):
    model = build_reward_model(tiny_config(kind), tiny_folders[kind]).eval()
    encoded = [Encoded(p, c, p[-2:]) for p, c in zip(*groups(model.lm.codec), strict=True)]
    assert model.lm.shares_prompts
    shared = model.logits(encoded)
    model.lm = replace(model.lm, shares_prompts=False)
    assert torch.allclose(shared, model.logits(encoded), atol=1e-5)


def test_a_model_with_its_own_masks_is_refused(tiny_folders):
    from homestretch.models import can_share_prompts

    lm = load_language_model(tiny_folders["llama"], tiny_config())
    lm.model.config.layer_types = ["sliding_attention", "full_attention"]
    assert not can_share_prompts(lm.model)


def logprobs_and_gradient(lm):
    prompts, completions = groups(lm.codec)
    batch = response_batch(prompts, completions, lm)
    out = response_logprobs(lm, batch, temperature=0.7, with_entropy=True)
    logprobs = out.logprobs_BT
    lm.model.zero_grad()
    (logprobs * torch.linspace(-1, 1, logprobs.shape[1])).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in lm.model.parameters() if p.grad is not None])
    return logprobs.detach(), gradient, out.entropies_BT


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_the_vocabulary_in_chunks_changes_nothing(kind, tiny_folders, monkeypatch):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    assert lm.projects_last
    whole = logprobs_and_gradient(replace(lm, projects_last=False))
    sizes = []
    head = lm.model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: sizes.append(out.numel() // out.shape[-1]))
    monkeypatch.setattr(forward, "_MAX_LOGITS", 5 * head.out_features)
    for chunked, expected in zip(logprobs_and_gradient(lm), whole, strict=True):
        assert torch.allclose(chunked, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    # one place a row while the trunk runs, then at most five tokens at once
    assert max(sizes) <= max(5, len(groups(lm.codec)[0]))
    assert sizes.count(5) > 4


def test_logits_that_are_changed_after_the_projection_are_taken_whole(tiny_folders):
    lm = load_language_model(tiny_folders["bart"], tiny_config("bart"))
    lm.model.final_logits_bias += torch.linspace(0, 1, lm.model.final_logits_bias.shape[1])
    assert not projects_last(lm.model)


def adapted(lm):
    """The model with adapters that do something."""
    lm = add_lora(lm, LoRAConfig(r=4, alpha=8, dropout=0.0), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in lm.model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return lm


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_keys_and_values_once_per_prompt_change_nothing(kind, lora, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    assert lm.projects_once
    lm = adapted(lm) if lora else lm
    for once, each in zip(
        logprobs_and_gradient(lm), logprobs_and_gradient(replace(lm, projects_once=False)), strict=True
    ):
        assert torch.allclose(once, each, rtol=1e-5, atol=1e-5 * each.abs().max().item())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_a_prompt_s_keys_and_values_are_projected_once(kind, lora, tiny_folders):
    lm = load_language_model(tiny_folders[kind], tiny_config(kind))
    lm = adapted(lm) if lora else lm
    prompts, completions = groups(lm.codec)
    rows = Counter()
    for layer in lm.model.get_decoder().modules():
        if isinstance(layer, torch.nn.Linear) and layer.in_features == layer.out_features:
            layer.register_forward_hook(lambda _, args, out: rows.update([out.shape[:2]]))
    batch = response_batch(prompts, completions, lm)
    response_logprobs(lm, batch)
    num_prompts, width = batch.prompt_ids.shape
    assert rows[num_prompts, width] == 4  # two layers' keys and values
    assert not any(m._forward_pre_hooks for m in lm.model.modules())


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_rewards_are_those_of_keys_and_values_for_each_completion(kind, tiny_folders):
    model = build_reward_model(tiny_config(kind), tiny_folders[kind]).eval()
    encoded = [Encoded(p, c, p[-2:]) for p, c in zip(*groups(model.lm.codec), strict=True)]
    assert model.lm.projects_once
    once = model.logits(encoded)
    model.lm = replace(model.lm, projects_once=False)
    each = model.logits(encoded)
    assert torch.allclose(once, each, rtol=1e-5, atol=1e-5 * each.abs().max().item())


def test_states_that_are_changed_before_the_decoder_are_projected_for_each(tmp_path, capsys):
    kind = "encoder-decoder"
    parts = {part: dict(settings) for part, settings in NEW_MODELS[kind].config.items()}
    parts["decoder"]["hidden_size"] = 48
    new = NewModelConfig(model_type=kind, config=parts, tokenizer=NEW_MODELS[kind].tokenizer)
    build_base(new, tiny_config(kind), tiny_examples(), tmp_path / "wider")
    lm = load_language_model(tmp_path / "wider", tiny_config(kind))
    assert not lm.projects_once
    assert "each completion projects them again" in capsys.readouterr().out
    for trusted, plain in zip(
        logprobs_and_gradient(replace(lm, projects_once=True)), logprobs_and_gradient(lm), strict=True
    ):
        assert torch.equal(trusted, plain)


def test_rounding_up_does_not_go_beyond_the_last_position(tmp_path):
    """33 tokens in a model of 40 positions: rounded up to 64, they would look up positions that it does not have."""
    new = NEW_MODELS["gpt2"].model_copy(update={"config": NEW_MODELS["gpt2"].config | {"n_positions": 40}})
    build_base(new, tiny_config("gpt2"), tiny_examples(), tmp_path / "gpt2")
    lm = replace(load_language_model(tmp_path / "gpt2", tiny_config("gpt2")), shares_prompts=False)
    batch = response_batch([tuple(range(5, 25))], [tuple(range(5, 18))], lm)
    assert response_logprobs(lm, batch).logprobs_BT.isfinite().all()
