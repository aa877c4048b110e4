"""A tokenizer trained inside the run, for models made from a config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homestretch.config import TokenizerConfig

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
_WORD = r"\n|\w+(?:['’:.]\w+)*|[^\w\s]"


def train_tokenizer(config: TokenizerConfig, texts: Sequence[str]) -> Any:
    """A fast tokenizer of the kind asked for; PAD, BOS, EOS (and UNK) are ids 0, 1, 2 (and 3) and all differ."""
    from tokenizers import Regex as Pattern
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if config.kind == "word":
        special = [PAD, BOS, EOS, UNK]
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Pattern(_WORD), behavior="removed", invert=True)
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
        trainer: Any = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size, special_tokens=special, show_progress=False
        )
    else:
        special = [PAD, BOS, EOS]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS,
        unk_token=UNK if config.kind == "word" else None,
    )  # fmt: skip
