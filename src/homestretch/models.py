"""Language models: made, loaded, and saved as plain Hugging Face folders. forward.py runs them."""

from __future__ import annotations

import contextlib
import copy
import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homestretch.adapters import TRAINED_ADAPTER, active_adapter, is_adapted
from homestretch.config import LoRAConfig, NewModelConfig, RunConfig
from homestretch.console import say
from homestretch.cross_attention import can_project_once
from homestretch.encoding import Codec, Family
from homestretch.inspection import checked_family, first_line, read_model_config, read_tokenizer
from homestretch.ops.packing import pack, states_after
from homestretch.rundir import atomic_dir
from homestretch.types import Example, UserError

PAD_TOKEN = "<|pad|>"


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A causal LM or an encoder-decoder with its codec."""

    model: Any
    codec: Codec
    family: Family
    device: torch.device
    dtype: torch.dtype
    """Arithmetic of the forward pass; the weights themselves are float32."""
    shares_prompts: bool = False
    """Whether completions of one prompt go through a causal model in one sequence (see ops/packing.py)."""
    projects_last: bool = False
    """Whether the logits are the output projection of states, and nothing more (see forward.py)."""
    projects_once: bool = False
    """Whether cross-attention's keys and values are computed once per prompt (see cross_attention.py)."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which forwards run."""
        return autocast(self.device, self.dtype)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast over float32 weights, or nothing."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def resolve_device(config: RunConfig) -> torch.device:
    """The device of the run."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for and there is none; use device=cpu or device=auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_dtype(config: RunConfig, hidden_size: int) -> torch.dtype:
    """The arithmetic of the run: as the recipe says, else bfloat16 on CUDA, else what is faster on this CPU."""
    if config.dtype != "auto":
        return torch.float32 if config.dtype == "float32" else torch.bfloat16
    if resolve_device(config).type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if bfloat16_speedup(hidden_size) > 1.3 else torch.float32


@lru_cache
def bfloat16_speedup(hidden_size: int) -> float:
    """How many times faster a feed-forward pass of this width is under bfloat16 autocast on this CPU (0.2 s probe)."""
    layer = nn.Sequential(nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size))
    inputs = torch.randn(1024, hidden_size)

    def seconds(dtype: torch.dtype) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            with autocast(torch.device("cpu"), dtype):
                layer(inputs).float().sum().backward()
            best = min(best, time.perf_counter() - start)
        return best

    return seconds(torch.float32) / seconds(torch.bfloat16)


def build_base(new: NewModelConfig, config: RunConfig, train: Sequence[Example], path: Path) -> None:
    """Make a model with random weights and a tokenizer trained on the train split; write both as a folder at `path`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from homestretch.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(new.tokenizer, [text for e in train for text in (e.prompt, *e.references)])
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    try:
        model_config = AutoConfig.for_model(new.model_type, **(special | new.config))
    except (ValueError, TypeError) as error:
        raise UserError(f"model.new: transformers refuses this config: {error}") from error
    if model_config.is_encoder_decoder:
        model_config.decoder_start_token_id = tokenizer.bos_token_id
    auto = AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = auto.from_config(model_config)
    with atomic_dir(path) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_language_model(path: str | Path, config: RunConfig) -> LanguageModel:
    """Load a causal LM or encoder-decoder in float32 with a PAD of its own and no hidden generation settings.

    UserError for a model that cannot write text, and for a folder that is not whole.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    revision = config.model.revision if str(path) == config.model.path else None
    model_config = read_model_config("model", str(path), revision)
    family = checked_family(f"{'model.new' if config.model.new else 'model.path'}: {path}", model_config)
    auto = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    tokenizer = read_tokenizer("model", str(path), revision)
    model = read_weights(auto, path, revision=revision, attn_implementation=config.model.attention)
    separate_pad(model, tokenizer)
    set_plain_generation(model, tokenizer)
    device = resolve_device(config)
    codec = Codec(tokenizer, family, config.data)
    hidden = model.get_input_embeddings().embedding_dim
    model = model.to(device).eval()
    shares = family == "causal" and can_share_prompts(model)
    if family == "causal" and not shares:
        say(f"{model_config.model_type}: no 4-D attention masks, so a prompt is computed again for every completion")
    projects = projects_last(model)
    if not projects:
        say(f"{model_config.model_type}: logits are more than a projection, so they are computed whole in training")
    once = family == "seq2seq" and can_project_once(model)
    if family == "seq2seq" and not once:
        say(f"{model_config.model_type}: encoder states are changed on their way; each completion projects them again")
    return LanguageModel(
        model, codec, family, device, resolve_dtype(config, hidden),
        shares_prompts=shares, projects_last=projects, projects_once=once,
    )  # fmt: skip


def read_weights(auto: Any, path: str | Path, *, has_new_head: bool = False, **options: Any) -> Any:
    """The model that `auto.from_pretrained` makes, in float32. UserError if its weights are damaged or not all there.

    transformers would make up what is missing; only a head to be trained may be new, with what pools for it.
    """
    from safetensors import SafetensorError

    key = "reward.backbone" if has_new_head else "model"
    try:
        model, found = auto.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=has_new_head, **options
        )
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        if getattr(error, "errno", None) or any(word in str(error) for word in ("out of memory", "allocate memory")):
            raise  # the system's fault, and not the folder's
        raise UserError(f"{key}: {path}: its weights cannot be loaded: {first_line(error)}") from error
    computed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}  # sinusoids
    missing = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])} - computed)
    if has_new_head:
        missing = [name for name in missing if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{key}: {path}: its weights lack {missing[0]}{others}; save or download the whole model again")
    return model


@torch.no_grad()
def projects_last(model: Any) -> bool:
    """Whether a model's logits are its output projection of some states, and nothing more. Tried on a few tokens.

    Not so where logits are capped, scaled or shifted afterwards.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    caught: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    ids = torch.arange(4, device=model.device)[None] % head.out_features
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    logits = model(**inputs, use_cache=False).logits
    handle.remove()
    return len(caught) == 1 and torch.allclose(head(caught[0]), logits, atol=1e-5)


