"""Language models: made, loaded, run over (prompt, completion) pairs, and saved as plain Hugging Face folders."""

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

from homestretch.config import LoRAConfig, NewModelConfig, RunConfig
from homestretch.console import say
from homestretch.encoding import Codec, Family, pad
from homestretch.ops.logprobs import entropy, selected_logprobs
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
    """Load a causal LM or encoder-decoder in float32 with a PAD of its own and no hidden generation settings."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    revision = config.model.revision if str(path) == config.model.path else None
    model_config = AutoConfig.from_pretrained(path, revision=revision)
    family: Family = "seq2seq" if model_config.is_encoder_decoder else "causal"
    auto = AutoModelForSeq2SeqLM if family == "seq2seq" else AutoModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    model = auto.from_pretrained(
        path, revision=revision, dtype=torch.float32, attn_implementation=config.model.attention
    )
    separate_pad(model, tokenizer)
    set_plain_generation(model, tokenizer)
    device = resolve_device(config)
    codec = Codec(tokenizer, family, config.data)
    hidden = model.get_input_embeddings().embedding_dim
    model = model.to(device).eval()
    shares = family == "causal" and can_share_prompts(model)
    if family == "causal" and not shares:
        say(f"{model_config.model_type}: no 4-D attention masks, so a prompt is computed again for every completion")
    return LanguageModel(model, codec, family, device, resolve_dtype(config, hidden), shares)


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
    for value in (getattr(model.config, "decoder_start_token_id", None), model.config.bos_token_id):
        if value is not None:
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
    """The SFT model: the policy's own trunk with its adapters off, or the frozen copy given."""
    if frozen is not None:
        yield frozen
    else:
        with lm.model.disable_adapter():
            yield lm


def frozen_copy(lm: LanguageModel) -> LanguageModel:
    """A copy whose weights take no gradient."""
    return replace(lm, model=copy.deepcopy(lm.model).requires_grad_(False).eval())


def save_language_model(lm: LanguageModel, path: Path) -> None:
    """Write a plain Hugging Face folder (adapters merged), whole or not at all. The model must not be used after."""
    model = lm.model.merge_and_unload() if hasattr(lm.model, "merge_and_unload") else lm.model
    with atomic_dir(path) as folder:
        model.save_pretrained(folder)
        lm.codec.tokenizer.save_pretrained(folder)


@dataclass(frozen=True, slots=True)
class ResponseBatch:
    """Completions of a few prompts, padded. Each prompt stands once; `prompt_index_B` says whose a row is."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    prompt_index_B: Tensor
    ids_BT: Tensor
    mask_BT: Tensor


def response_batch(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], lm: LanguageModel
) -> ResponseBatch:
    """Pad (prompt, completion) id pairs; equal prompts are kept once. Prompts are left-padded for causal models."""
    unique = {tuple(prompt): None for prompt in prompts}
    places = {prompt: i for i, prompt in enumerate(unique)}
    prompt_ids, prompt_mask = pad(list(unique), lm.codec.pad_id, left=lm.family == "causal")
    ids_BT, mask_BT = pad(completions, lm.codec.pad_id)
    index_B = torch.tensor([places[tuple(prompt)] for prompt in prompts])
    return ResponseBatch(*(t.to(lm.device) for t in (prompt_ids, prompt_mask, index_B, ids_BT, mask_BT)))


@dataclass(frozen=True, slots=True)
class ResponseOutputs:
    """What a forward says of the completion's positions: position t predicts token t."""

    logits_BTV: Tensor
    hidden_BTD: Tensor
    """The trunk's last hidden states at the positions the logits come from."""


def response_forward(lm: LanguageModel, batch: ResponseBatch) -> ResponseOutputs:
    """Logits and hidden states for the completion tokens, each from the state before the token."""
    with lm.autocast():
        if lm.family == "seq2seq":
            return _seq2seq_forward(lm, batch)
        return _causal_forward(lm, batch)


@dataclass(frozen=True, slots=True)
class ResponseLogprobs:
    """What training needs of the completion tokens, (B, T), float32; 0 where masked out."""

    logprobs_BT: Tensor
    entropies_BT: Tensor | None
    """Of the next-token distributions, in nats; None unless asked for."""
    hidden_BTD: Tensor
    """The trunk's last hidden states, from which a head may predict."""


