"""Several reward models as one reward: the mean of what they say, less a share of how far they disagree.

Members are trained in leave_out.py. Written, an ensemble is a folder with its members' folders and `ensemble.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from homestretch.models import LanguageModel
from homestretch.rewards.calibration import Calibration
from homestretch.rewards.length import word_counts
from homestretch.rundir import atomic_dir, read_json, write_json
from homestretch.types import Completion, Example, ScoredCompletions, UserError

Array = NDArray[np.float64]

_SETTINGS_FILE = "ensemble.json"
_MEMBERS_DIR = "members"


class LearnedReward(Protocol):
    """What a run needs of the reward it learned, one model or several: a scorer, before and after calibration."""

    @property
    def lm(self) -> LanguageModel:
        """The model that it scores with, and the codec that says what it sees."""
        ...

    @property
    def calibration(self) -> Calibration:
        """From `raw` to the reward."""
        ...

    def raw(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """Scores before calibration, shape (n,)."""
        ...

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """Calibrated rewards, shape (n,): 0 is a reference's mean, 1 the SD over SFT samples."""
        ...


@dataclass(slots=True)
class RewardEnsemble:
    """Reward models as one `LearnedReward`; its own calibration puts what they come to on the scale that each has."""

    members: tuple[LearnedReward, ...]
    """Each calibrated by itself, so that they are on one scale."""
    left_out: tuple[tuple[str, ...], ...]
    """Per member the failure classes that it was not trained on."""
    disagreement_penalty: float
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def lm(self) -> LanguageModel:
        """The first member's. All members' are of one kind, and on a shared trunk they are the same."""
        return self.members[0].lm

    def rewards(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """What each member says, calibrated, shape (members, n)."""
        return np.stack([member(examples, completions) for member in self.members])

    def raw(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """`conservative` over the members' rewards, shape (n,)."""
        return conservative(self.rewards(examples, completions), self.disagreement_penalty)

    def log_odds(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """The mean of what the members say of good against bad, each by its own temperature, shape (n,)."""
        odds_MN = [m.raw(examples, completions) / m.calibration.temperature for m in self.members]
        return np.asarray(np.mean(odds_MN, axis=0), dtype=np.float64)

    def __call__(self, examples: Sequence[Example], completions: Sequence[Completion]) -> Array:
        """Calibrated rewards, shape (n,)."""
        return self.scored(examples, completions).scores

    def scored(self, examples: Sequence[Example], completions: Sequence[Completion]) -> ScoredCompletions:
        """The rewards; their terms are the members' mean and SD, in units of a member's reward."""
        rewards_MN = self.rewards(examples, completions)
        raw_N = conservative(rewards_MN, self.disagreement_penalty)
        return ScoredCompletions(
            self.calibration.reward(raw_N, word_counts(completions)),
            {"ensemble_mean": rewards_MN.mean(axis=0), "ensemble_sd": rewards_MN.std(axis=0)},
        )


def conservative(rewards_MN: Array, penalty: float) -> Array:
    """Mean - penalty * SD over the M members, shape (N,). SD is the population's: it divides by M.

    After the uncertainty-weighted objective of Coste et al. 2023 (arXiv 2310.02743), which takes the variance; the SD
    has the reward's unit. Two members at a penalty of 1 give the lower of the two.
    """
    result: Array = rewards_MN.mean(axis=0) - penalty * rewards_MN.std(axis=0)
    return result


def is_ensemble(path: Path) -> bool:
    """Whether the reward written here is an ensemble."""
    return (path / _SETTINGS_FILE).is_file()


def member_dir(path: Path, number: int) -> Path:
    """The folder of an ensemble's member, counted from 1."""
    return path / _MEMBERS_DIR / str(number)


def member_dirs(path: Path) -> list[Path]:
    """The folders of the reward models that the reward written here is made of: of an ensemble's members, or this one.

    UserError if a member is not there.
    """
    if not is_ensemble(path):
        return [path]
    folders = [member_dir(path, i + 1) for i in range(len(read_json(path / _SETTINGS_FILE)["left_out"]))]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: a member of the reward ensemble is missing; run `homestretch reward` again")
    return folders


def read_ensemble(path: Path, members: Sequence[LearnedReward]) -> RewardEnsemble:
    """The ensemble that was written here, of its members."""
    written = read_json(path / _SETTINGS_FILE)
    left_out = tuple(map(tuple, written["left_out"]))
    return RewardEnsemble(
        tuple(members), left_out, written["disagreement_penalty"], Calibration(**written["calibration"])
    )


def write_ensemble(ensemble: RewardEnsemble, folder: Path, path: Path) -> None:
    """Make the reward's folder at `path` of the members that were written below `folder`, which goes."""
    with atomic_dir(path) as temporary:
        (folder / _MEMBERS_DIR).rename(temporary / _MEMBERS_DIR)
        settings = {
            "schema": 1,
            "disagreement_penalty": ensemble.disagreement_penalty,
            "left_out": ensemble.left_out,
            "calibration": asdict(ensemble.calibration),
        }
        write_json(temporary / _SETTINGS_FILE, settings)
    shutil.rmtree(folder)
