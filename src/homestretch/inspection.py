"""What can be told of a language model without loading its weights: its folder, config, tokenizer, kind and size."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from homestretch.config import RunConfig
from homestretch.types import Example, UserError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt",
                    "vocab.json", "tekken.json")  # fmt: skip
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class InspectedModel:
    """What is known of the language model without its weights."""

    name: str
    """The folder or hub id, or "model.new"."""
    config: Any
    """The transformers config."""
    tokenizer: Any
    """Its tokenizer; None where there is none yet."""
    num_bytes: int | None
    """Size of its weights in float32; None where that is not known without a download."""

    @property
    def family(self) -> Literal["causal", "seq2seq"] | None:
        """ "causal" or "seq2seq"; None for a model that cannot generate."""
        return generating_family(self.config)

    @property
    def can_terminate(self) -> bool:
        """Whether the tokenizer has a terminator."""
        return self.tokenizer is not None and self.tokenizer.eos_token_id is not None


def inspect_model(config: RunConfig, train: Sequence[Example]) -> InspectedModel:
    """Read the language model's config and tokenizer; for a model made in the run, make the tokenizer in memory.

    Raises UserError where a folder lacks its config, weights or tokenizer, or transformers cannot read them.
    """
    if config.model.new is not None:
        return _inspect_new(config, train)
    path = str(config.model.path)
    check_model_folder("model.path", path)
    model_config = read_model_config("model.path", path, config.model.revision)
    tokenizer = read_tokenizer("model.path", path, config.model.revision)
    tokenizer.model_max_length = 10**9  # its warning of long texts is not for us: we cut, and say so
    return InspectedModel(path, model_config, tokenizer, _num_bytes(Path(path), model_config))


def _inspect_new(config: RunConfig, train: Sequence[Example]) -> InspectedModel:
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from homestretch.tokenizers import train_tokenizer

    new = config.model.new
    assert new is not None
    tokenizer = train_tokenizer(new.tokenizer, [t for e in train for t in (e.prompt, *e.references)]) if train else None
    size = {"vocab_size": len(tokenizer)} if tokenizer is not None else {}
    if new.model_type not in CONFIG_MAPPING_NAMES:
        near = difflib.get_close_matches(new.model_type, CONFIG_MAPPING_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"model.new.model_type: transformers knows no {new.model_type!r}{hint}")
    try:
        model_config = AutoConfig.for_model(new.model_type, **(size | new.config))
        if generating_family(model_config) is None:
            return InspectedModel("model.new", model_config, tokenizer, None)
        auto = AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):  # shapes without weights
            model = auto.from_config(model_config)
    except (StrictDataclassError, ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        raise UserError(f"model.new.config: transformers refuses it: {first_line(error)}") from error
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    return InspectedModel("model.new", model_config, tokenizer, num_bytes)


def check_model_folder(key: str, path: str) -> None:
    """Raise UserError, one line per fault, if a local model folder lacks its config, its weights or its tokenizer.

    A name that is no local path is taken for a hub id and passes.
    """
    folder = Path(path)
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path:
            raise UserError(f"{key}: {path}: no such folder")
        return
    if not folder.is_dir():
        raise UserError(f"{key}: {path} is a file; give the folder that holds config.json")
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise UserError(f"{key}: {path} holds an adapter only; merge it into its model and give that folder")
    faults = []
    if not (folder / "config.json").is_file():
        faults.append("has no config.json; save the model with save_pretrained")
    if not _weight_files(folder):
        faults.append("has no weights (*.safetensors); save the model with save_pretrained, or download it whole")
    faults.extend(f"has no {shard}, which its index names; download it whole" for shard in _missing_shards(folder))
    faults.extend(f"has {name}, which is no whole weight file; download it again" for name in _damaged(folder))
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        faults.append("has no tokenizer (tokenizer.json); save the tokenizer there with save_pretrained")
    if faults:
        raise UserError("\n".join(f"{key}: {path} {fault}" for fault in faults))


def _weight_files(folder: Path) -> list[Path]:
    """The weights that transformers would load: safetensors where there are any."""
    return next((found for pattern in _WEIGHT_FILES if (found := sorted(folder.glob(pattern)))), [])


def _damaged(folder: Path) -> list[str]:
    """Weight files that are empty or a pointer of Git LFS, and safetensors whose header does not fit their length."""
    from safetensors import SafetensorError, safe_open

    damaged = []
    for file in folder.glob("pytorch_model*.bin"):
        with file.open("rb") as content:
            if content.read(7) in (b"", b"version"):
                damaged.append(file.name)
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            damaged.append(file.name)
    return sorted(damaged)


def _missing_shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index}: not a weight index; download the model again") from error
    return sorted(shard for shard in shards if not (folder / shard).is_file())


def read_model_config(key: str, path: str, revision: str | None = None) -> Any:
    """The transformers config of a folder or hub id. Raises UserError if transformers cannot read it."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except (StrictDataclassError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{key}: {path}: no model config could be read: {first_line(error)}") from error


