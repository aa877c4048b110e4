"""The rule that finds the bad and the good among a model's own samples, and the drawing of these."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from homestretch.config import DataConfig, ModelConfig, NegativesConfig, OnPolicyConfig, RunConfig
from homestretch.rewards.on_policy import SampleVerdict, judge_samples, overlap_verdicts, sample_flags
from homestretch.rewards.own_samples import OwnSample, judged_samples, sample_at_temperatures
from homestretch.types import Completion, Example, FailureMode

EXAMPLE = Example("e", "Ada: at nine.", "Ada: at nine.", references=("Ada comes at nine.",), facts={"time": "nine"})


class Shouting(FailureMode):
    name = "shouting"

    def detect(self, example, completion):
        return float(completion.text.isupper())


class Undecided(FailureMode):
    name = "undecided"

    def detect(self, example, completion):
        return None


class Oracle(FailureMode):
    """A detector that would look at the exact facts if it could."""

    name = "oracle"

    def detect(self, example, completion):
        return None if not example.facts else float(example.facts["time"] not in completion.text)


def verdicts(texts, rouge_l, chrf, *, bad=0.2, good=0.2, terminated=None):
    completions = [
        Completion(text, terminated=t) for text, t in zip(texts, terminated or [True] * len(texts), strict=True)
    ]
    overlaps = (np.array(rouge_l, dtype=float), np.array(chrf, dtype=float))
    modes = [Shouting(), Undecided(), Oracle()]
    judged = judge_samples([EXAMPLE] * len(texts), completions, modes, overlaps, bad_fraction=bad, good_fraction=good)
    return [one.verdict for one in judged]


def test_the_bottom_on_both_overlaps_is_bad_and_the_top_on_both_is_good():
    scores = np.arange(10.0)
    assert overlap_verdicts(scores, scores * 3, bad_fraction=0.2, good_fraction=0.1) == [
        "bad", "bad", *["unused"] * 7, "good",
    ]  # fmt: skip


def test_a_sample_that_is_low_on_one_overlap_only_is_unused():
    rouge = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    chrf = np.array([9.0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
    found = overlap_verdicts(rouge, chrf, bad_fraction=0.1, good_fraction=0.1)
    assert found == ["unused", "bad", *["unused"] * 6, "good", "unused"]


def test_samples_that_all_tie_are_neither_bad_nor_good():
    assert set(overlap_verdicts(np.ones(8), np.ones(8), bad_fraction=0.5, good_fraction=0.5)) == {"unused"}


def test_a_collapsed_model_does_not_hide_by_tying():
    scores = np.array([0.0] * 6 + [1, 2, 3, 4])
    found = overlap_verdicts(scores, scores, bad_fraction=0.2, good_fraction=0.2)
    assert found == [*["bad"] * 6, "unused", "unused", "good", "good"]


def test_without_ties_each_side_has_no_more_than_its_fraction():
    draws = np.random.default_rng(0)
    for _ in range(20):
        rouge = draws.random(40)
        counts = Counter(overlap_verdicts(rouge, rouge**2, bad_fraction=0.25, good_fraction=0.5))
        assert (counts["bad"], counts["good"]) == (10, 20)


def test_overlaps_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        overlap_verdicts(np.ones(2), np.ones(3), bad_fraction=0.2, good_fraction=0.2)


def test_no_samples_give_no_verdicts():
    assert overlap_verdicts(np.zeros(0), np.zeros(0), bad_fraction=0.2, good_fraction=0.2) == []


def test_bad_needs_a_flag_and_good_needs_none():
    texts = ["LOW", "low", "mid", "mid", "mid", "mid", "mid", "mid", "HIGH", "high"]
    found = verdicts(texts, range(10), range(10))
    assert found == ["bad", "unused", *["unused"] * 6, "unused", "good"]


def test_an_empty_sample_is_flagged():
    assert verdicts(["  ", *["mid"] * 9], range(10), range(10))[0] == "bad"


def test_an_unterminated_sample_is_bad_whatever_its_overlap():
    terminated = [True] * 9 + [False]
    assert verdicts(["mid"] * 10, range(10), range(10), terminated=terminated)[-1] == "bad"


def test_exact_facts_are_hidden_from_the_detectors():
    assert Oracle().detect(EXAMPLE, Completion("at ten")) == 1.0
    assert sample_flags(EXAMPLE, Completion("at ten"), [Oracle()]) == ()


def test_flags_name_what_fired():
    assert sample_flags(EXAMPLE, Completion("AT", terminated=False), [Shouting(), Undecided()]) == (
        "shouting",
        "unterminated",
    )


# --- drawing ---


def recipe(samples_per_prompt, temperatures):
    return RunConfig(
        data=DataConfig(task="chats", max_completion_tokens=16),
        model=ModelConfig(path="model"),
        negatives=NegativesConfig(
            on_policy=OnPolicyConfig(samples_per_prompt=samples_per_prompt, temperatures=temperatures)
        ),
    )


def fake_generate(calls):
    def generate(lm, examples, *, max_new_tokens, batch_size, sampling, num_samples, seed, description):
        calls.append((sampling, num_samples, max_new_tokens, seed))
        draws = np.random.default_rng(seed)
        return [[Completion(f"{e.id} {draws.integers(10**9)}") for _ in range(num_samples)] for e in examples]

    return generate


@pytest.mark.parametrize(
    ("k", "temperatures"), [(4, (0.7, 1.0, 1.3)), (2, (0.7, 1.0, 1.3)), (3, (1.0,)), (1, (0.5, 1.5))]
)
def test_every_prompt_gets_its_samples_and_every_temperature_its_share(monkeypatch, k, temperatures):
    calls = []
    monkeypatch.setattr("homestretch.rollouts.sampler.generate", fake_generate(calls))
    examples = [Example(f"e{i}", "s", "s", references=("r",)) for i in range(12)]
    samples = sample_at_temperatures(None, examples, recipe(k, temperatures), description="own")
    assert Counter(sample.example.id for sample in samples) == {f"e{i}": k for i in range(12)}
    shares = Counter(sample.temperature for sample in samples)
    assert set(shares) == set(temperatures)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert len({sample.completion.text for sample in samples}) == len(samples)
    assert all(max_new_tokens == 16 for _, _, max_new_tokens, _ in calls)
    assert len({seed for *_, seed in calls}) == len(calls)


def test_rows_say_how_the_sample_was_drawn_and_leave_references_out():
    texts = ["BAD", "fine", "Ada comes at nine.", "BAD", "so so"]
    found = ["bad", "good", "good", "bad", "unused"]
    samples = [OwnSample(EXAMPLE, Completion(text, ids=(1, 2)), 0.7, 5) for text in texts]
    flagged = [SampleVerdict(verdict, ("shouting",) if verdict == "bad" else ()) for verdict in found]
    rows = judged_samples(samples, flagged, np.full(5, 0.25), np.full(5, 0.5))
    assert [(row.mode, row.label, row.completion.text) for row in rows] == [
        ("on_policy", 0.0, "BAD"),
        ("on_policy_positive", 1.0, "fine"),
    ]
    assert rows[0].note == "T 0.7, ROUGE-L 0.25, chrF 0.50, flags: shouting"
    assert "soft positive" in rows[1].note
    assert rows[0].span == (0, 3)
    assert rows[0].completion.ids == ()


def test_an_unterminated_reference_is_kept_as_a_negative():
    sample = OwnSample(EXAMPLE, Completion(EXAMPLE.reference, terminated=False), 1.0, 0)
    rows = judged_samples([sample], [SampleVerdict("bad", ("unterminated",))], np.ones(1), np.ones(1))
    assert [(row.mode, row.completion.terminated) for row in rows] == [("on_policy", False)]