def separate_pad(model: Any, tokenizer: Any) -> None:
    """Give the tokenizer a PAD that is not EOS; with PAD == EOS a model never learns to stop, nor is read as ended."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for part in (model.config, getattr(model.config, "decoder", None), getattr(model.config, "encoder", None)):
        if part is not None and not isinstance(part, (dict, int)):
            part.pad_token_id = tokenizer.pad_token_id


def set_plain_generation(model: Any, tokenizer: Any) -> None:
    """Replace the model's own generation config: greedy, this EOS and PAD, nothing forced, penalised or suppressed."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=decoder_start_id(model) if model.config.is_encoder_decoder else None,
    )


def decoder_start_id(model: Any) -> int:
    """The id an encoder-decoder's output begins with."""
    for name in ("decoder_start_token_id", "bos_token_id"):  # T5 has no BOS, nor then its config in transformers 5
        if (value := getattr(model.config, name, None)) is not None:
            return int(value)
    raise UserError(
        f"{model.config.model_type}: config.json has no decoder_start_token_id; set it to the BOS or PAD id"
    )


def add_lora(lm: LanguageModel, lora: LoRAConfig, seed: int) -> LanguageModel:
    """The same model with trainable low-rank adapters and everything else frozen (Hu et al. 2021, arXiv 2106.09685)."""
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
        task_type=TaskType.SEQ_2_SEQ_LM if lm.family == "seq2seq" else TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(lm.model, settings)
        except ValueError as error:
            raise UserError(f"model.lora.target_modules: {error}") from error
    return replace(lm, model=adapted)


@contextlib.contextmanager
def reference_policy(lm: LanguageModel, frozen: LanguageModel | None) -> Iterator[LanguageModel]:
    """The SFT model: the frozen copy given, or the policy's own trunk; either with its adapters off."""
    reference = lm if frozen is None else frozen
    with active_adapter(reference.model, None):
        yield reference


