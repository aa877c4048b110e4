"""The sections of `rl`: what every algorithm has, and one section per algorithm, told apart by `rl.algorithm`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from homestretch.config_base import Fraction, NonNegative, OptimizerConfig, PositiveFloat, PositiveInt, Section

AlgorithmName = Literal["ppo", "rloo", "grpo", "reinforce_pp"]


class KLConfig(Section):
    """Distance to the SFT model: k1 in the reward, its weight adapted (Ziegler et al. 2019).

    ppo is charged token by token, the other algorithms by the sum over the completion.
    """

    beta: NonNegative = 0.05
    """Initial weight."""
    adaptive: bool = True
    """Adapt beta to hold the target."""
    target: PositiveFloat = 4.0
    """Nats per completion, with `adaptive`."""
    horizon: PositiveInt = 2000
    """Completions over which beta adapts."""


class LengthConfig(Section):
    """Penalty relative to the task: -c * min(1, max(0, |log((|y|+1)/(L+1))| - log tolerance))."""

    coefficient: NonNegative = 0.5
    """c, in units of the calibrated reward."""
    tolerance: Annotated[float, Field(ge=1)] = 1.25
    """Length ratio that is free."""


class TermConfig(Section):
    """A scorer that is added to the learned reward: weight * value, the value as the scorer gives it."""

    scorer: Annotated[str, Field(min_length=1)]
    """An evaluation metric (`rouge_l`), a failure mode, whose detector's severity 0..1 is the value (`echo`), an entry
    point of the group `homestretch.scorers`, or your own function `package.module:function`, (examples, completions)
    -> one number each. NaN (undefined) counts as 0."""
    weight: Annotated[float, Field(allow_inf_nan=False)]
    """Nothing is turned round: it must be negative for a failure mode and for a metric that should be low."""


class RefreshConfig(Section):
    """What an alarm teaches the learned reward before RL goes on (docs/guard.md)."""

    rounds: Annotated[int, Field(ge=0)] = 1
    """So many of the alarms that RL goes back after also train the reward. 0: none."""
    num_prompts: PositiveInt = 200
    """At most this many labelled training prompts on which the policy that raised the alarm is sampled."""
    samples_per_prompt: PositiveInt = 4
    """Samples of that policy per prompt, and as many of the SFT model, which they are ranked among."""
    max_steps: PositiveInt = 100
    """Optimizer steps of the reward, with `reward.optimizer`."""


class GuardConfig(Section):
    """When RL is taken back or stopped (docs/guard.md). Held-out metrics choose the checkpoint, never the reward."""

    patience: PositiveInt = 4
    """Stop after this many validations in a row without a better held-out score."""
    max_kl: PositiveFloat = 30.0
    """Stop when the mean KL to the SFT model per completion passes this (nats)."""
    max_drop_se: PositiveFloat = 2.0
    """Alarm when the held-out score falls this many standard errors below its best, or a text statistic leaves the
    references' band by as many. Meant for one comparison: the guard asks for more where it compares more often, so
    that the chance of a false alarm in a whole run is that of one comparison."""
    max_alarms: Annotated[int, Field(ge=0)] = 2
    """This alarm ends the run, each before it goes back to the best checkpoint. 1: the first one ends it. 0: alarms
    are recorded and nothing is done."""
    beta_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    """Going back multiplies the KL weight by this; from then on it does not adapt to less."""
    refresh: RefreshConfig = RefreshConfig()
    """What the alarm teaches the reward."""


class SamplingConfig(Section):
    """The behaviour policy. Everything is passed explicitly; a model's own generation config has no say."""

    temperature: PositiveFloat = 1.0
    """Applied in old, new and reference log-probs alike."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """0: off."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """1: off."""
    batch_size: PositiveInt = 64
    """Completions decoded at once. Halved by itself where memory runs out."""


class SFTMixConfig(Section):
    """Maximum likelihood on the references beside RL, against forgetting what SFT taught."""

    coefficient: NonNegative = 0.0
    """Every optimizer step of the policy adds this times the loss (nats per reference token, EOS included). 0: off."""
    examples_per_step: PositiveInt = 16
    """Labelled training references per optimizer step, drawn without replacement."""


class AlgorithmConfig(Section):
    """What every algorithm has: rollouts, passes, clip, reward terms, validation, guards."""

    algorithm: AlgorithmName = "ppo"
    """Which algorithm; the keys of its own are below."""
    num_updates: PositiveInt = 50
    """Most updates."""
    prompts_per_update: PositiveInt = 32
    """Prompts per update."""
    completions_per_prompt: PositiveInt = 4
    """Completions per prompt; all but ppo need at least 2."""
    sampling: SamplingConfig = SamplingConfig()
    """How rollouts are sampled."""
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5, schedule="linear")
    """The policy's optimizer."""
    num_epochs: PositiveInt = 2
    """Passes over each update's rollouts."""
    num_minibatches: PositiveInt = 2
    """Optimizer steps per pass."""
    tokens_per_microbatch: PositiveInt = 8192
    """Padded tokens per forward; does not change the result. Halved by itself where memory runs out."""
    clip_range: PositiveFloat = 0.2
    """Clip of the probability ratio: it counts within 1 - this and 1 + this."""
    clip_range_high: PositiveFloat | None = None
    """Another upper end, 1 + this (clip-higher, DAPO, arXiv 2503.14476: 0.28). Null: `clip_range`."""
    shaping: Literal["none", "log_sigmoid", "sigmoid"] = "none"
    """Shape the score against the reference's where there is one: log sigmoid(r - r_ref), or sigmoid(r - r_ref)."""
    reward_weight: NonNegative = 1.0
    """Weight of the learned reward, after shaping. 0: it is only logged, and `terms` are what is paid."""
    terms: tuple[TermConfig, ...] = ()
    """Further scorers in the reward. A metric in here is no held-out judge any more."""
    kl: KLConfig = KLConfig()
    """KL to the SFT model."""
    length: LengthConfig = LengthConfig()
    """Length penalty."""
    sft_mix: SFTMixConfig = SFTMixConfig()
    """Maximum likelihood mixed in."""
    validate_every: PositiveInt = 5
    """Updates between validations."""
    max_validation_examples: PositiveInt = 200
    """Validation examples decoded each time (greedy)."""
    max_ratio_error: PositiveFloat = 0.05
    """Refuse to go on if the first minibatch's ratio is further than this from 1 (a sign of mismatched log-probs)."""
    max_approx_kl: PositiveFloat = 0.2
    """End an update's remaining passes when the approximate KL of a step passes this."""
    guard: GuardConfig = GuardConfig()
    """Alarms and early stop."""

    @model_validator(mode="after")
    def _something_is_paid(self) -> AlgorithmConfig:
        names = [term.scorer for term in self.terms]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"`terms` names {twice!r} twice; give it once, with the sum of the weights")
        if not self.reward_weight and not any(term.weight for term in self.terms):
            raise ValueError("`reward_weight` is 0 and no term has a weight, so nothing is rewarded; set one of them")
        return self

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """How far below and above 1 the probability ratio counts."""
        return self.clip_range, self.clip_range if self.clip_range_high is None else self.clip_range_high


