"""The workloads and the models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """An RL update: what goes in, how much comes out."""

    prompt_tokens: tuple[int, int]
    """Fewest and most; lengths are drawn uniformly."""
    new_tokens: int
    """The cap, terminator included."""
    completions_per_prompt: dict[str, int]
    """By algorithm."""
    sequences_per_microbatch: int
    """TRL's micro-batch; the fastest of those tried (README.md, "Choices")."""
    num_rollouts: int = 64
    num_passes: int = 2


SETTINGS: dict[str, Setting] = {
    "short": Setting((64, 128), 48, {"ppo": 1, "grpo": 8}, sequences_per_microbatch=8),
    "last-mile": Setting((256, 256), 32, {"ppo": 8, "grpo": 8}, sequences_per_microbatch=8),
    "long": Setting((768, 768), 48, {"ppo": 8, "grpo": 8}, sequences_per_microbatch=8),
}

OUTPUTS = ("natural", "forced")
"""`natural`: the terminator comes with a constant hazard, half of the cap on average; `forced`: full length."""


def result_key(setting: str, outputs: str, *, size: str, lora: bool) -> str:
    """The name in the result file: the setting's own for natural outputs, full fine-tuning and the small model."""
    parts = [setting, *(["forced"] if outputs == "forced" else []), *(["lora"] if lora else [])]
    return "-".join([*parts, *([size] if size != "4m" else [])])


def hazard(new_tokens: int) -> float:
    """The chance that the next token is the terminator, so that the mean length is about half of the cap.

    Lengths are geometric and cut at the cap R, with mean (1 - (1 - h)^R) / h; at h = 1.6 / R that is 0.5 R.
    """
    return 1.6 / new_tokens


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A transformers config without weights."""

    model_type: str
    vocab_size: int
    config: dict[str, Any]


SIZES: dict[str, ModelSize] = {
    "4m": ModelSize(  # 4.1 million parameters
        "llama",
        4096,
        {
            "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": True,
        },
    ),
    "4m-t5": ModelSize(
        "t5",
        4096,
        {"d_model": 256, "d_kv": 64, "d_ff": 640, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4},
    ),
    "0.5b": ModelSize(  # Qwen2.5-0.5B's shape
        "qwen2",
        151_936,
        {
            "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        },
    ),
    "0.5b-t5": ModelSize(  # about flan-t5-large's shape
        "t5",
        32_128,
        {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 16, "num_decoder_layers": 16, "num_heads": 16},
    ),
}  # fmt: skip

WIDTHS = (128, 256, 384, 512)
"""Hidden sizes of the scaling benchmark, heads of 64."""


def _of_width(width: int) -> ModelSize:
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    small = SIZES["4m"]
    return replace(small, config=small.config | {"hidden_size": width, "intermediate_size": 5 * width // 2} | heads)


SIZES |= {f"4m-w{width}": _of_width(width) for width in WIDTHS}
