"""What the trained arms minimise: maximum likelihood, DPO, and likelihood with unlikelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor

from homestretch.encoding import Codec, EncodedPair
from homestretch.forward import response_batch, response_logprobs
from homestretch.models import LanguageModel
from homestretch.ops import losses
from homestretch.training import MemoryBudget, microbatches, summed_nll
from homestretch.types import Completion, Example, Judged


class Objective(Protocol):
    """A loss over items, of which a step takes a batch, in micro-batches."""

    @property
    def sizes(self) -> Sequence[int]:
        """Each item's tokens: its prompt once, and its completions."""
        ...

    def loss(self, lm: LanguageModel, part: Sequence[int], batch: Sequence[int]) -> Tensor:
        """The share of the items `part` in the loss of the whole `batch`, whose denominators it has."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """A reference and a negative of the same prompt, as ids with the terminator where there was one."""

    prompt: tuple[int, ...]
    reference: tuple[int, ...]
    negative: tuple[int, ...]
    is_wrong: tuple[bool, ...]
    """Which of the negative's ids were edited; all of them where the row names no span."""

    @property
    def size(self) -> int:
        """Tokens, the prompt's once."""
        return len(self.prompt) + len(self.reference) + len(self.negative)


def build_pairs(codec: Codec, examples: Sequence[Example], judged: Sequence[Judged]) -> list[Pair]:
    """Every negative with a reference of its prompt; several references take turns.

    Left out: a negative whose ids are those of the reference (both cut at the cap), and one without ids.
    """
    by_id = {example.id: example for example in examples}
    rows: dict[str, list[Judged]] = {}
    for row in judged:
        if row.label <= 0.5:
            rows.setdefault(row.example_id, []).append(row)
    pairs: list[Pair] = []
    for example_id, negatives in rows.items():
        prompt = codec.encode_prompt(by_id[example_id]).ids
        references = [codec.encode_completion(Completion(text)) for text in by_id[example_id].references]
        for row, reference in zip(negatives, cycle(references), strict=False):
            negative = codec.encode_completion(row.completion)
            if negative and negative != reference:
                has_span = row.span != (0, 0)
                is_wrong = codec.tokens_in_span(row.completion, row.span) if has_span else (True,) * len(negative)
                pairs.append(Pair(prompt, reference, negative, is_wrong))
    return pairs


@dataclass(frozen=True, slots=True)
class MaximumLikelihood:
    """Mean negative log-likelihood per completion token of the batch."""

    pairs: Sequence[EncodedPair]

    @property
    def sizes(self) -> Sequence[int]:
        """Each pair's tokens."""
        return [len(prompt) + len(completion) for prompt, completion in self.pairs]

    def loss(self, lm: LanguageModel, part: Sequence[int], batch: Sequence[int]) -> Tensor:
        """Denominator: the batch's completion tokens."""
        return summed_nll(lm, [self.pairs[i] for i in part]) / sum(len(self.pairs[i][1]) for i in batch)


@dataclass(frozen=True, slots=True)
class DPO:
    """Mean of `ops.losses.dpo` over the batch's pairs, the reference preferred to the negative."""

    pairs: Sequence[Pair]
    reference_logprobs_2N: Tensor
    """Of the SFT model, shape (2, N): the references' and the negatives' summed log-probs."""
    beta: float

    @property
    def sizes(self) -> Sequence[int]:
        """Each pair's tokens."""
        return [pair.size for pair in self.pairs]

    def loss(self, lm: LanguageModel, part: Sequence[int], batch: Sequence[int]) -> Tensor:
        """Denominator: the batch's pairs."""
        chosen_N, rejected_N = summed_logprobs(lm, [self.pairs[i] for i in part])
        reference_2N = self.reference_logprobs_2N[:, list(part)].to(chosen_N.device)
        return losses.dpo(chosen_N, rejected_N, *reference_2N, beta=self.beta).sum() / len(batch)


@dataclass(frozen=True, slots=True)
class Unlikelihood:
    """Negative log-likelihood per reference token + alpha * `ops.losses.unlikelihood` per wrong token of negatives."""

    pairs: Sequence[Pair]
    """Each with at least one wrong token."""
    alpha: float

    @property
    def sizes(self) -> Sequence[int]:
        """Each pair's tokens."""
        return [pair.size for pair in self.pairs]

    def loss(self, lm: LanguageModel, part: Sequence[int], batch: Sequence[int]) -> Tensor:
        """Denominators: the batch's reference tokens, and its wrong tokens."""
        pairs, all_pairs = [self.pairs[i] for i in part], [self.pairs[i] for i in batch]
        logprobs_BT = _logprobs(lm, pairs)
        is_wrong_BT = torch.zeros(logprobs_BT.shape, dtype=torch.bool)
        for i, pair in enumerate(pairs):
            is_wrong_BT[len(pairs) + i, : len(pair.is_wrong)] = torch.tensor(pair.is_wrong)
        nll = -logprobs_BT[: len(pairs)].sum() / sum(len(pair.reference) for pair in all_pairs)
        wrong_M = losses.unlikelihood(logprobs_BT[is_wrong_BT.to(lm.device)])
        return nll + self.alpha * wrong_M.sum() / sum(sum(pair.is_wrong) for pair in all_pairs)


def _logprobs(lm: LanguageModel, pairs: Sequence[Pair]) -> Tensor:
    """Token log-probs (2N, T) of the pairs' references and then of their negatives; 0 where masked out."""
    prompts = [pair.prompt for pair in pairs] * 2
    batch = response_batch(prompts, [p.reference for p in pairs] + [p.negative for p in pairs], lm)
    return response_logprobs(lm, batch).logprobs_BT


def summed_logprobs(lm: LanguageModel, pairs: Sequence[Pair]) -> Tensor:
    """Log-probs of the pairs' references and of their negatives as whole completions, shape (2, N)."""
    return _logprobs(lm, pairs).sum(1).view(2, len(pairs))


@torch.no_grad()
def frozen_logprobs(lm: LanguageModel, pairs: Sequence[Pair], budget: MemoryBudget) -> Tensor:
    """`summed_logprobs` of the model as it is now, dropout off, in micro-batches."""
    lm.model.eval()
    found_2N = torch.zeros(2, len(pairs))

    def compute(tokens: int) -> None:
        for part in microbatches([pair.size for pair in pairs], tokens):
            found_2N[:, part] = summed_logprobs(lm, [pairs[i] for i in part]).cpu()

    budget.spend_on([(pair.prompt, pair.reference + pair.negative) for pair in pairs], compute)
    return found_2N
