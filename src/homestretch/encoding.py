"""Between text and token ids. The one place that adds, reads and removes the terminator (EOS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from homestretch.config import DataConfig
from homestretch.ops.shapes import rounded_up
from homestretch.types import Completion, Example, UserError

Family = Literal["causal", "seq2seq", "encoder"]
EncodedPair = tuple[tuple[int, ...], tuple[int, ...]]
"""The ids of a prompt, and of a completion of it with EOS if it terminated."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt's token ids, and whether its document had to be cut to fit."""

    ids: tuple[int, ...]
    was_cut: bool


def without_document(example: Example) -> Example:
    """The example with nothing where the document stood in its prompt."""
    start, end = example.document_span or (0, len(example.prompt))
    return replace(example, prompt=example.prompt[:start] + example.prompt[end:], document_span=(start, start))


class Codec:
    """A tokenizer together with how this run writes prompts and completions."""

    def __init__(self, tokenizer: Any, family: Family, data: DataConfig) -> None:
        self.tokenizer = tokenizer
        self.family = family
        self.data = data
        eos_id = tokenizer.eos_token_id
        if eos_id is None and family == "encoder":
            eos_id = tokenizer.sep_token_id
        if eos_id is None:
            raise UserError("the tokenizer has no EOS token: set `eos_token` in its tokenizer_config.json")
        self.eos_id: int = eos_id
        self.pad_id: int = tokenizer.pad_token_id
        self._adds_spaces = _adds_spaces(tokenizer)

    def encode_prompt(self, example: Example) -> EncodedPrompt:
        """The prompt's ids, at most `data.max_prompt_tokens`; only the document is cut, at its end.

        Raises UserError if the template alone is longer than that.
        """
        text, (start, end) = self._rendered(example)
        ids = self._prompt_ids(text)
        limit = self.data.max_prompt_tokens
        if len(ids) <= limit:
            return EncodedPrompt(tuple(ids), was_cut=False)
        while len(ids) > limit:
            if end == start:
                raise UserError(
                    f"example {example.id!r}: the prompt without its document has {len(ids)} tokens, more than "
                    f"data.max_prompt_tokens={limit}: shorten the template or raise the limit"
                )
            end = self._cut(text, start, end, excess=len(ids) - limit)
            text_cut = text[:end] + text[self._rendered(example)[1][1] :]
            ids = self._prompt_ids(text_cut)
        return EncodedPrompt(tuple(ids), was_cut=True)

    def encode_bare_prompt(self, example: Example) -> tuple[int, ...]:
        """The prompt's ids without its document; one BOS or EOS where nothing is left, to predict the first token from.

        Raises UserError as `encode_prompt` does.
        """
        ids = self.encode_prompt(without_document(example)).ids
        first = self.tokenizer.bos_token_id
        return ids or (self.eos_id if first is None else int(first),)

    def _cut(self, text: str, start: int, end: int, *, excess: int) -> int:
        """A new end of the document that drops its last `excess` tokens."""
        encoded = self.tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        if excess >= len(offsets):
            return start
        return int(start + offsets[len(offsets) - excess][0])

    def _rendered(self, example: Example) -> tuple[str, tuple[int, int]]:
        """The text given to the model and where in it the document stands."""
        start, end = example.document_span or (0, len(example.prompt))
        if not self.data.chat_template:
            return example.prompt, (start, end)
        turns = [{"role": "system", "content": self.data.system_prompt}] if self.data.system_prompt else []
        turns.append({"role": "user", "content": example.prompt})
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        offset = text.find(example.prompt)
        if offset < 0:  # the template strips white space at the turn's ends
            stripped = example.prompt.strip()
            lead = len(example.prompt) - len(example.prompt.lstrip())
            offset = text.index(stripped) - lead
            end = min(end, lead + len(stripped))
            start = max(start, lead)
        return text, (offset + start, offset + end)

    def _prompt_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self.data.chat_template)["input_ids"]
        if self.family == "causal":  # some tokenizers end every text with EOS; a prompt does not end there
            while ids and ids[-1] == self.eos_id:
                ids.pop()
        return ids

    def encode_completion(self, completion: Completion) -> tuple[int, ...]:
        """The completion's ids with EOS if and only if it terminated; cut at the cap, and then without EOS."""
        ids = completion.ids or self._text_ids(completion.text)
        if completion.terminated:
            ids = (*ids, self.eos_id)
        return ids[: self.data.max_completion_tokens]

    def _text_ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(self._separator(text) + text, add_special_tokens=False)["input_ids"])

    def _separator(self, text: str) -> str:
        """What stands between the prompt and a completion's text."""
        if self.data.template[-1:].isspace():
            return ""
        return " " if self.family == "causal" and not self.data.chat_template and text else ""

    def tokens_in_span(self, completion: Completion, span: tuple[int, int]) -> tuple[bool, ...]:
        """Which of the ids that `encode_completion` makes of the text hold characters of this half-open range of it.

        For an empty range, where text was removed: the one id behind it, EOS if the text ended there. No id at all
        where nothing follows. The completion's own sampled ids are not looked at.
        """
        text, (start, end) = completion.text, span
        separator = self._separator(text)
        encoded = self.tokenizer(separator + text, add_special_tokens=False, return_offsets_mapping=True)
        before = len(separator)
        places = [(first - before, last - before) for first, last in encoded["offset_mapping"]]
        if completion.terminated:
            places.append((len(text), len(text) + 1))
        behind = next((i for i, (_, last) in enumerate(places) if last > start), None)
        found = (
            i == behind if start == end else first < end and last > start for i, (first, last) in enumerate(places)
        )
        return tuple(found)[: self.data.max_completion_tokens]

    def decode(self, ids: Sequence[int], *, terminated: bool, logprobs: Sequence[float] = ()) -> Completion:
        """The completion that these sampled ids (without the terminator) are."""
        text = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=self._adds_spaces
        ).strip()
        if self._adds_spaces:  # what transformers' clean-up leaves: "5 : 30" and "$ 5"
            text = re.sub(r"(?<=[$£€]) (?=\d)", "", re.sub(r"(?<=\d) : (?=\d)", ":", text))
        return Completion(text=text, terminated=terminated, ids=tuple(ids), logprobs=tuple(logprobs))


def encoded_pairs(codec: Codec, examples: Sequence[Example]) -> tuple[list[EncodedPair], dict[str, int]]:
    """(prompt ids, reference ids with EOS) per reference, and how many documents and references had to be cut."""
    pairs: list[EncodedPair] = []
    cut = {"prompts": 0, "references": 0}
    for example in examples:
        prompt = codec.encode_prompt(example)
        cut["prompts"] += prompt.was_cut
        for reference in example.references:
            ids = codec.encode_completion(Completion(reference))
            cut["references"] += ids[-1] != codec.eos_id
            pairs.append((prompt.ids, ids))
    return pairs, cut


def _adds_spaces(tokenizer: Any) -> bool:
    """Whether decoding leaves spaces around punctuation that the text did not have (WordPiece: "tom ' s bag .")."""
    ids = tokenizer("a's a.", add_special_tokens=False)["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return " '" in decoded or " ." in decoded


def pad(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool = False, up_to: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as one tensor (B, T) and its mask, True where a token counts.

    T is that of the longest row, or a little more where `up_to` allows it, so that few different shapes occur
    (ops/shapes.py).
    """
    longest = max((len(row) for row in rows), default=0)
    width = max(longest, min(rounded_up(longest), up_to))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, span] = torch.tensor(row, dtype=torch.long)
        mask[i, span] = True
    return ids, mask