class PPOConfig(AlgorithmConfig):
    """Proximal policy optimization with a value head on the policy's trunk (Schulman et al. 2017)."""

    algorithm: Literal["ppo"] = "ppo"
    """Which algorithm."""
    value_lr: PositiveFloat = 3e-4
    """Peak learning rate of the value head."""
    value_clip_range: PositiveFloat = 0.2
    """Clip of the value's move."""
    value_coefficient: NonNegative = 0.1
    """Weight of the value loss (the trunk is shared)."""
    gamma: Fraction = 1.0
    """Discount."""
    gae_lambda: Fraction = 0.95
    """Lambda of generalized advantage estimation."""
    critic_warmup_updates: Annotated[int, Field(ge=0)] = 3
    """First updates that train the value head only."""


class GroupConfig(AlgorithmConfig):
    """What the methods without a critic share: the other completions of a prompt are the baseline."""

    # `algorithm` may be left out only for ppo; the schema says so, or editors could not tell the sections apart
    model_config = Section.model_config | {"json_schema_extra": {"required": ["algorithm"]}}

    completions_per_prompt: Annotated[int, Field(ge=2)] = 4
    """Completions per prompt, which are compared with each other."""

    @field_validator("completions_per_prompt", mode="before")
    @classmethod
    def _has_a_baseline(cls, value: Any) -> Any:
        if value == 1:
            raise ValueError("a single completion has no others to be compared with; use 2 or more, or algorithm ppo")
        return value


class RLOOConfig(GroupConfig):
    """REINFORCE, leave-one-out: a completion is one action, the others' mean its baseline (Ahmadian et al. 2024)."""

    algorithm: Literal["rloo"] = "rloo"
    """Which algorithm."""


class GRPOConfig(GroupConfig):
    """Group relative policy optimization (Shao et al. 2024) without its two biases (Dr. GRPO, Liu et al. 2025)."""

    algorithm: Literal["grpo"] = "grpo"
    """Which algorithm."""
    divide_by_std: bool = False
    """The original's: divide a group's advantages by their standard deviation. Weighs up prompts that hardly vary."""
    divide_by_length: bool = False
    """The original's: mean over each completion's own tokens. Favours short successes and long failures."""
    token_denominator: PositiveInt | None = None
    """A completion's summed token losses are divided by this constant. Null: `data.max_completion_tokens`."""

    @model_validator(mode="after")
    def _one_denominator(self) -> GRPOConfig:
        if self.divide_by_length and self.token_denominator is not None:
            raise ValueError("give `token_denominator` or `divide_by_length: true`, and not both")
        return self


class ReinforcePPConfig(GroupConfig):
    """REINFORCE++-baseline: the group's mean as baseline, whitened over the whole update (Hu et al. 2025)."""

    algorithm: Literal["reinforce_pp"] = "reinforce_pp"
    """Which algorithm."""


def algorithm_of(section: Any) -> Any:
    """The name that tells which section `rl` is: that of ppo where none is given."""
    return section.get("algorithm", "ppo") if isinstance(section, dict) else getattr(section, "algorithm", "ppo")


RLConfig = Annotated[
    Annotated[PPOConfig, Tag("ppo")]
    | Annotated[RLOOConfig, Tag("rloo")]
    | Annotated[GRPOConfig, Tag("grpo")]
    | Annotated[ReinforcePPConfig, Tag("reinforce_pp")],
    Discriminator(algorithm_of),
]
"""The section `rl`."""
