"""The learned reward: (prompt, completion, terminator) -> one number.

Two kinds, one interface. A language model scores by the likelihood it gives the completion and by a head on the state
after its last token (`reward_head.safetensors` beside the model). A sequence classifier of transformers' (encoders, and
causal models with `reward.score: state`) has its head within, and its folder gives the same logits by itself.
Trained as adapters on the SFT model it is written a second time, as those, and may sit on a trunk that RL has anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homestretch.adapters import active_adapter, attach_adapter, is_adapted, restore_adapter, write_adapter
from homestretch.config import LoRAConfig, RunConfig
from homestretch.encoding import Codec, pad
from homestretch.forward import response_batch, response_logprobs, response_states, with_prompts
from homestretch.inspection import check_encoder_score, is_encoder, read_model_config, read_tokenizer
from homestretch.models import (
    LanguageModel,
    accepted,
    add_lora,
    additive_mask,
    can_share_prompts,
    freeze,
    hidden_size,
    load_language_model,
    read_weights,
    resolve_device,
    resolve_dtype,
    separate_pad,
)
from homestretch.ops.packing import pack, states_after
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.ensemble import LearnedReward, is_ensemble, member_dirs, read_ensemble
from homestretch.rewards.length import word_counts
from homestretch.rewards.reward_head import RewardHead
from homestretch.rundir import atomic_dir, read_json, write_json
from homestretch.training import MemoryBudget, grouped_microbatches
from homestretch.types import Completion, Example

_HEAD_FILE = "reward_head.safetensors"
_SETTINGS_FILE = "reward.json"
_ADAPTER_DIR = "adapter"
_ADAPTER = "reward"
"""The name of the paid reward's adapter on a shared trunk; an ensemble's members add their number."""


class Encoded(NamedTuple):
    """A judged completion as ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    """With the terminator if it is there."""
    bare: tuple[int, ...] = ()
    """The prompt without its document, where that is read."""

    @property
    def read_once(self) -> tuple[int, ...]:
        """What is computed once for all completions of a prompt."""
        return self.prompt + self.bare

    @property
    def num_read(self) -> int:
        """How many places the completion takes."""
        return len(self.completion) * (2 if self.bare else 1)


