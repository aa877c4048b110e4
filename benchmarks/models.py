"""The folders that all contenders load: tokenizer, policy, reward model, prompts. Made once, kept in .scratch/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import SCRATCH
from benchmarks.settings import SIZES, ModelSize, Setting, hazard
from homestretch.config import RunConfig
from homestretch.rundir import atomic_dir, write_jsonl

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "\n")
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
NUM_PROMPTS = 256
_SFT_STAGES = ((200, 32, 1024), (40, None, 2048))
"""(steps, prompt tokens, tokens per step): first on short prompts, which is cheap, then on the setting's own."""


def build_tokenizer(vocab_size: int) -> Any:
    """Whole words `w5`, `w6`, ..., so that a text of n words has n tokens and any ids can be written as text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocab_size))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^\s]+"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def build_model(size: ModelSize, seed: int = 0) -> Any:
    """A model with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    special = {"pad_token_id": PAD_ID, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
    config = AutoConfig.for_model(size.model_type, vocab_size=size.vocab_size, **special, **size.config)
    auto = AutoModelForCausalLM
    if config.is_encoder_decoder:
        config.decoder_start_token_id, auto = BOS_ID, AutoModelForSeq2SeqLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return auto.from_config(config).float()


def policy_folder(size_name: str, setting: Setting, outputs: str, device: str) -> Path:
    """A policy: random weights for `forced` outputs, a short SFT on synthetic text for `natural` ones."""
    size = SIZES[size_name]
    if outputs == "forced":
        path = SCRATCH / f"{size_name}-forced"
    else:
        low, high = setting.prompt_tokens
        path = SCRATCH / f"{size_name}-natural-{low}-{high}-{setting.new_tokens}"
    if not path.exists():
        print(f"making {path.name}")
        model = build_model(size)
        if outputs == "natural":
            teach_lengths(model.to(device), size, setting, device)
        with atomic_dir(path) as folder:
            model.cpu().save_pretrained(folder)
            build_tokenizer(size.vocab_size).save_pretrained(folder)
    return path


def reward_folder(policy: Path, config: RunConfig) -> Path:
    """The reward model: a copy of the policy's trunk with a scalar head, untrained (training it changes no cost)."""
    from homestretch.rewards.reward_model import build_reward_model, save_reward_model

    path = policy.with_name(policy.name + "-reward")
    if not path.exists():
        plain = config.model_copy(update={"model": config.model.model_copy(update={"lora": None})})
        save_reward_model(build_reward_model(plain, policy), path)
    return path


def prompts_file(size_name: str, setting: Setting) -> Path:
    """Prompts of random words as `{"prompt": ...}` rows, every one ending with a line break."""
    low, high = setting.prompt_tokens
    path = SCRATCH / f"{size_name}-prompts-{low}-{high}.jsonl"
    if not path.exists():
        rng = np.random.default_rng(0)
        texts = (_words(_prompt(rng, setting, SIZES[size_name])) for _ in range(NUM_PROMPTS))
        write_jsonl(path, [{"prompt": text} for text in texts])
    return path


def _prompt(rng: np.random.Generator, setting: Setting, size: ModelSize) -> list[int]:
    low, high = setting.prompt_tokens
    length = int(rng.integers(low, high + 1))
    return [*rng.integers(len(SPECIAL), size.vocab_size, length - 1).tolist(), SPECIAL.index("\n")]


def _words(ids: list[int]) -> str:
    return " ".join(SPECIAL[i] if i < len(SPECIAL) else f"w{i}" for i in ids)


def teach_lengths(model: Any, size: ModelSize, setting: Setting, device: str) -> None:
    """A short SFT on random words, in which the terminator comes with a constant hazard after every token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3 if size.vocab_size < 10_000 else 1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(
        optimizer, 1.0, 0.0, total_iters=sum(steps for steps, _, _ in _SFT_STAGES)
    )
    model.train()
    for inputs in _sft_batches(size, setting, encoder_decoder=model.config.is_encoder_decoder):
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()


def _sft_batches(size: ModelSize, setting: Setting, *, encoder_decoder: bool) -> Iterator[dict[str, torch.Tensor]]:
    rng = np.random.default_rng(1)
    for steps, width, tokens in _SFT_STAGES:
        length = width or setting.prompt_tokens[0]
        fixed = replace(setting, prompt_tokens=(length, length))  # rows of one length need no padding
        for _ in range(steps):
            yield _sft_batch(rng, size, fixed, max(1, tokens // (length + setting.new_tokens)), encoder_decoder)


def _sft_batch(
    rng: np.random.Generator, size: ModelSize, setting: Setting, count: int, encoder_decoder: bool
) -> dict[str, torch.Tensor]:
    prompts = torch.tensor([_prompt(rng, setting, size) for _ in range(count)])
    answers = torch.full((count, setting.new_tokens), -100)
    for row in answers:
        length = min(int(rng.geometric(hazard(setting.new_tokens))), setting.new_tokens + 1)
        words = rng.integers(len(SPECIAL), size.vocab_size, length - 1).tolist()
        answer = [*words, EOS_ID][: setting.new_tokens]
        row[: len(answer)] = torch.tensor(answer)
    if encoder_decoder:
        return {"input_ids": prompts, "labels": answers}
    ids = torch.cat([prompts, answers.masked_fill(answers == -100, PAD_ID)], dim=1)
    return {"input_ids": ids, "labels": torch.cat([torch.full_like(prompts, -100), answers], dim=1)}
