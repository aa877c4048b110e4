"""The nouns of homestretch. Read this file first; every other module speaks these words."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class UserError(ValueError):
    """A mistake of the user's (data, recipe, file): one line that names the file, row or key, and the fix.

    The command line prints the message and exits with code 2; anything else that is raised is a bug of ours.
    """


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a task: what the model is given and what people wrote for it."""

    id: str
    source: str
    """The document as it stands in the data: what facts are checked against."""
    prompt: str
    """The text the model is given: the source inside the prompt template."""
    document_span: tuple[int, int] | None = None
    """Half-open character range of `prompt` that holds the document, the only part that may be cut; None: all of it."""
    references: tuple[str, ...] = ()
    """What people wrote; empty for an unlabelled prompt."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Exact facts where a task has them (the built-in tasks); empty otherwise."""

    @property
    def reference(self) -> str:
        """The first reference. Raises IndexError on an unlabelled prompt."""
        return self.references[0]


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that answers a prompt, and whether the model said that it had finished."""

    text: str
    terminated: bool = True
    """True if the terminator (EOS) was produced; False if the text merely reached the cap."""
    ids: tuple[int, ...] = ()
    """The sampled token ids without the terminator; empty when the completion was made from text."""
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """Of the sampled tokens, the terminator's last, at the sampling temperature and before top-k and top-p, as the
    sampler saw them; empty when the completion was made from text."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What `FailureMode.corrupt` returns: a completion and what was done to get it."""

    completion: Completion
    span: tuple[int, int]
    """Half-open character range in `completion.text` that holds the failure ((n, n) where text was removed at n)."""
    note: str = ""
    """The edit in words a person can read, such as "Friday -> Monday"."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A completion with a label: one row of negatives/*.jsonl and of reward-model training."""

    example_id: str
    completion: Completion
    mode: str
    """The failure mode that made it, or "reference", "edited_reference" or "on_policy_positive" for positives."""
    label: float
    """1 is good, 0 is bad."""
    span: tuple[int, int] = (0, 0)
    note: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Corpus:
    """The labelled training examples a failure mode may learn its statistics from."""

    examples: tuple[Example, ...]
    seed: int = 0
    entities: str = "rules"
    """What finds names, numbers, dates and times: the recipe's `data.entities`, see finder.py."""


class FailureMode(ABC):
    """One way for an output to be bad, with its three faces.

    `corrupt` trains the reward, `detect` measures the rate in real outputs, `repair` is post-processing.
    A mode overrides the faces it has; `faces` tells which. Calls are pure: the same arguments give the same result.
    """

    name: ClassVar[str]
    """The name in recipes, files and reports."""

    def fit(self, corpus: Corpus) -> None:  # noqa: B027 - a mode without statistics need not override it
        """Learn the statistics of the task's references (bands, neighbours, frequencies). Called once, before use."""

    def corrupt(self, example: Example, rng: np.random.Generator) -> Edit | None:
        """Make a failed version of the example's reference; None if this mode does not apply to the example."""
        return None

    def detect(self, example: Example, completion: Completion) -> float | None:
        """Severity 0..1 of this failure in the completion; None if it cannot be judged here."""
        return None

    def repair(self, example: Example, completion: Completion) -> Completion:
        """The completion with this failure cleaned up as far as text editing can; unchanged otherwise.

        A repair that makes an unterminated text end properly returns `terminated=True`.
        """
        return completion

    @classmethod
    def faces(cls) -> frozenset[str]:
        """Which of "corrupt", "detect" and "repair" this class implements."""
        return frozenset(f for f in ("corrupt", "detect", "repair") if getattr(cls, f) is not getattr(FailureMode, f))


class Scorer(Protocol):
    """One number per completion: an RL reward term, an evaluation metric and a learned reward model are all this."""

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> NDArray[np.float64]:
        """Scores of shape (n,); NaN where the score is not defined for that pair."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredCompletions:
    """The sequence-level scores, shape (n,), and the terms they were made of, by name, same shape."""

    scores: NDArray[np.float64]
    terms: Mapping[str, NDArray[np.float64]]


class SequenceReward(Protocol):
    """What RL is paid for a completion: a scorer that also gives its terms, so that each is logged."""

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        """Finite scores of shape (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """An evaluation metric: a scorer with a name and a direction."""

    name: str
    scorer: Scorer
    higher_is_better: bool | None = True
    """None for a descriptive number that has no good direction (a length ratio, density)."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion with what RL needs to learn from it."""

    example: Example
    completion: Completion
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """Sampled ids including the terminator when it was produced."""
    score: float
    """The sequence-level reward on the last token."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """The score's parts, each logged by its own name."""