class RewardModel(nn.Module):
    """A scorer with trainable parameters. `logits` has gradients; calling it gives calibrated rewards."""

    def __init__(
        self,
        lm: LanguageModel,
        head: RewardHead | None,
        calibration: Calibration,
        budget: MemoryBudget,
        *,
        adapter: str | None = None,
    ) -> None:
        """`head` is None for a sequence classifier, whose model has its own; `budget` counts a micro-batch's tokens.

        With `adapter` the trunk is shared: it computes with that adapter while this model scores, and only then.
        """
        super().__init__()
        self.lm = lm
        self.model = lm.model
        self.head = head
        self.calibration = calibration
        self.budget = budget
        self.adapter = adapter

    def encode(self, example: Example, completion: Completion) -> Encoded:
        """The terminator is there if and only if the completion terminated."""
        codec = self.lm.codec
        as_text = replace(completion, ids=())  # the tokenizer may not be the policy's
        reads_prior = self.head is not None and self.head.prior is not None
        bare = codec.encode_bare_prompt(example) if reads_prior else ()
        return Encoded(codec.encode_prompt(example).ids, codec.encode_completion(as_text), bare)

    def logits(self, encoded: Sequence[Encoded]) -> Tensor:
        """Raw scores of encoded (prompt, completion) pairs, shape (n,), float32, with gradient."""
        if self.adapter is None:
            return self._logits(encoded)
        with active_adapter(self.model, self.adapter):
            return self._logits(encoded)

    def _logits(self, encoded: Sequence[Encoded]) -> Tensor:
        if self.head is not None:
            return torch.as_tensor(self.head(*self._evidence(encoded)))
        if self.lm.shares_prompts:
            return self._packed_logits(encoded)
        ids, mask = pad([(*e.prompt, *e.completion) for e in encoded], self.lm.codec.pad_id)
        inputs = {"input_ids": ids.to(self.lm.device), "attention_mask": mask.long().to(self.lm.device)}
        second = torch.arange(ids.shape[1])[None] >= torch.tensor([[len(e.prompt)] for e in encoded])
        optional = {"token_type_ids": (second & mask).long().to(self.lm.device)} if self.lm.family == "encoder" else {}
        with self.lm.autocast():
            return torch.as_tensor(self.model(**inputs, **accepted(self.model, optional)).logits[:, 0].float())

    def _packed_logits(self, encoded: Sequence[Encoded]) -> Tensor:
        """A causal classifier's head on each completion's last token, every prompt computed once."""
        batch = response_batch([e.prompt for e in encoded], [e.completion for e in encoded], self.lm)
        packed = pack(batch.prompt_ids, batch.prompt_mask, batch.prompt_index_B, batch.ids_BT, batch.mask_BT)
        model = self.model.get_base_model() if is_adapted(self.model) else self.model
        trunk = getattr(model, model.base_model_prefix)
        with self.lm.autocast():
            states = trunk(
                input_ids=packed.ids, attention_mask=additive_mask(packed.allowed, self.lm.dtype),
                position_ids=packed.positions, use_cache=False,
            ).last_hidden_state  # fmt: skip
            length_B1 = batch.mask_BT.sum(1, keepdim=True)
            last_BD = states_after(states[:, -packed.num_kept :], packed, batch.prompt_index_B, length_B1)[:, 0]
            return torch.as_tensor(model.score(last_BD)[:, 0].float())

    def _evidence(self, encoded: Sequence[Encoded]) -> tuple[Tensor, Tensor | None]:
        """The state (B, D) after each completion's last token, and what counts of its log-likelihood (B,), if any does.

        A padding place behind the last token makes the state after it an output; its own likelihood is left out.
        """
        assert self.head is not None
        completions = [e.completion for e in encoded]
        batch = response_batch([e.prompt for e in encoded], [(*c, self.lm.codec.pad_id) for c in completions], self.lm)
        last_B = torch.tensor([len(c) for c in completions], device=self.lm.device)
        rows_B = torch.arange(len(encoded), device=self.lm.device)
        if self.head.likelihood is None:
            return response_states(self.lm, batch).hidden_BTD[rows_B, last_B], None
        out = response_logprobs(self.lm, batch)
        counts_BT = torch.arange(batch.ids_BT.shape[1], device=self.lm.device) < last_B[:, None]
        logprob_B = (out.logprobs_BT * counts_BT).sum(1)
        if self.head.prior is not None:
            bare = with_prompts(batch, list({e.prompt: e.bare for e in encoded}.values()), self.lm)
            logprob_B = logprob_B - self.head.prior * (response_logprobs(self.lm, bare).logprobs_BT * counts_BT).sum(1)
        return out.hidden_BTD[rows_B, last_B], logprob_B

    @torch.no_grad()
    def standardise(self, encoded: Sequence[Encoded]) -> None:
        """Start an untrained likelihood term from these completions of people's; nothing without such a term."""
        if self.head is None or self.head.likelihood is None:
            return
        parts = grouped_microbatches([e.read_once for e in encoded], [e.num_read for e in encoded], self.budget.size)
        found = [self._evidence([encoded[i] for i in part])[1] for part in parts]
        self.head.standardise(torch.cat([logprob_B for logprob_B in found if logprob_B is not None]))

    @torch.no_grad()
    def raw(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        """Logits without gradient, dropout off, shape (n,). TrainingError if a single completion is too much memory."""
        was_training = self.training
        self.eval()
        encoded = [self.encode(e, c) for e, c in zip(examples, completions, strict=True)]
        result = np.empty(len(encoded))
        prompts, lengths = [e.read_once for e in encoded], [e.num_read for e in encoded]

        def score(tokens: int) -> None:
            for part in grouped_microbatches(prompts, lengths, tokens):
                result[part] = self.logits([encoded[i] for i in part]).double().cpu().numpy()

        longest = max((len(e.read_once) + e.num_read for e in encoded), default=0)
        self.budget.spend(score, least=longest, smallest=f"a single sequence of {longest} tokens")
        self.train(was_training)
        return result

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        """Calibrated rewards, shape (n,): 0 is a reference's mean, 1 the SD over SFT samples."""
        return self.calibration.reward(self.raw(examples, completions), word_counts(completions))


def build_reward_model(config: RunConfig, sft_dir: Path) -> RewardModel:
    """An untrained reward model on the recipe's backbone ("sft": a copy of the SFT model), with adapters if so set."""
    path = sft_dir if config.reward.backbone == "sft" else config.reward.backbone
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = _build(path, config)
    lora = config.reward.lora or config.model.lora
    return _with_lora(model, lora, config.seed) if lora else model


def load_reward_model(path: Path, config: RunConfig) -> LearnedReward:
    """What `save_reward_model` or `write_ensemble` wrote, ready to score: one reward model, or several as one."""
    members = [_load(folder, config) for folder in member_dirs(path)]
    return read_ensemble(path, members) if is_ensemble(path) else members[0]


def resume_reward_model(path: Path, config: RunConfig, sft_dir: Path) -> RewardModel:
    """One reward model in full precision, to be trained on as the recipe trains rewards: its adapters, or all of it.

    Where it is adapters on another model than the SFT model, which are written merged, new ones are put on that.
    """
    if _has_adapter(path):
        model = build_reward_model(config, sft_dir)
        restore_adapter(model.model, path / _ADAPTER_DIR)
        if model.head is not None:
            model.head = _read_head(path).to(model.lm.device)  # of the kind that it was trained as
        model.calibration = _read_calibration(path)
        return model
    model, lora = _load_whole(path, config), config.reward.lora or config.model.lora
    return _with_lora(model, lora, config.seed) if lora else model


def can_share_trunk(path: Path) -> bool:
    """Whether the reward written here is there as adapters on the SFT model too, each member of an ensemble."""
    return all(map(_has_adapter, member_dirs(path)))


def attach_reward_model(lm: LanguageModel, path: Path, config: RunConfig, *, name: str = _ADAPTER) -> LearnedReward:
    """The same, ready to score, as adapters on the trunk of `lm`, which holds the SFT model's weights: see its `lm`.

    What is trained in that trunk stays so, and the trunk computes as before while nothing is scored. A trunk may hold
    several rewards under different names. UserError if the adapters are of another model.
    """
    if not is_ensemble(path):
        return _attach(lm, path, config, name)
    return read_ensemble(path, _attach_all(lm, member_dirs(path), config, name))


def open_members(folders: Sequence[Path], config: RunConfig, sft_dir: Path) -> list[RewardModel]:
    """Reward models that were written, ready to score: on one trunk where all are adapters on the SFT model."""
    if not all(map(_has_adapter, folders)):
        return [_load(folder, config) for folder in folders]
    lm = load_language_model(sft_dir, config)
    freeze(lm.model, lm.dtype)
    return _attach_all(lm, folders, config, _ADAPTER)


def _load(path: Path, config: RunConfig) -> RewardModel:
    model = _load_whole(path, config)
    freeze(model.model, model.lm.dtype)
    return model.requires_grad_(False).eval()


def _load_whole(path: Path, config: RunConfig) -> RewardModel:
    has_head = (path / _HEAD_FILE).exists()
    model = _load_with_head(path, config, _read_head(path)) if has_head else _read_classifier(path, config)
    model.calibration = _read_calibration(path)
    return model


def _has_adapter(path: Path) -> bool:
    return (path / _ADAPTER_DIR).is_dir()


def _attach_all(lm: LanguageModel, folders: Sequence[Path], config: RunConfig, name: str) -> list[RewardModel]:
    members: list[RewardModel] = []
    for number, folder in enumerate(folders, start=1):
        members.append(_attach(members[-1].lm if members else lm, folder, config, f"{name}_{number}"))
    return members


def _attach(lm: LanguageModel, path: Path, config: RunConfig, name: str) -> RewardModel:
    model, rest = attach_adapter(lm.model, path / _ADAPTER_DIR, name)
    is_classifier = not (path / _HEAD_FILE).exists()
    head = _head_of({"weight": rest["score.weight"]}) if is_classifier else _read_head(path)
    shared, calibration = replace(lm, model=model), _read_calibration(path)
    head = head.requires_grad_(False).to(lm.device)
    return RewardModel(shared, head, calibration, _budget(config), adapter=name).eval()


def _budget(config: RunConfig) -> MemoryBudget:
    return MemoryBudget(config.reward.tokens_per_microbatch, "reward.tokens_per_microbatch")


def _read_calibration(path: Path) -> Calibration:
    return Calibration(**read_json(path / _SETTINGS_FILE)["calibration"])


def _read_head(path: Path) -> RewardHead:
    from safetensors.torch import load_file

    return _head_of(load_file(path / _HEAD_FILE))


def _head_of(written: Mapping[str, Tensor]) -> RewardHead:
    head = RewardHead(written["weight"].shape[1], likelihood="likelihood" in written, prior="prior" in written)
    head.load_state_dict(written)
    return head


def _load_with_head(path: str | Path, config: RunConfig, head: RewardHead | None = None) -> RewardModel:
    """A language model with this head, or with an untrained one that counts the likelihood as the recipe says."""
    lm = load_language_model(path, config)
    score = score_form(config)
    head = head or RewardHead(hidden_size(lm), likelihood=score != "state", prior=score == "pmi")
    return RewardModel(lm, head.to(lm.device), Calibration(), _budget(config))


def _read_classifier(path: str | Path, config: RunConfig, *, has_new_head: bool = False) -> RewardModel:
    from transformers import AutoModelForSequenceClassification

    tokenizer = read_tokenizer("reward", str(path))
    model = read_weights(
        AutoModelForSequenceClassification, path, has_new_head=has_new_head,
        num_labels=1, attn_implementation=config.model.attention,
    )  # fmt: skip
    separate_pad(model, tokenizer)
    family = "encoder" if is_encoder(model.config) else "causal"
    device = resolve_device(config)
    width = model.get_input_embeddings().embedding_dim
    codec = Codec(tokenizer, family, config.data)  # type: ignore[arg-type]
    model = model.to(device).eval()
    shares = family == "causal" and hasattr(model, "score") and can_share_prompts(model)
    lm = LanguageModel(model, codec, codec.family, device, resolve_dtype(config, width), shares)
    return RewardModel(lm, None, Calibration(), _budget(config))


def _build(path: str | Path, config: RunConfig) -> RewardModel:
    """An untrained reward model of the kind that recipe and backbone call for."""
    backbone = read_model_config("reward.backbone", str(path))
    if is_encoder(backbone):
        check_encoder_score(config, backbone)
        return _read_classifier(path, config, has_new_head=True)
    if score_form(config) != "state" or backbone.is_encoder_decoder:
        return _load_with_head(path, config)
    return _read_classifier(path, config, has_new_head=True)


def score_form(config: RunConfig) -> str:
    """What a language model's score is read from: the recipe's `reward.score`, or what null stands for."""
    return config.reward.score or ("state" if config.negatives.preset == "paper" else "pmi")


def _with_lora(model: RewardModel, lora: LoRAConfig, seed: int) -> RewardModel:
    if model.head is not None:
        return RewardModel(add_lora(model.lm, lora, seed), model.head, model.calibration, model.budget)
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, task_type=TaskType.SEQ_CLS,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
    )  # fmt: skip
    adapted = get_peft_model(model.model, settings)
    return RewardModel(replace(model.lm, model=adapted), None, model.calibration, model.budget)


