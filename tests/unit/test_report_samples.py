"""The report's samples and negatives: what is kept, cut and marked."""

from __future__ import annotations

import json
import re

import numpy as np

from homestretch.report.formatting import clean
from homestretch.report.negatives import negative_classes
from homestretch.report.samples import MAX_SAMPLES, TEXT_BUDGET, browser, browser_json
from report_run import HOSTILE, fake_negatives, fake_samples, fake_scores


def test_sample_json_survives_and_cannot_end_its_element() -> None:
    rows = fake_samples(len(HOSTILE), np.random.default_rng(0), HOSTILE)
    view = browser(rows, fake_scores(rows), 0.5)
    text = browser_json(view)
    assert not re.search("[<>&\u2028\u2029]", text)
    data = json.loads(text)
    for row, sample in zip(rows, data["samples"], strict=True):
        outputs = {data["arms"][o[0]]: o for o in sample["outputs"]}
        assert outputs["rl/raw"][1] == clean(row["arms"]["rl/raw"]["text"])
        assert sample["source"] == clean(row["source"])
        flags = {mode for mode, severity in row["arms"]["rl/raw"]["flags"].items() if severity >= 0.5}
        assert {data["modes"][i] for i in outputs["rl/raw"][3]} == flags
        assert bool(outputs["rl/raw"][2]) == row["arms"]["rl/raw"]["terminated"]


def test_long_sources_are_cut_and_many_samples_thinned() -> None:
    rows = fake_samples(MAX_SAMPLES + 200, np.random.default_rng(0))
    rows[0]["source"] = "x" * 2 * TEXT_BUDGET
    view = browser(rows, None, 0.5)
    assert (len(view.samples), view.total) == (MAX_SAMPLES, MAX_SAMPLES + 200)
    assert len({sample.id for sample in view.samples}) == MAX_SAMPLES
    assert view.samples[0].cut == 2 * TEXT_BUDGET - TEXT_BUDGET // MAX_SAMPLES
    assert view.samples[1].cut == 0


def test_negative_classes_count_and_mark_the_edit() -> None:
    classes = {c.name: c for c in negative_classes(fake_negatives("train", 30), fake_negatives("validation", 7))}
    assert next(iter(classes)) == "reference"
    swap = classes["wrong_entity"]
    assert (swap.label, swap.num_train, swap.num_validation, len(swap.examples)) == ("negative", 30, 7, 3)
    assert {(e.before, e.span, e.after[:5]) for e in swap.examples} == {("Ada and ", "Cleo", " will")}
    assert len({e.example_id for e in swap.examples}) == 3
    gap = classes["omission"].examples[0]
    assert (gap.span, gap.has_edit) == ("", True)
    assert (classes["truncation"].num_unterminated, classes["reference"].examples) == (30, ())