def frozen_copy(lm: LanguageModel) -> LanguageModel:
    """A copy that only computes, its weights as `narrow_frozen` keeps them: narrowed one by one as they are copied."""
    linear = [parameter for module in _linears(lm.model) for parameter in module.parameters()]
    copies = {id(p): nn.Parameter(p.detach().to(lm.dtype, copy=True), requires_grad=False) for p in linear}
    return replace(lm, model=copy.deepcopy(lm.model, copies).requires_grad_(False).eval())


def freeze(model: Any, dtype: torch.dtype) -> Any:
    """The same model without gradients, its weights as `narrow_frozen` keeps them."""
    return narrow_frozen(model.requires_grad_(False), dtype).eval()


def narrow_frozen(model: Any, dtype: torch.dtype) -> Any:
    """The same model, its frozen linear layers' weights kept in the dtype that autocast computes them in.

    The results are the same; a frozen trunk in bfloat16 takes half the memory, and no time for casting. Weights that
    are embeddings as well stay as they are, since embeddings are not autocast. Merging adapters into such a trunk would
    lose digits: read the weights again for that.
    """
    for module in _linears(model):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            module.to(dtype)
    return model


def _linears(model: Any) -> list[nn.Module]:
    """The linear layers whose weights are not embeddings as well."""
    from transformers.pytorch_utils import Conv1D

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return [m for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and id(m.weight) not in embeddings]


def save_language_model(lm: LanguageModel, path: Path) -> None:
    """Write a plain Hugging Face folder, whole or not at all. The model must not be used after.

    The adapter that was trained is merged, and no other.
    """
    adapted = is_adapted(lm.model)
    model = lm.model.merge_and_unload(adapter_names=[TRAINED_ADAPTER]) if adapted else lm.model
    with atomic_dir(path) as folder:
        model.save_pretrained(folder)
        lm.codec.tokenizer.save_pretrained(folder)


def additive_mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where allowed, the lowest finite number elsewhere: what every attention implementation takes."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


@torch.no_grad()
def can_share_prompts(model: Any) -> bool:
    """Whether a causal model's trunk takes a 4-D mask with positions and then gives what separate passes give.

    Tried on a few tokens. Models with sliding-window or recurrent layers are refused: their masks are their own.
    """
    trunk = getattr(model, model.base_model_prefix, model)
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or "position_ids" not in accepted(trunk, {"position_ids": None}):
        return False
    ids = torch.arange(7, device=model.device) % model.get_input_embeddings().num_embeddings
    prompt, rows, index = ids[None, :3], ids[3:].view(2, 2), torch.zeros(2, dtype=torch.long, device=model.device)
    packed = pack(
        prompt, torch.ones_like(prompt, dtype=torch.bool), index, rows, torch.ones_like(rows, dtype=torch.bool)
    )
    mask = additive_mask(packed.allowed, torch.float32)
    try:
        shared = trunk(input_ids=packed.ids, attention_mask=mask, position_ids=packed.positions, use_cache=False)
    except (ValueError, TypeError, RuntimeError, IndexError):
        return False
    plain = trunk(input_ids=torch.cat([prompt.expand(2, -1), rows], dim=1), use_cache=False).last_hidden_state
    counts = torch.tensor([[0, 1, 2]] * 2, device=model.device)
    found = states_after(shared.last_hidden_state[:, -packed.num_kept :], packed, index, counts)
    return bool(torch.allclose(found, plain[:, -3:], atol=1e-3, rtol=1e-3))


def positions(mask: Tensor) -> Tensor:
    """Position ids from a mask: padding does not count; padded places get 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def accepted(model: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the model's forward has by name."""
    base = model.get_base_model() if is_adapted(model) else model
    names = inspect.signature(base.forward).parameters
    return {name: value for name, value in arguments.items() if name in names}


def hidden_size(lm: LanguageModel) -> int:
    """Width of the (decoder) trunk's last hidden state."""
    embedding = lm.model.get_output_embeddings()
    return int(embedding.in_features if isinstance(embedding, nn.Linear) else embedding.weight.shape[1])
