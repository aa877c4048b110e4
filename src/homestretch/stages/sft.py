"""Stage 1: maximum likelihood on (prompt, reference), the prompt masked, EOS in the loss, the best checkpoint kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from homestretch.checkpoint import load_trainable, save_trainable
from homestretch.config import RunConfig
from homestretch.console import progress, say
from homestretch.data import load_splits
from homestretch.encoding import EncodedPair, encoded_pairs
from homestretch.forward import response_batch, response_logprobs
from homestretch.metrics import build_selection
from homestretch.models import (
    LanguageModel,
    add_lora,
    build_base,
    load_language_model,
    save_language_model,
)
from homestretch.rollouts.sampler import generate
from homestretch.rundir import RunDir
from homestretch.training import (
    MemoryBudget,
    apply_step,
    build_optimizer,
    check_finite,
    epoch_batches,
    microbatches,
    set_up_torch,
    summed_nll,
)
from homestretch.types import Example


def run(config: RunConfig, rundir: RunDir) -> dict[str, Any]:
    """Fine-tune and write run/sft/; returns the validation loss and generation metrics of what was kept."""
    set_up_torch(config)
    splits = load_splits(config)
    lm = _policy(config, rundir, splits.train)
    train, cut = encoded_pairs(lm.codec, splits.train)
    validation, _ = encoded_pairs(lm.codec, splits.validation[: config.sft.max_validation_examples])
    if cut["prompts"] or cut["references"]:
        say(f"sft: {cut['prompts']} documents and {cut['references']} references of {len(train)} were cut to fit")
    best_path = rundir.path / ".sft-best.safetensors"
    best_loss, steps = _train(config, rundir, lm, train, validation, best_path)
    load_trainable(lm.model, best_path)
    generation = _generation_metrics(config, lm, splits.train, splits.validation)
    save_language_model(lm, rundir.sft_dir)
    best_path.unlink()
    summary = {"steps": steps, "validation_loss": best_loss, "cut": cut, **generation}
    say("sft: " + ", ".join(f"{k} {v:.3f}" for k, v in summary.items() if isinstance(v, float)))
    return summary


def _policy(config: RunConfig, rundir: RunDir, train: Sequence[Example]) -> LanguageModel:
    path: str | Path | None = config.model.path
    if config.model.new is not None:
        path = rundir.base_dir
        build_base(config.model.new, config, train, rundir.base_dir)
    assert path is not None
    lm = load_language_model(path, config)
    parameters = sum(p.numel() for p in lm.model.parameters())
    say(f"sft: {lm.model.config.model_type}, {parameters / 1e6:.1f}M parameters, {lm.dtype}, {lm.device}")
    return add_lora(lm, config.model.lora, config.seed) if config.model.lora else lm


def _train(
    config: RunConfig,
    rundir: RunDir,
    lm: LanguageModel,
    train: Sequence[EncodedPair],
    validation: Sequence[EncodedPair],
    best: Path,
) -> tuple[float, int]:
    """Optimize with early stopping; the best weights end up in the file `best`. Returns (best loss, steps taken)."""
    sft, rng = config.sft, np.random.default_rng([config.seed, 1])
    per_epoch = -(-len(train) // sft.batch_size)
    num_steps = min(sft.num_epochs * per_epoch, sft.max_steps or sft.num_epochs * per_epoch)
    eval_every = sft.eval_every or per_epoch
    optimizer, schedule = build_optimizer([(lm.model.parameters(), sft.optimizer.lr)], sft.optimizer, num_steps)
    trainable = [p for p in lm.model.parameters() if p.requires_grad]
    budget = MemoryBudget(sft.tokens_per_microbatch, "sft.tokens_per_microbatch")
    best_loss, waited, step = float("inf"), 0, 0
    with progress("sft", num_steps) as advance:
        while step < num_steps and waited < sft.patience:
            for indices in epoch_batches(len(train), sft.batch_size, rng):
                lm.model.train(sft.dropout)
                batch = [train[i] for i in indices]
                loss = budget.spend_on(batch, partial(_accumulate, lm, batch, config))
                lr = float(schedule.get_last_lr()[0])
                norm = apply_step(trainable, optimizer, schedule, grad_clip=sft.optimizer.grad_clip, stage="sft")
                step += 1
                advance(1)
                rundir.log_metrics("sft", step, {"sft/loss": loss, "sft/lr": lr, "sft/grad_norm": norm})
                if step % eval_every == 0 or step == num_steps:
                    validation_loss = budget.spend_on(validation, partial(mean_loss, lm, validation))
                    rundir.log_metrics("sft", step, {"sft/validation_loss": validation_loss})
                    waited += 1
                    if validation_loss < best_loss:
                        best_loss, waited = validation_loss, 0
                        save_trainable(lm.model, best)
                if step >= num_steps or waited >= sft.patience:
                    break
    return best_loss, step


def _accumulate(lm: LanguageModel, pairs: Sequence[EncodedPair], config: RunConfig, tokens: int) -> float:
    """Gradients, from zero, of the mean loss per target token of the batch, in micro-batches; returns that loss."""
    sft = config.sft
    lm.model.zero_grad(set_to_none=True)
    total = sum(len(completion) for _, completion in pairs)
    prompt_total = sum(len(prompt) - 1 for prompt, _ in pairs)
    reads_prompt = sft.prompt_loss_weight > 0 and lm.family == "causal"
    value: float = 0.0
    for part in microbatches([len(p) + len(c) for p, c in pairs], tokens):
        chosen = [pairs[i] for i in part]
        if reads_prompt:
            completion_loss, prompt_loss = _summed_losses_with_prompt(lm, chosen)
            loss = completion_loss / total + sft.prompt_loss_weight * prompt_loss / max(1, prompt_total)
        else:
            completion_loss = summed_nll(lm, chosen)
            loss = completion_loss / total
        value += completion_loss.item() / total
        check_finite(loss, "sft/loss")
        loss.backward()
    return value


def _summed_losses_with_prompt(lm: LanguageModel, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """One pass over whole texts: the loss of the completions' tokens, and that of the prompts' after their first."""
    apart = replace(lm, shares_prompts=False)  # first tokens are often the same, and nothing to share
    batch = response_batch([p[:1] for p, _ in pairs], [p[1:] + c for p, c in pairs], apart)
    losses_BT = -response_logprobs(apart, batch).logprobs_BT
    prompt_lengths_B1 = torch.tensor([[len(p) - 1] for p, _ in pairs], device=lm.device)
    in_prompt_BT = torch.arange(losses_BT.shape[1], device=lm.device)[None] < prompt_lengths_B1
    return (losses_BT * ~in_prompt_BT).sum(), (losses_BT * in_prompt_BT).sum()


@torch.no_grad()
def mean_loss(lm: LanguageModel, pairs: Sequence[EncodedPair], tokens: int) -> float:
    """Negative log-likelihood per target token (EOS included), dropout off, in micro-batches of so many tokens."""
    lm.model.eval()
    total = 0.0
    for part in microbatches([len(p) + len(c) for p, c in pairs], tokens):
        total += float(summed_nll(lm, [pairs[i] for i in part]))
    return total / sum(len(c) for _, c in pairs)


def _generation_metrics(
    config: RunConfig, lm: LanguageModel, train: Sequence[Example], validation: Sequence[Example]
) -> dict[str, float]:
    """What greedy decoding of the kept model is worth on the validation examples that RL will look at too."""
    examples = validation[: config.rl.max_validation_examples]
    rows = generate(
        lm, examples, max_new_tokens=config.data.max_completion_tokens,
        batch_size=MemoryBudget(config.evaluate.batch_size, "evaluate.batch_size"),
        description="sft: validation samples",
    )  # fmt: skip
    completions = [row[0] for row in rows]
    selection = build_selection(config, train)(examples, completions)
    return {
        "validation_selection": float(np.mean(selection)),
        "validation_terminated": float(np.mean([c.terminated for c in completions])),
    }