def read_tokenizer(key: str, path: str, revision: str | None = None) -> Any:
    """The tokenizer of a folder or hub id. Raises UserError if there is none, or it is no fast one."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"{key}: {path}: no tokenizer could be read: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{key}: {path}: its tokenizer is not a fast one; convert it to a tokenizer.json")
    return tokenizer


def first_line(error: Exception) -> str:
    """What the error says, in one line."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def generating_family(model_config: Any) -> Literal["causal", "seq2seq"] | None:
    """ "causal", "seq2seq", or None for a model that cannot generate, such as a plain BERT.

    BERT-like encoders have a language-model class as well, meant for use as a decoder; without `is_decoder` they see
    what comes after a token and are no policy.
    """
    from transformers.models.auto import modeling_auto as auto

    model_type = model_config.model_type
    if getattr(model_config, "is_encoder_decoder", False):
        return "seq2seq" if model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES else None
    if model_type not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return None
    is_encoder = model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(model_config, "is_decoder", False)
    return None if is_encoder else "causal"


def checked_family(place: str, model_config: Any) -> Literal["causal", "seq2seq"]:
    """The family of a model that is to write text; UserError, which begins with `place`, if it cannot."""
    family = generating_family(model_config)
    if family is None:
        raise UserError(
            f"{place} is an encoder-only model ({model_config.model_type}), which cannot write text; "
            "give a causal or an encoder-decoder model (an encoder can be the reward.backbone)"
        )
    return family


def is_encoder(model_config: Any) -> bool:
    """Whether it reads both ways and writes nothing, as BERT does."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    writes = model_config.is_encoder_decoder or getattr(model_config, "is_decoder", False)
    return model_config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not writes


def check_encoder_score(config: RunConfig, backbone: Any) -> None:
    """Raise UserError if a likelihood is asked of an encoder; `backbone` is the transformers config of one."""
    if config.reward.score in ("likelihood", "pmi"):
        raise UserError(
            f"reward.score: {config.reward.backbone} is an encoder ({backbone.model_type}), which gives texts no "
            "likelihood; use reward.score=state, or another backbone"
        )


_RELATIVE = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
_FIRST_PLACES_UNUSED = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm", "longformer")


def max_positions(model_config: Any) -> int | None:
    """How many tokens a model can place; None where positions are relative and have no end, or the config has none."""
    limit = getattr(model_config, "max_position_embeddings", None)
    if model_config.model_type in _RELATIVE or not isinstance(limit, int) or limit < 1:
        return None
    # RoBERTa's kind counts from the padding id on
    unused = (model_config.pad_token_id or 0) + 1 if model_config.model_type in _FIRST_PLACES_UNUSED else 0
    return limit - unused


def _num_bytes(folder: Path, model_config: Any) -> int | None:
    if not folder.is_dir():
        return None
    size = sum(file.stat().st_size for file in _weight_files(folder))
    return size * (2 if str(model_config.dtype).removeprefix("torch.") in ("float16", "bfloat16") else 1)
