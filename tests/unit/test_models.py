"""What models.py reads of a model: its config, and weights that are all there."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM, T5Config

from homestretch.inspection import check_model_folder
from homestretch.models import decoder_start_id, load_language_model
from homestretch.rewards.reward_model import build_reward_model
from homestretch.types import UserError
from tiny import NEW_MODELS, tiny_config


def test_a_decoder_starts_as_its_config_says_else_with_bos():
    assert decoder_start_id(SimpleNamespace(config=T5Config(decoder_start_token_id=0))) == 0  # it has no BOS
    assert decoder_start_id(SimpleNamespace(config=T5Config(bos_token_id=3))) == 3
    with pytest.raises(UserError, match="decoder_start_token_id"):
        decoder_start_id(SimpleNamespace(config=T5Config()))


@pytest.fixture
def folder(tiny_folders, tmp_path):
    """A copy of a whole model folder, to be spoilt."""
    return shutil.copytree(tiny_folders["llama"], tmp_path / "llama")


def without(folder, *endings):
    """Take the weights that end so out of the folder."""
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.endswith(endings)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", NEW_MODELS)
def test_no_weight_of_a_whole_model_is_missed(tiny_folders, kind):
    weights = load_language_model(tiny_folders[kind], tiny_config(kind)).model.state_dict()
    written = load_file(tiny_folders[kind] / "model.safetensors")
    assert written
    assert all(torch.equal(weights[name], value) for name, value in written.items())


def test_weights_that_are_missing_are_not_made_up(folder):
    without(folder, "layers.1.mlp.up_proj.weight", "layers.0.self_attn.q_proj.weight")
    lack = r"^model: .*llama: its weights lack model\.layers\.0\.self_attn\.q_proj\.weight and 1 more; "
    with pytest.raises(UserError, match=lack):
        load_language_model(folder, tiny_config())


def test_a_weight_file_that_was_cut_is_told_before_and_when_it_is_read(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"has model\.safetensors, which is no whole weight file; download it again"):
        check_model_folder("model.path", str(folder))
    with pytest.raises(UserError, match=r"llama: its weights cannot be loaded: "):
        load_language_model(folder, tiny_config())


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1"])
def test_weights_that_were_not_downloaded_are_told_of_either_kind(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"has pytorch_model\.bin, which is no whole weight file"):
        check_model_folder("model.path", str(folder))


def test_memory_that_runs_out_is_not_the_folder_s_fault(folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(RuntimeError, match="allocate"):
        load_language_model(folder, tiny_config())


def test_a_model_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(UserError, match=f"^model: {re.escape(str(tmp_path / 'gone'))}: no model config could be read"):
        load_language_model(tmp_path / "gone", tiny_config())


def test_a_backbone_may_lack_the_head_that_is_trained_and_nothing_else(tiny_folders, tmp_path):
    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=300, **sizes)).save_pretrained(folder)
    config = tiny_config(reward={"backbone": str(folder), "score": "state"})
    before = torch.get_rng_state()
    assert build_reward_model(config, tmp_path).lm.family == "encoder"
    assert torch.equal(torch.get_rng_state(), before), "a new head must not move the stream that sampling draws from"
    without(folder, "attention.self.query.weight")
    with pytest.raises(UserError, match=r"its weights lack bert\.encoder\.layer\.0\.attention\.self\.query\.weight; "):
        build_reward_model(config, tmp_path)
