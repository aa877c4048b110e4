"""TRL as a contender. Runs in an environment of its own, without homestretch (see envs.py and protocol.py).

    python -m benchmarks.trl_worker JOB.json

bfloat16 is autocast over float32 weights throughout, as in homestretch: for GRPO that is what `bf16=True` gives. In
PPO only the training forward is under autocast; generation, reference, value and reward forwards are put under it here.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from benchmarks.protocol import Channel, Job, read_job

_ENDLESS = 10**6
_LR = 1e-6
_KL_WEIGHT = 0.05


class Stepper(TrainerCallback):  # type: ignore[misc]
    """Stops the trainer between updates: waits for a command, lets it run, says what it took."""

    def __init__(self, job: Job, trainer_steps_per_update: int) -> None:
        self.job = job
        self.trainer_steps_per_update = trainer_steps_per_update
        self.channel = Channel()
        self.lengths: list[int] = []
        self.prompt_lengths: list[int] = []
        self.num_terminated = 0
        self.num_steps = 0
        self.num_trainer_steps = 0
        self.start = self.cpu_start = 0.0
        register_optimizer_step_post_hook(self._count_step)

    def _count_step(self, *_: Any) -> None:
        self.num_steps += 1

    def saw(self, prompt_lengths: list[int], completions: list[list[int]], eos_id: int) -> None:
        """Write down the completions of this update, each up to its terminator."""
        self.prompt_lengths += prompt_lengths
        for ids in completions:
            ended = eos_id in ids
            self.num_terminated += ended
            self.lengths.append(ids.index(eos_id) + 1 if ended else len(ids))

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.channel.send(ready=True, torch=torch.__version__)
        self._wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.num_trainer_steps += 1
        if self.num_trainer_steps % self.trainer_steps_per_update:
            return
        if self.job.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.start
        gpu = {"peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20} if self.job.device == "cuda" else {}
        self.channel.send(
            seconds=seconds,
            cpu_seconds=time.process_time() - self.cpu_start,
            completions=len(self.lengths),
            optimizer_steps=self.num_steps,
            mean_prompt_tokens=sum(self.prompt_lengths) / len(self.prompt_lengths),
            mean_completion_tokens=sum(self.lengths) / len(self.lengths),
            terminated=self.num_terminated / len(self.lengths),
            **gpu,
        )
        self._wait()

    def _wait(self) -> None:
        self.channel.wait()
        self.lengths, self.prompt_lengths, self.num_terminated, self.num_steps = [], [], 0, 0
        self.start, self.cpu_start = time.perf_counter(), time.process_time()


def common_arguments(job: Job, output_dir: str) -> dict[str, Any]:
    """What PPO's and GRPO's arguments share: 64 rollouts, one optimizer step per pass, nothing saved or reported."""
    return {
        "output_dir": output_dir,
        "per_device_train_batch_size": job.sequences_per_microbatch,
        "gradient_accumulation_steps": job.num_rollouts // job.sequences_per_microbatch,
        "learning_rate": _LR,
        "lr_scheduler_type": "constant",
        "bf16": True,
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": job.device != "cpu",
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": _ENDLESS,
        "seed": job.seed,
    }


def lora(job: Job) -> Any:
    """The adapters that homestretch makes by default, or None."""
    if not job.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def load(auto: Any, path: str, job: Job, **keywords: Any) -> Any:
    """Float32 weights."""
    return auto.from_pretrained(path, dtype=torch.float32, attn_implementation=job.attention, **keywords)


def prompts_of(job: Job) -> Dataset:
    """The prompts as text."""
    return load_dataset("json", data_files=job.prompts_path, split="train", cache_dir=tempfile.mkdtemp())


def grpo(job: Job, output_dir: str) -> Any:
    """TRL's GRPO."""
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        **common_arguments(job, output_dir),
        max_steps=_ENDLESS,
        num_generations=job.completions_per_prompt,
        num_iterations=job.num_passes,
        steps_per_generation=job.num_rollouts // job.sequences_per_microbatch,
        max_completion_length=job.max_new_tokens,
        temperature=1.0,
        beta=_KL_WEIGHT,
        model_init_kwargs={"dtype": "float32", "attn_implementation": job.attention},
    )
    tokenizer = AutoTokenizer.from_pretrained(job.model_dir, padding_side="left")
    stepper = Stepper(job, trainer_steps_per_update=job.num_passes)
    trainer = GRPOTrainer(
        model=job.model_dir,
        reward_funcs=load(AutoModelForSequenceClassification, job.reward_dir, job, num_labels=1),
        args=arguments,
        train_dataset=prompts_of(job),
        processing_class=tokenizer,
        callbacks=[stepper],
        peft_config=lora(job),
    )
    plain = trainer._calculate_rewards

    def recorded(inputs: Any, prompts: list[str], completions: Any, completion_ids: list[list[int]]) -> Any:
        stepper.saw([len(p.split(" ")) for p in prompts], completion_ids, tokenizer.eos_token_id)
        return plain(inputs, prompts, completions, completion_ids)

    trainer._calculate_rewards = recorded
    return trainer


