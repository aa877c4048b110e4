"""The section `baselines`: what else could be made of the same data and the same reward, beside RL."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from homestretch.config_base import NonNegative, OptimizerConfig, PositiveFloat, PositiveInt, Section

ArmName = Literal["rejection_sft", "dpo", "unlikelihood", "best_of_n"]


class BestOfNConfig(Section):
    """Decoding alone: of n samples of the SFT model, the one with the highest score that RL would be paid."""

    n: Annotated[int, Field(ge=2)] = 4
    """Samples per output: this many times the decoding, and as many scorings by the reward."""
    temperature: PositiveFloat = 1.0
    """They are drawn at this."""

    @field_validator("n", mode="before")
    @classmethod
    def _is_a_choice(cls, value: Any) -> Any:
        if value == 1:
            raise ValueError("a single sample leaves nothing to choose from; use 2 or more")
        return value


class TrainedArmConfig(Section):
    """What every trained arm has. All start from the SFT model and keep the checkpoint as RL does."""

    optimizer: OptimizerConfig | None = None
    """Its optimizer. Null: as `rl.optimizer`."""
    num_epochs: PositiveInt = 1
    """Most passes over its data."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps (null: epochs decide)."""
    batch_size: PositiveInt = 32
    """Items per step: completions, or pairs of a reference and a negative."""
    tokens_per_microbatch: PositiveInt = 8192
    """Padded tokens per forward; does not change the result. Halved by itself where memory runs out."""


class RejectionSFTConfig(TrainedArmConfig):
    """Maximum likelihood on the best of a prompt's samples (rejection sampling)."""

    samples_per_prompt: Annotated[int, Field(ge=2)] = 4
    """Samples of the SFT model per prompt, of which the one with the highest score is kept."""
    temperature: PositiveFloat = 1.0
    """They are drawn at this."""
    max_prompts: PositiveInt | None = None
    """Prompts that are sampled, each once. Null: as many as RL may draw, `rl.num_updates` x `rl.prompts_per_update`."""


class DPOConfig(TrainedArmConfig):
    """Direct preference optimization (Rafailov et al. 2023): references preferred to the same prompt's negatives."""

    beta: PositiveFloat = 0.1
    """Strength of the tie to the SFT model."""


class UnlikelihoodConfig(TrainedArmConfig):
    """Maximum likelihood on references, unlikelihood on what is wrong in negatives (Welleck et al. 2020)."""

    alpha: NonNegative = 1.0
    """Weight of the unlikelihood."""


class BaselinesConfig(Section):
    """Is RL worth it here? Other uses of the same negatives and the same reward, as arms of the evaluation."""

    arms: tuple[ArmName, ...] = ()
    """Which of `rejection_sft`, `dpo`, `unlikelihood` and `best_of_n`; none by default (docs/stages/baselines.md)."""
    rejection_sft: RejectionSFTConfig = RejectionSFTConfig()
    """Rejection-sampling SFT."""
    dpo: DPOConfig = DPOConfig()
    """DPO."""
    unlikelihood: UnlikelihoodConfig = UnlikelihoodConfig()
    """Unlikelihood training."""
    best_of_n: BestOfNConfig = BestOfNConfig()
    """Best of n."""

    @model_validator(mode="after")
    def _each_once(self) -> BaselinesConfig:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError("`arms` names an arm twice; name each once")
        return self

    @property
    def trained_arms(self) -> tuple[ArmName, ...]:
        """Those that are models of their own; `best_of_n` is a way to decode."""
        return tuple(arm for arm in self.arms if arm != "best_of_n")
