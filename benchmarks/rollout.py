"""Sampling alone: homestretch's engine against `model.generate` with a dynamic and with a static cache.

homestretch and `generate_autocast` (as TRL calls it) compute in bfloat16 over float32 weights; the other two have
bfloat16 weights, which is faster and which the static cache needs (it refuses autocast).

make bench-rollout
make bench-rollout SETTING=last-mile
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks import common
from benchmarks.models import policy_folder, prompts_file
from benchmarks.ours import load_examples
from benchmarks.report import print_rollout
from benchmarks.settings import SETTINGS
from homestretch.config import RunConfig, SamplingConfig
from homestretch.models import LanguageModel, decoder_start_id, load_language_model
from homestretch.training import set_up_torch
from homestretch.types import Example

FAMILIES = ("causal", "seq2seq")
MODES = {"sampled": ("natural", "forced"), "greedy": ("forced",)}
"""Outputs by mode. The most likely token of the `natural` model is the terminator: greedy, it says nothing."""
SLOTS = 64
"""Completions decoded at once, on both sides."""
NUM_COMPLETIONS = 256


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be generated."""

    lm: LanguageModel
    examples: Sequence[Example]
    new_tokens: int
    num_samples: int
    sampled: bool
    device: str


def engines(work: Work) -> dict[str, Callable[[], common.Record]]:
    """The contenders; each call generates everything once, from ids to text."""
    rng = np.random.default_rng(0)
    halved = replace(work.lm, model=copy.deepcopy(work.lm.model).bfloat16(), dtype=torch.float32)
    return {
        "ours": lambda: timed(work, lambda: ours(work, int(rng.integers(2**31)))),
        "generate_autocast": lambda: timed(work, lambda: theirs(work, work.lm, None)),
        "generate_dynamic": lambda: timed(work, lambda: theirs(work, halved, None)),
        "generate_static": lambda: timed(work, lambda: theirs(work, halved, "static")),
    }


def ours(work: Work, seed: int) -> list[int]:
    """Completion lengths, the terminator included."""
    from homestretch.rollouts.sampler import generate

    rows = generate(
        work.lm, work.examples, max_new_tokens=work.new_tokens, batch_size=SLOTS,
        sampling=SamplingConfig() if work.sampled else None, num_samples=work.num_samples, seed=seed,
    )  # fmt: skip
    return [len(completion.ids) + completion.terminated for row in rows for completion in row]


@torch.no_grad()
def theirs(work: Work, lm: LanguageModel, cache: str | None) -> list[int]:
    """The same through `generate`, in padded batches of prompts; autocast around all of it casts the weights once."""
    from transformers import GenerationConfig

    from homestretch.encoding import pad

    codec = lm.codec
    settings = GenerationConfig(
        max_new_tokens=work.new_tokens, do_sample=work.sampled, num_return_sequences=work.num_samples,
        eos_token_id=codec.eos_id, pad_token_id=codec.pad_id, cache_implementation=cache,
        decoder_start_token_id=decoder_start_id(lm.model) if lm.family == "seq2seq" else None,
        **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} if work.sampled else {}),
    )  # fmt: skip
    lengths: list[int] = []
    per_batch = SLOTS // work.num_samples
    for start in range(0, len(work.examples), per_batch):
        prompts = [codec.encode_prompt(e).ids for e in work.examples[start : start + per_batch]]
        ids, mask = (t.to(lm.device) for t in pad(prompts, codec.pad_id, left=lm.family == "causal"))
        with lm.autocast():
            out = lm.model.generate(ids, attention_mask=mask.long(), generation_config=settings)
        completions = out[:, ids.shape[1] if lm.family == "causal" else 1 :].tolist()
        codec.tokenizer.batch_decode(completions, skip_special_tokens=True)
        lengths += [ids.index(codec.eos_id) + 1 if codec.eos_id in ids else len(ids) for ids in completions]
    return lengths


def timed(work: Work, run: Callable[[], list[int]]) -> common.Record:
    """One round of one engine."""
    seconds: dict[str, float] = {}
    cpu_start = time.process_time()
    with common.stopwatch(seconds, "all", work.device):
        lengths = run()
    cpu_seconds, total = time.process_time() - cpu_start, seconds["all"]
    return {
        "seconds": total,
        "cpu_seconds": cpu_seconds,
        "completions": len(lengths),
        "completions_per_second": len(lengths) / total,
        "tokens_per_second": sum(lengths) / total,
        "mean_completion_tokens": float(np.mean(lengths)),
    }


def work_for(setting_name: str, family: str, mode: str, outputs: str, args: argparse.Namespace) -> Work:
    """Load the model and the prompts."""
    setting = SETTINGS[setting_name]
    size = args.size if family == "causal" else f"{args.size}-t5"
    policy = policy_folder(size, setting, outputs, args.device)
    prompts = prompts_file(size, setting)
    data = {
        "train": str(prompts),
        "max_prompt_tokens": setting.prompt_tokens[1],
        "max_completion_tokens": setting.new_tokens,
    }
    sections: dict[str, Any] = {
        "data": data, "device": args.device, "dtype": "bfloat16", "num_threads": args.threads,
        "model": {"path": str(policy), "attention": args.attention},
    }  # fmt: skip
    config = RunConfig.model_validate(sections, strict=False)
    set_up_torch(config)
    num_samples = args.samples if mode == "sampled" else 1
    examples = load_examples(prompts)[: args.completions // num_samples]
    lm = load_language_model(policy, config)
    return Work(lm, examples, setting.new_tokens, num_samples, mode == "sampled", args.device)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    options = common.parser(__doc__ or "", rounds=5)
    options.add_argument("--setting", action="append", choices=SETTINGS, help="default: all")
    options.add_argument("--family", action="append", choices=FAMILIES, help="default: both")
    options.add_argument("--samples", type=int, default=8, help="completions per prompt (default %(default)s)")
    options.add_argument("--completions", type=int, default=NUM_COMPLETIONS, help="in all (default %(default)s)")
    options.add_argument("--attention", choices=("sdpa", "eager"))
    options.add_argument("--max-minutes", type=float, default=20.0, help="for all rounds (default %(default)s)")
    options.add_argument("--no-save", action="store_true", help="print the table only")
    return common.parsed(options, arguments)


def main() -> None:
    """Measure, write, print."""
    args = parse()
    environment = common.environment(args.device, args.threads)
    path = common.results_path("rollout", args.device)
    cases = [
        (setting, family, mode, outputs)
        for setting in args.setting or SETTINGS
        for family in args.family or FAMILIES
        for mode in MODES
        for outputs in MODES[mode]
    ]
    for case in cases:
        records, _ = common.interleaved(
            engines(work_for(*case, args)), rounds=args.rounds, warmup=args.warmup,
            max_seconds=60 * args.max_minutes / len(cases),
        )  # fmt: skip
        measured = {
            name: common.medians(rows) | {"rounds": [r["seconds"] for r in rows]} for name, rows in records.items()
        }
        key = "-".join([*case, *([args.size] if args.size != "4m" else [])])
        result = {"environment": environment, "settings": {key: common.rounded(measured)}}
        if not args.no_save:
            common.save(path, result)
        print_rollout(result)


if __name__ == "__main__":
    main()