def response_logprobs(
    lm: LanguageModel, batch: ResponseBatch, *, temperature: float = 1.0, with_entropy: bool = False
) -> ResponseLogprobs:
    """Log-probs of the completion tokens under softmax(logits / temperature): the one place that makes them."""
    out = response_forward(lm, batch)
    logprobs_BT = selected_logprobs(out.logits_BTV, batch.ids_BT, temperature=temperature) * batch.mask_BT
    entropies_BT = entropy(out.logits_BTV, temperature=temperature) * batch.mask_BT if with_entropy else None
    return ResponseLogprobs(logprobs_BT, entropies_BT, out.hidden_BTD)


def _causal_forward(lm: LanguageModel, batch: ResponseBatch) -> ResponseOutputs:
    if lm.shares_prompts and len(batch.prompt_ids) < len(batch.ids_BT):
        return _packed_forward(lm, batch)
    ids = torch.cat([batch.prompt_ids[batch.prompt_index_B], batch.ids_BT], dim=1)
    mask = torch.cat([batch.prompt_mask[batch.prompt_index_B], batch.mask_BT], dim=1)
    width = batch.ids_BT.shape[1] + 1
    optional = {"position_ids": positions(mask), "logits_to_keep": width}
    out = lm.model(
        input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=True,
        **accepted(lm.model, optional),
    )  # fmt: skip
    return ResponseOutputs(out.logits[:, -width:-1], out.hidden_states[-1][:, -width:-1])


def _packed_forward(lm: LanguageModel, batch: ResponseBatch) -> ResponseOutputs:
    packed = pack(batch.prompt_ids, batch.prompt_mask, batch.prompt_index_B, batch.ids_BT, batch.mask_BT)
    out = lm.model(
        input_ids=packed.ids, attention_mask=additive_mask(packed.allowed, lm.dtype), position_ids=packed.positions,
        use_cache=False, output_hidden_states=True, **accepted(lm.model, {"logits_to_keep": packed.num_kept}),
    )  # fmt: skip
    width, index_B = batch.ids_BT.shape[1], batch.prompt_index_B
    before_BT = torch.arange(width, device=lm.device).expand(len(index_B), -1)
    logits, hidden = out.logits[:, -packed.num_kept :], out.hidden_states[-1][:, -packed.num_kept :]
    return ResponseOutputs(
        states_after(logits, packed, index_B, before_BT, width), states_after(hidden, packed, index_B, before_BT, width)
    )


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
    found = states_after(shared.last_hidden_state[:, -packed.num_kept :], packed, index, counts, 2)
    return bool(torch.allclose(found, plain[:, -3:], atol=1e-3, rtol=1e-3))


def _seq2seq_forward(lm: LanguageModel, batch: ResponseBatch) -> ResponseOutputs:
    from transformers.modeling_outputs import BaseModelOutput

    encoder = lm.model.get_encoder()
    states = encoder(input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask.long()).last_hidden_state
    start_B1 = torch.full_like(batch.ids_BT[:, :1], decoder_start_id(lm.model))
    shifted_BT = torch.cat([start_B1, batch.ids_BT[:, :-1]], dim=1)
    shifted_mask_BT = torch.cat([torch.ones_like(batch.mask_BT[:, :1]), batch.mask_BT[:, :-1]], dim=1)
    out = lm.model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states[batch.prompt_index_B]),
        attention_mask=batch.prompt_mask[batch.prompt_index_B].long(),
        decoder_input_ids=shifted_BT,
        decoder_attention_mask=shifted_mask_BT.long(),
        use_cache=False,
        output_hidden_states=True,
    )
    return ResponseOutputs(out.logits, out.decoder_hidden_states[-1])


def positions(mask: Tensor) -> Tensor:
    """Position ids from a mask: padding does not count; padded places get 0."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def accepted(model: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the model's forward has by name."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = inspect.signature(base.forward).parameters
    return {name: value for name, value in arguments.items() if name in names}


def hidden_size(lm: LanguageModel) -> int:
    """Width of the (decoder) trunk's last hidden state."""
    embedding = lm.model.get_output_embeddings()
    return int(embedding.in_features if isinstance(embedding, nn.Linear) else embedding.weight.shape[1])