def save_reward_model(model: RewardModel, path: Path, *, on_sft: bool = False) -> None:
    """Write a plain Hugging Face folder (adapters merged) with the calibration and, beside a language model, the head.

    Adapters are written as well, in the folder's `adapter`, where they are `on_sft`: trained on the SFT model. The
    model must not be used after.
    """
    from safetensors.torch import save_file

    with atomic_dir(path) as folder:
        if on_sft and _is_shareable(model):
            write_adapter(model.model, folder / _ADAPTER_DIR)
        trunk = model.model.merge_and_unload() if is_adapted(model.model) else model.model
        trunk.save_pretrained(folder)
        model.lm.codec.tokenizer.save_pretrained(folder)
        if model.head is not None:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in model.head.state_dict().items()}, folder / _HEAD_FILE
            )
        write_json(folder / _SETTINGS_FILE, {"schema": 1, "calibration": asdict(model.calibration)})


def _is_shareable(model: RewardModel) -> bool:
    """Whether it is adapters on a language model's trunk and nothing but a linear head on its last states."""
    if not is_adapted(model.model):
        return False
    score = getattr(model.model.get_base_model(), "score", None)
    linear = getattr(score, "original_module", score)  # peft wraps what is trained whole
    plain = isinstance(linear, nn.Linear) and linear.bias is None
    return model.head is not None or (model.lm.family == "causal" and plain)


@dataclass(frozen=True, slots=True)
class RewardGroup:
    """All judged completions of one prompt: what the pairwise loss compares."""

    encoded: tuple[Encoded, ...]
    labels: tuple[float, ...]

    @property
    def num_tokens(self) -> int:
        """Size when the prompt is computed once."""
        return len(self.encoded[0].read_once) + sum(e.num_read for e in self.encoded)
