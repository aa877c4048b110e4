"""Every key that a stage logs is documented on a page under docs/."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from homestretch.algorithms.learner import UpdateStats
from homestretch.scorers import STATISTICS

ROOT = Path(__file__).parents[2]
KEY = re.compile(r'"((?:sft|reward|rl|validation)/[a-z0-9_]+)"')


def test_every_logged_key_is_documented():
    logged = {f"rl/{field.name}" for field in fields(UpdateStats)} | {f"validation/{name}" for name in STATISTICS}
    for file in ("stages/sft", "rewards/training", "stages/rl"):
        source = (ROOT / f"src/homestretch/{file}.py").read_text(encoding="utf-8")
        logged |= set(KEY.findall(source))
    documented = set()
    for page in ROOT.glob("docs/**/*.md"):
        documented |= set(re.findall(r"`((?:sft|reward|rl|validation)/[a-z0-9_]+)`", page.read_text(encoding="utf-8")))
    assert len(logged) > 25
    assert not logged - documented
