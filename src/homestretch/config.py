"""Every knob of a run: typed, bounded, documented. Imports no torch.

A recipe is a YAML file of these fields; `a.b=value` on the command line overrides one. Unknown keys, wrong types and
duplicate keys are errors that name the place and the nearest key. The text under a field is its help, and
docs/config.md is generated from it. The sections of `rl`, one per algorithm, are in config_rl.py, those of the audit
in config_audit.py, that of `baselines` in config_baselines.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from homestretch.config_audit import AuditConfig, GateConfig, HeldOutRewardConfig, LeaveOutConfig
from homestretch.config_base import Fraction, NonNegative, OptimizerConfig, PositiveFloat, PositiveInt, Section
from homestretch.config_baselines import (
    ArmName,
    BaselinesConfig,
    BestOfNConfig,
    DPOConfig,
    RejectionSFTConfig,
    TrainedArmConfig,
    UnlikelihoodConfig,
)
from homestretch.config_rl import (
    AlgorithmConfig,
    GRPOConfig,
    GuardConfig,
    KLConfig,
    LengthConfig,
    PPOConfig,
    RefreshConfig,
    ReinforcePPConfig,
    RLConfig,
    RLOOConfig,
    SamplingConfig,
    SFTMixConfig,
)

__all__ = [
    "AlgorithmConfig", "ArmName", "AuditConfig", "BaselinesConfig", "BestOfNConfig", "ColumnsConfig", "DPOConfig",
    "DataConfig", "EnsembleConfig", "EvaluateConfig", "GRPOConfig", "GateConfig", "GuardConfig", "HeldOutRewardConfig",
    "KLConfig", "LeaveOutConfig", "LengthConfig", "LoRAConfig", "ModelConfig", "NegativesConfig", "NewModelConfig",
    "OnPolicyConfig", "OptimizerConfig", "PPOConfig", "RLConfig", "RLOOConfig", "RefreshConfig", "ReinforcePPConfig",
    "RejectionSFTConfig", "RewardConfig", "RunConfig", "SFTConfig", "SFTMixConfig", "SamplingConfig", "Section",
    "TaskSizes", "TokenizerConfig", "TrainedArmConfig", "UnlikelihoodConfig",
]  # fmt: skip


class TaskSizes(Section):
    """How many examples a built-in task generates."""

    train: PositiveInt = 2000
    """Labelled training examples."""
    prompts: Annotated[int, Field(ge=0)] = 4000
    """More prompts without references, for RL."""
    validation: PositiveInt = 500
    """Validation examples."""
    test: PositiveInt = 500
    """Test examples."""


class ColumnsConfig(Section):
    """Which columns of the data hold what. A null is found by its usual names."""

    document: str | None = None
    """The input. Null: the first of document, prompt, input, source, text, dialogue, article."""
    reference: str | None = None
    """The target, a text or a list of texts. Null: the first of reference, references, completion, summary,
    target, output."""
    id: str | None = None
    """The row's name. Null: `id` where there is one, else the file's name and the row's number."""


class DataConfig(Section):
    """The task's data: a built-in task, or files, or a hub data set."""

    task: str | None = None
    """A built-in generated task ("chats"). Give this or `path`."""
    sizes: TaskSizes = TaskSizes()
    """Sizes of a built-in task."""
    path: str | None = None
    """A directory of splits (train.jsonl[.gz], validation.csv, test.parquet, ...), or a Hugging Face hub id.
    Give this or `task`."""
    hub_config: str | None = None
    """The hub data set's configuration name, where it has several."""
    train: str | None = None
    """A file (.jsonl, .csv, .parquet, each also .gz) to use as the train split; overrides `path`'s."""
    validation: str | None = None
    """A file to use as the validation split; without one, `validation_fraction` of train is held out."""
    test: str | None = None
    """A file to use as the test split."""
    prompts: str | None = None
    """A file of further prompts without references; RL uses them together with the train prompts."""
    columns: ColumnsConfig = ColumnsConfig()
    """The column map."""
    template: str = "{document}"
    """The prompt as text, with {document} where the input goes (and any other column by its name)."""
    chat_template: bool = False
    """Put the prompt through the tokenizer's chat template as a user turn."""
    system_prompt: str | None = None
    """The system turn, with `chat_template`."""
    entities: str = "rules"
    """What finds names in texts, for negatives and metrics: `rules`, or `spacy:MODEL`, a spaCy model's name or folder
    (needs `pip install 'homestretch[spacy]'`). Numbers, dates and times are found by rules in any case."""
    flatten_lines: bool = False
    """Turn the document's line breaks into spaces in the prompt (facts are still checked against the document)."""
    drop_overlaps: tuple[Literal["train", "validation", "test", "prompts"], ...] = ()
    """Drop train rows whose `overlaps` field names one of these splits."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of train held out for validation where there is no validation split."""
    max_examples: dict[Literal["train", "validation", "test", "prompts"], PositiveInt] = {}
    """At most this many rows of a split, drawn with the run's seed."""
    max_prompt_tokens: PositiveInt = 512
    """A longer prompt has its *document* cut at the end, never the template; counted and reported."""
    max_completion_tokens: PositiveInt = 128
    """The cap on completions, terminator included, in training and generation."""

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.task is None) == (self.path is None and self.train is None):
            raise ValueError("give either `task` (a built-in task) or `path`/`train` (your data), and not both")
        if "{document}" not in self.template:
            raise ValueError("`template` must contain {document}")
        if self.system_prompt is not None and not self.chat_template:
            raise ValueError("`system_prompt` needs `chat_template: true`")
        return self