def ppo(job: Job, output_dir: str) -> Any:
    """TRL's PPO, with prompts standing as often in the data as completions are to be drawn for them."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokenizer = AutoTokenizer.from_pretrained(job.model_dir, padding_side="left")
    texts = [text for text in prompts_of(job)["prompt"] for _ in range(job.completions_per_prompt)]
    dataset = Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})
    arguments = PPOConfig(
        **common_arguments(job, output_dir),
        total_episodes=job.num_rollouts * _ENDLESS,
        num_ppo_epochs=job.num_passes,
        num_mini_batches=1,
        num_sample_generations=0,
        response_length=job.max_new_tokens,
        stop_token="eos",
        missing_eos_penalty=None if job.forced else 1.0,
        temperature=1.0,
        kl_coef=_KL_WEIGHT,
        local_rollout_forward_batch_size=job.num_rollouts,
    )
    policy = load(AutoModelForCausalLM, job.model_dir, job)
    reference = None if job.lora else load(AutoModelForCausalLM, job.model_dir, job)
    value, reward = (load(AutoModelForSequenceClassification, job.reward_dir, job, num_labels=1) for _ in range(2))
    for module in (policy, reference, value.base_model, reward.base_model):
        under_bfloat16(module, job.device)
    stepper = Stepper(job, trainer_steps_per_update=1)
    record_generations(ppo_trainer, stepper, tokenizer)
    return PPOTrainer(
        args=arguments, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=dataset, eval_dataset=dataset, callbacks=[stepper], peft_config=lora(job),
    )  # fmt: skip


def under_bfloat16(module: Any, device: str) -> None:
    """Have a model's forward run under autocast and give float32, as accelerate does with models it prepares."""
    from accelerate.utils.operations import convert_outputs_to_fp32

    if module is not None:
        module.forward = convert_outputs_to_fp32(torch.autocast(device, dtype=torch.bfloat16)(module.forward))


def record_generations(ppo_trainer: Any, stepper: Stepper, tokenizer: Any) -> None:
    """Write down what PPO generates."""
    plain: Callable[..., Any] = ppo_trainer.batch_generation

    def recorded(model: Any, queries: torch.Tensor, *arguments: Any) -> Any:
        query_responses, logits = plain(model, queries, *arguments)
        prompt_lengths = (queries != tokenizer.pad_token_id).sum(1).tolist()
        stepper.saw(prompt_lengths, query_responses[:, queries.shape[1] :].tolist(), tokenizer.eos_token_id)
        return query_responses, logits

    ppo_trainer.batch_generation = recorded


def main() -> None:
    """The worker."""
    job = read_job(sys.argv[1])
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # what `accelerate launch --mixed_precision bf16` sets
    torch.set_num_threads(job.threads)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = (ppo if job.algorithm == "ppo" else grpo)(job, str(Path(output_dir)))
        trainer.train()


if __name__ == "__main__":
    main()
