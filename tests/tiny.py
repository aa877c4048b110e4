"""Small real models, made in the test: random weights, tokenizers trained on a handful of sentences."""

from __future__ import annotations

from homestretch.config import NewModelConfig, RunConfig, TokenizerConfig
from homestretch.types import Example

TEXTS = [
    "Ann: shall we meet at the cafe on Friday?\nBob: Saturday at 6 is better.",
    "Tom: did you buy the milk?\nEva: no, I forgot. I will buy it tomorrow.",
    "Ida: the train leaves at 7.\nLeo: then I will be at the station at half past six.",
    "Max: I sold the bike for 90 dollars.\nKim: I thought it was 80 dollars.",
]
SUMMARIES = [
    "Ann and Bob will meet at the cafe on Saturday at 6.",
    "Eva forgot the milk and will buy it tomorrow.",
    "Leo will be at the station before the train leaves at 7.",
    "Max sold the bike for 90 dollars.",
]

_DECODER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
NEW_MODELS: dict[str, NewModelConfig] = {
    "llama": NewModelConfig(
        model_type="llama", config=_DECODER, tokenizer=TokenizerConfig(kind="word", vocab_size=300)
    ),
    "qwen2": NewModelConfig(
        model_type="qwen2", config=_DECODER, tokenizer=TokenizerConfig(kind="bpe", vocab_size=300)
    ),
    "gpt2": NewModelConfig(
        model_type="gpt2",
        config={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=300),
    ),
    "t5": NewModelConfig(
        model_type="t5",
        config={"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        tokenizer=TokenizerConfig(kind="word", vocab_size=300),
    ),
    "bart": NewModelConfig(
        model_type="bart",
        config={
            "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 256,
        },
        tokenizer=TokenizerConfig(kind="word", vocab_size=300),
    ),
    "encoder-decoder": NewModelConfig(
        model_type="encoder-decoder",
        config={
            part: {
                "model_type": "bert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2,
                "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 256,
                "is_decoder": part == "decoder", "add_cross_attention": part == "decoder",
            }
            for part in ("encoder", "decoder")
        },
        tokenizer=TokenizerConfig(kind="word", vocab_size=300),
    ),
}  # fmt: skip


def tiny_examples(count: int = 8) -> list[Example]:
    """Examples that cycle over the four written chats, with the prompt template of the recipes."""
    return [
        Example(
            id=f"e{i}",
            source=TEXTS[i % 4],
            prompt=TEXTS[i % 4] + "\nSummary:",
            document_span=(0, len(TEXTS[i % 4])),
            references=(SUMMARIES[i % 4],),
        )
        for i in range(count)
    ]


def tiny_config(kind: str = "llama", **overrides: object) -> RunConfig:
    """A run config for a tiny model on the CPU in float32."""
    data = {"task": "chats", "template": "{document}\nSummary:", "max_prompt_tokens": 128, "max_completion_tokens": 64}
    sections = {"data": data, "device": "cpu", "dtype": "float32", "model": {"new": NEW_MODELS[kind]}} | overrides
    return RunConfig.model_validate(sections, strict=False)