class TokenizerConfig(Section):
    """A tokenizer trained on the train split."""

    kind: Literal["word", "bpe"] = "bpe"
    """`word`: whole words and punctuation marks; `bpe`: byte-level BPE."""
    vocab_size: Annotated[int, Field(ge=270)] = 4096
    """At most this many tokens."""


class NewModelConfig(Section):
    """A model made from a config inside the run."""

    model_type: str = "llama"
    """A transformers model type: llama, qwen2, gpt2, t5, bart, ..."""
    config: dict[str, Any] = {}
    """Fields of that transformers config (hidden_size, num_hidden_layers, ...)."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Its tokenizer."""


class LoRAConfig(Section):
    """Low-rank adapters instead of full fine-tuning. The folders a run writes hold merged weights."""

    r: PositiveInt = 16
    """Rank."""
    alpha: PositiveInt = 32
    """Scale: updates are multiplied by alpha / r."""
    dropout: Fraction = 0.0
    """Dropout on the adapters' input in training (never in RL)."""
    target_modules: tuple[str, ...] | None = None
    """Names of the layers to adapt. Null: every linear layer but the output head."""


class ModelConfig(Section):
    """The language model to fine-tune: any Hugging Face causal LM or encoder-decoder."""

    path: str | None = None
    """A local folder or a hub id. Give this or `new`."""
    revision: str | None = None
    """The hub revision."""
    new: NewModelConfig | None = None
    """Make a model from a config. Give this or `path`."""
    attention: Literal["sdpa", "eager"] | None = None
    """transformers' attention implementation. Null: its default (sdpa). On a CPU in bfloat16, eager can be faster."""
    lora: LoRAConfig | None = None
    """Train adapters (null: full fine-tuning)."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if (self.path is None) == (self.new is None):
            raise ValueError("give either `path` (a folder or hub id) or `new` (a model from a config), and not both")
        return self


class SFTConfig(Section):
    """Maximum likelihood on (prompt, reference), the prompt masked, EOS in the loss."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=5e-5)
    """Its optimizer."""
    num_epochs: PositiveInt = 3
    """Most passes over the training examples."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps (null: epochs decide)."""
    batch_size: PositiveInt = 32
    """Examples per step."""
    tokens_per_microbatch: PositiveInt = 8192
    """Padded tokens per forward; does not change the result. Halved by itself where memory runs out."""
    eval_every: PositiveInt | None = None
    """Steps between validations (null: once an epoch)."""
    patience: PositiveInt = 3
    """Stop after this many validations without a better loss."""
    max_validation_examples: PositiveInt = 500
    """Examples of the validation split used for the loss."""
    dropout: bool = True
    """Train with the model's own dropout (off: a third faster on a CPU, and no loss in less than an epoch or two)."""
    prompt_loss_weight: NonNegative = 0.0
    """Weight of the prompt tokens in the loss, causal models only (0: prompt masked). A model made in the run
    has seen no text: a little of this teaches it to read."""


