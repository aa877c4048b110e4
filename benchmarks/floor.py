"""The floor: what the matrix products of an update cost by themselves, everything else being free.

Counted with every prompt computed once (P + k * R tokens per prompt). Attention is counted in dense blocks: prompt on
prompt, completions on their prompt, each completion on itself. Element-wise work, soft-max, sampling, casts, memory
traffic between the products and the optimizer are left out: the floor can be neared, not reached.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from benchmarks.common import synchronize
from benchmarks.settings import ModelSize


@dataclass(frozen=True, slots=True)
class Product:
    """`count` times a batch of (rows, inner) @ (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int
    count: int = 1

    @property
    def flops(self) -> int:
        """Multiplications and additions, of all of them."""
        return 2 * self.count * self.batch * self.rows * self.inner * self.columns

    def backward(self) -> tuple[Product, Product]:
        """The gradients' products: dY @ B^T and A^T @ dY."""
        return (
            Product(self.batch, self.rows, self.columns, self.inner, self.count),
            Product(self.batch, self.inner, self.rows, self.columns, self.count),
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """An update and the causal model it is done with."""

    prompts: int
    completions_per_prompt: int
    prompt_tokens: int
    new_tokens: int
    num_passes: int
    tokens_per_microbatch: int
    slots: int
    """Completions decoded at once."""
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def group_tokens(self) -> int:
        """P + k * R."""
        return self.prompt_tokens + self.completions_per_prompt * self.new_tokens


def model_fields(size: ModelSize) -> dict[str, int]:
    """The model's part of a `Shape`."""
    config = size.config
    return {
        "hidden": config["hidden_size"],
        "intermediate": config["intermediate_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "vocab": size.vocab_size,
    }


def linears(shape: Shape, rows: int, count: int = 1) -> list[Product]:
    """The layers' weights on `rows` tokens: q, k, v, o, gate, up, down."""
    d, i, kv = shape.hidden, shape.intermediate, shape.kv_heads * shape.head_size
    sizes = [(d, d), (d, kv), (d, kv), (d, d), (d, i), (d, i), (i, d)]
    return [Product(1, rows, inner, columns, count * shape.layers) for inner, columns in sizes]


def attention(shape: Shape, batch: int, queries: int, keys: int, count: int = 1) -> list[Product]:
    """Scores and weighted sums of `queries` on `keys` in every head and layer."""
    if keys == 0:
        return []
    heads, size, times = batch * shape.heads, shape.head_size, count * shape.layers
    return [Product(heads, queries, size, keys, times), Product(heads, queries, keys, size, times)]


def forward(shape: Shape, *, logits: bool) -> list[Product]:
    """One pass over all prompts with their completions, in micro-batches of whole groups."""
    per_batch = min(shape.prompts, max(1, shape.tokens_per_microbatch // shape.group_tokens))
    whole, rest = divmod(shape.prompts, per_batch)
    products = []
    for groups, count in ((per_batch, whole), (rest, 1)):
        if groups == 0:
            continue
        p, r, k = shape.prompt_tokens, shape.new_tokens, shape.completions_per_prompt
        products += linears(shape, groups * shape.group_tokens, count)
        products += attention(shape, groups, p, p, count)
        products += attention(shape, groups, k * r, p, count)
        products += attention(shape, groups * k, r, r, count)
        if logits:
            products.append(Product(1, groups * k * r, shape.hidden, shape.vocab, count))
    return products


def with_backward(products: Iterable[Product]) -> list[Product]:
    """The products and those of their gradients."""
    return [p for product in products for p in (product, *product.backward())]


def rollout(shape: Shape) -> list[Product]:
    """Every prompt once, then one token per completion and step; a completion's own keys are half of R on average."""
    p, r, k = shape.prompt_tokens, shape.new_tokens, shape.completions_per_prompt
    groups = min(shape.prompts, max(1, shape.slots // k))
    batches = -(-shape.prompts // groups)
    steps = batches * (r - 1)
    head = [Product(1, groups, shape.hidden, shape.vocab, batches)]
    head += [Product(1, groups * k, shape.hidden, shape.vocab, steps)] if steps else []
    prefill = [*linears(shape, groups * p, batches), *attention(shape, groups, p, p, batches)]
    if not steps:
        return [*head, *prefill]
    decode = [*linears(shape, groups * k, steps), *attention(shape, groups, k, p, steps)]
    return [*head, *prefill, *decode, *attention(shape, groups * k, 1, max(1, r // 2), steps)]


def update_products(shape: Shape) -> dict[str, list[Product]]:
    """The parts of an update: rollout, scoring, old and reference log-probs, the passes with gradient."""
    scored = forward(shape, logits=True)
    return {
        "rollout": rollout(shape),
        "scoring": forward(shape, logits=False),
        "log_probs": [*scored, *scored],
        "training": with_backward(scored) * shape.num_passes,
    }


def flops(products: Iterable[Product]) -> int:
    """Their sum."""
    return sum(product.flops for product in products)


def floor_seconds(shape: Shape, device: str) -> dict[str, float]:
    """Seconds of each part's products, and of `update`, their sum."""
    seconds = {
        part: sum(p.count * product_seconds(p.batch, p.rows, p.inner, p.columns, device) for p in products)
        for part, products in update_products(shape).items()
    }
    return seconds | {"update": sum(seconds.values())}


@cache
def product_seconds(batch: int, rows: int, inner: int, columns: int, device: str) -> float:
    """How long one product takes in bfloat16: the median of five timings of at least 5 ms each."""
    import torch

    left = torch.randn(batch, rows, inner, device=device).bfloat16()
    right = torch.randn(batch, inner, columns, device=device).bfloat16()
    if batch == 1:
        left, right = left[0], right[0]

    def timing(repeats: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            torch.matmul(left, right)
        synchronize(device)
        return (time.perf_counter() - start) / repeats

    timing(2)
    repeats = max(1, min(1000, round(0.005 / max(timing(1), 1e-7))))
    return statistics.median(timing(repeats) for _ in range(5))
