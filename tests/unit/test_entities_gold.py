"""The rules against our own gold file: how much they find, and how much of it is right, by kind."""

from __future__ import annotations

import pytest

from benchmarks.entities import GOLD, KINDS, Tally, gold_tallies, read_gold, tally
from homestretch.console import table
from homestretch.finder import Finder, load_find

ROWS = read_gold(GOLD)
FLOORS = {
    "name": (0.88, 0.73),
    "number": (0.74, 0.80),
    "money": (0.88, 0.88),
    "date": (0.92, 0.89),
    "time": (0.95, 0.82),
    "all": (0.87, 0.79),
}
"""Precision and recall of mentions found to the letter, 0.03 or more below what is measured (docs/entities.md)."""


def test_the_gold_file_is_well_formed() -> None:
    assert len({row["text"] for row in ROWS}) == len(ROWS) >= 120
    counts = dict.fromkeys(KINDS, 0)
    for row in ROWS:
        end = 0
        for start, stop, kind in row["mentions"]:
            assert end <= start < stop <= len(row["text"]), row["text"]
            assert row["text"][start:stop] == row["text"][start:stop].strip(), row["text"]
            counts[kind] += 1
            end = stop
        assert all(word in row["text"].casefold() for word in row.get("lexicon", [])), row["text"]
    assert sum(counts.values()) >= 400
    assert min(counts.values()) >= 25


@pytest.fixture(scope="module")
def measured() -> dict[str, Tally]:
    tallies = gold_tallies(ROWS, Finder(frozenset(), load_find("rules")))
    rows = [[kind, *(f"{value:.3g}" for value in counts.record().values())] for kind, counts in tallies.items()]
    table("rules, on tests/unit/entities_gold.jsonl", ["kind", *tallies["all"].record()], rows)
    return tallies


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_precision_and_recall_do_not_fall(measured: dict[str, Tally], kind: str) -> None:
    counts = measured[kind]
    precision, recall = counts.exact / counts.found, counts.exact / counts.gold
    assert precision >= FLOORS[kind][0]
    assert recall >= FLOORS[kind][1]
    assert precision < FLOORS[kind][0] + 0.12, "the floor is far below what is measured: raise it"


def test_the_tally_counts_spans_and_kinds() -> None:
    gold = [(0, 3, "name"), (10, 12, "number"), (20, 25, "date")]
    found = [(0, 3, "name"), (10, 14, "number"), (20, 25, "time"), (30, 31, "name")]
    counts = tally([(gold, found)])
    assert (counts["name"].gold, counts["name"].found, counts["name"].exact) == (1, 2, 1)
    assert (counts["number"].exact, counts["number"].gold_touched, counts["number"].found_right) == (0, 1, 1)
    assert (counts["date"].gold, counts["date"].gold_touched) == (1, 0), "a wrong kind is a miss"
    assert (counts["all"].gold, counts["all"].found, counts["all"].exact) == (3, 4, 1)


def test_the_interval_is_wilson_s() -> None:
    record = tally([([(i, i + 1, "name") for i in range(10)], [(i, i + 1, "name") for i in range(8)])])["name"].record()
    n, p, z = 10, 0.8, 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert record["recall_low"] == pytest.approx(centre - half, abs=1e-4)
    assert record["recall_high"] == pytest.approx(centre + half, abs=1e-4)
    assert record["precision"] == 1.0