class OnPolicyConfig(Section):
    """Negatives (and soft positives) among the SFT model's own samples, by an independent rule."""

    samples_per_prompt: Annotated[int, Field(ge=0)] = 4
    """Samples drawn per prompt (0: no on-policy class)."""
    max_prompts: PositiveInt = 1000
    """At most this many training prompts are sampled."""
    temperatures: tuple[PositiveFloat, ...] = (0.7, 1.0, 1.3)
    """Drawn in equal shares."""
    bad_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Bottom share on ROUGE-L and chrF; a flag of a lexical or fact detector is needed as well."""
    good_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    """Top share, without flags: soft positives."""


class NegativesConfig(Section):
    """Which failures are made, and how many."""

    preset: Literal["paper", "full"] = "full"
    """`paper`: the five classes of arXiv 2408.16753 as we read it; `full`: every mode."""
    include: tuple[str, ...] = ()
    """Further modes: names, or your own as `module:Class` (installed, on PYTHONPATH, or in the recipe's folder)."""
    exclude: tuple[str, ...] = ()
    """Modes to leave out."""
    per_example: PositiveInt = 4
    """Negatives made per training example, drawn over the modes that apply."""
    max_validation_examples: PositiveInt = 300
    """Examples of the validation split that get negatives of every class (the audit's data)."""
    edited_positives: Fraction | None = None
    """Share of references that also appear as truth-preserving edited positives. Null: none in the paper preset, which
    has no such thing, else 0.25."""
    on_policy: OnPolicyConfig = OnPolicyConfig()
    """The on-policy class (`full` only)."""

    @property
    def edited_share(self) -> float:
        """`edited_positives` with its default."""
        by_preset = 0.0 if self.preset == "paper" else 0.25
        return by_preset if self.edited_positives is None else self.edited_positives


class EnsembleConfig(Section):
    """Several reward models as one: the mean of their rewards less a share of how far they disagree."""

    num_members: PositiveInt = 1
    """Reward models. 1: no ensemble. Else each is trained without its share of the failure classes, so there must be
    as many classes as members, and each costs about as much as one reward."""
    disagreement_penalty: NonNegative = 0.5
    """The reward is the members' mean minus this times their standard deviation. 0: the mean."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps of each member (null: as many as without an ensemble)."""


class RewardConfig(Section):
    """The reward model: text in, one number out, the terminator seen."""

    backbone: str = "sft"
    """`sft`: a copy of the SFT model; else a folder or hub id of any causal model, encoder-decoder or encoder."""
    lora: LoRAConfig | None = None
    """Train adapters on the SFT model (null: as `model.lora`). RL then keeps one frozen model for reference and
    reward instead of two."""
    score: Literal["likelihood", "pmi", "state"] | None = None
    """What the score is read from. `likelihood`: the log-likelihood that the backbone gives the completion, and the
    state after it. `pmi`: less a learnt share of what it gives it without the document. `state`: that state alone.
    Null: state in the paper preset and for encoders, which have no likelihood; else pmi."""
    loss: Literal["bce", "pairwise+bce"] | None = None
    """Null: bce in the paper preset, else pairwise+bce."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Labels become this and 1 - this."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=5e-5)
    """Its optimizer."""
    num_epochs: PositiveInt = 2
    """Passes over the training prompts."""
    dropout: bool = True
    """Train with the model's own dropout."""
    prompts_per_batch: PositiveInt = 16
    """Prompts per step; all completions of a prompt stay together."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps (null: epochs decide)."""
    tokens_per_microbatch: PositiveInt = 8192
    """Padded tokens per forward; does not change the result. Halved by itself where memory runs out."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Several reward models as one."""
    audit: AuditConfig = AuditConfig()
    """The audit."""
    gate: GateConfig = GateConfig()
    """What follows from it."""
    held_out: HeldOutRewardConfig = HeldOutRewardConfig()
    """A second reward that watches RL."""

    @model_validator(mode="after")
    def _adapters_on_sft(self) -> RewardConfig:
        if self.lora and self.backbone != "sft":
            raise ValueError(
                "`lora` is for `backbone: sft`: RL shares the SFT model's trunk with the reward's adapters"
            )
        return self


class EvaluateConfig(Section):
    """What is measured, on which examples, and how differences are tested."""

    split: str = "test"
    """A split of the data, or a file. A file is read as it is: `data.max_examples` and `data.drop_overlaps` are about
    the data's own splits, and only `max_examples` here bounds it."""
    include_base: bool | None = None
    """Evaluate the model before SFT as well. Null: yes for a pretrained model, no for one made in the run."""
    max_examples: PositiveInt | None = None
    """At most this many examples of the split or file, drawn with the run's seed."""
    batch_size: PositiveInt = 64
    """Completions decoded at once (greedy). Halved by itself where memory runs out."""
    selection_metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The held-out metrics whose mean chooses checkpoints. Null: fact_f1 where the task has exact facts,
    else rouge_l and entity_f1."""
    primary_metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Pre-registered metrics of C1-C3, Holm-corrected together. Null: rouge_l, and fact_f1 or entity_precision."""
    num_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Permutations and bootstrap resamples."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals."""
    flag_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A completion counts as failed in a mode when the detector's severity reaches this."""


class RunConfig(Section):
    """A recipe."""

    name: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "run"
    """The run's name: its directory under `output_dir` (letters, digits, `_`, `.` and `-`)."""
    output_dir: Annotated[str, Field(min_length=1)] = "runs"
    """Where run directories go."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness follows from this."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA if there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic: bfloat16 is autocast over float32 master weights. `auto`: bfloat16 on CUDA; on a CPU,
    whichever a quick probe finds faster."""
    num_threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    """CPU threads (null: all cores)."""
    data: DataConfig
    """The task's data."""
    model: ModelConfig
    """The language model."""
    sft: SFTConfig = SFTConfig()
    """Stage 1."""
    negatives: NegativesConfig = NegativesConfig()
    """Stage 2."""
    reward: RewardConfig = RewardConfig()
    """Stage 3."""
    rl: RLConfig = PPOConfig()
    """Stage 4. `rl.algorithm` says which section this is."""
    baselines: BaselinesConfig = BaselinesConfig()
    """Alternatives to RL, before stage 5; nothing is done unless `baselines.arms` names some."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage 5."""

    @property
    def run_dir(self) -> Path:
        """The run's directory."""
        return Path(self.output_dir) / self.name
