"""The sections of `reward` about its judges: the audit, the gate with every threshold, and the held-out reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from homestretch.config_base import Fraction, NonNegative, PositiveInt, Section


class LeaveOutConfig(Section):
    """Does the reward see failures it was not trained on? A reward model is trained without some classes, and asked."""

    folds: Annotated[int, Field(ge=0)] = 0
    """So many further reward models are trained, each without its share of the classes. 0: off; as many as there are
    classes, or more: one class at a time. Every fold costs about as much as the reward itself."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps of each (null: as many as the reward itself)."""

    @model_validator(mode="after")
    def _leaves_some(self) -> LeaveOutConfig:
        if self.folds == 1:
            raise ValueError("`folds: 1` would leave out every class at once; give 0 (off), or 2 or more")
        return self


class AuditConfig(Section):
    """Can the reward be trusted? Measured on held-out documents before RL."""

    num_prompts: PositiveInt = 100
    """Validation prompts whose SFT samples are ranked."""
    samples_per_prompt: Annotated[int, Field(ge=2)] = 8
    """SFT samples per prompt."""
    leave_out: LeaveOutConfig = LeaveOutConfig()
    """Classes left out of training."""


class HeldOutRewardConfig(Section):
    """A second reward that RL is never paid by: a judge for the guard (docs/guard.md)."""

    prompt_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """This share of the training prompts trains it, and no longer the reward that is paid. 0: off; 0.5: both learn
    from as much. It costs a second reward training, and a model more in RL unless rewards are adapters."""
    max_steps: PositiveInt | None = None
    """Most optimizer steps (null: as many as the reward itself)."""


class GateConfig(Section):
    """What follows from the audit: go, warn or stop before RL. A threshold that is missed is warned of; those that say
    so also stop the run under `action: stop`. These keys may change until RL is done."""

    action: Literal["warn", "stop", "off"] = "warn"
    """`warn`: say it and go on; `stop`: end the run before RL (exit code 2; the same command with
    reward.gate.action=warn goes on); `off`: no gate."""
    min_class_auc: Fraction = 0.65
    """A class below it is one that the reward cannot see. Stops."""
    min_rank_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """The interval of the rank correlation with a held-out metric must lie above it. Stops for the selection score,
    which chooses checkpoints."""
    min_best_of_n_gain: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """The selection score of the samples that the reward prefers, less that of greedy decoding: its interval must lie
    above it."""
    max_length_tau: Fraction = 0.5
    """Rank correlation with length beyond it, either way: the reward follows length. Stops."""
    min_spread_share: NonNegative = 0.25
    """Spread within prompts over spread between them; at or below it the reward is saturated. Stops."""
    min_terminator_drop: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """A reference without its terminator must lose more than this. Stops."""
    min_left_out_auc: Fraction = 0.5
    """A class that was left out of training, below it: nothing carries over to failures that nobody thought of."""
    too_easy_auc: Fraction = 0.99
    """All classes above it: the negatives are too easy to say much."""
    max_probe_auc: Fraction = 0.6
    """Above it length, or the text without its source, gives the label away."""
    max_bag_of_words_auc: Fraction = 0.9
    """Above it counting words does the reward's job."""
    max_edited_auc: Fraction = 0.7
    """Above it an edit that changes no fact costs reward."""
    max_ece: Fraction = 0.1
    """Above it the stated probabilities are off."""
