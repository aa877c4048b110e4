"""What the sections of a recipe are made of: the section, its number types, and the optimizer every stage has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class OptimizerConfig(Section):
    """AdamW with linear warm-up."""

    lr: PositiveFloat = 1e-4
    """Peak learning rate."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay (matrices only)."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps spent in linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """After warm-up: stay, or fall to zero (linear), or to a tenth (cosine)."""
    grad_clip: PositiveFloat = 1.0
    """Clip the global gradient norm here."""
