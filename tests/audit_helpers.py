"""Documents, classes and rewards with known answers, for tests of the audit."""

from __future__ import annotations

import numpy as np

from homestretch.audit_findings import WARNING, audit_lines
from homestretch.rewards.audit import (
    AuditSamples,
    audit,
)
from homestretch.types import Completion, Example, Judged

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
PLACES = ("the library", "the old harbour", "a bakery", "the gym", "the museum")


def array(*values):
    return np.array(values, dtype=np.float64)


def rng():
    return np.random.default_rng(0)


def make_examples(n, start=0):
    """Documents that say who meets whom where on which day; every day is as likely."""
    draws = np.random.default_rng([7, start])
    examples = []
    for i in range(start, start + n):
        a, b = draws.choice(PEOPLE, size=2, replace=False)
        day, place = draws.choice(DAYS), draws.choice(PLACES)
        source = f"{a}: shall we meet at {place} on {day}?\n{b}: yes, fine."
        examples.append(Example(f"d{i}", source, source, references=(f"{a} and {b} meet at {place} on {day}.",)))
    return examples


def with_class(examples, mode, edit):
    """A reference and one edited negative per document."""
    rows = []
    for example in examples:
        rows.append(Judged(example.id, Completion(example.reference), "reference", 1.0))
        rows.append(Judged(example.id, Completion(edit(example)), mode, 0.0))
    return rows


def other_day(example):
    draws = np.random.default_rng([11, int(example.id[1:])])
    day = next(day for day in DAYS if day in example.reference)
    return example.reference.replace(day, str(draws.choice([d for d in DAYS if d != day])))


def oracle(examples, completions):
    """1 if the day is the source's, minus 1 without a terminator."""
    scores = [
        float(any(day in e.source and day in c.text for day in DAYS)) - (not c.terminated)
        for e, c in zip(examples, completions, strict=True)
    ]
    return np.array(scores)


def run_audit(reward, *, n=60, edit=other_day, mode="wrong_day", metrics=(), samples=None, **extra):
    examples, train = make_examples(n), make_examples(150, start=1000)
    if samples is None:
        samples = [[Completion(e.reference), Completion(other_day(e)), Completion("Nothing.")] for e in examples]
    rows, train_rows = with_class(examples, mode, edit), with_class(train, mode, edit)
    return audit_of(reward, examples, rows, train_rows, samples, metrics=metrics, **extra)


def audit_of(reward, examples, rows, train_rows, samples=(), metrics=(), **extra):
    return audit(
        reward,
        examples=examples,
        judged=rows,
        train_judged=train_rows,
        samples=AuditSamples(examples[: len(samples)], samples, [group[0] for group in samples]),
        metrics=metrics,
        temperature=1.0,
        seed=0,
        **extra,
    )


def warnings_of(result):
    return [line for line in audit_lines(result) if line.startswith(WARNING)]
