"""Differences over seeds: against scipy and by hand, and how often they are wrong where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import f, ttest_1samp

from benchmarks.studies.seeds import across_seeds, of_these_models

SETTINGS = {"confidence": 0.95, "num_resamples": 500}


def own_examples(num_seeds, n):
    return [[(seed, i) for i in range(n)] for seed in range(num_seeds)]


def test_seeds_with_examples_of_their_own_are_a_t_test_on_their_means():
    rng = np.random.default_rng(0)
    differences = [rng.normal(0.1 * seed, 1, n) for seed, n in enumerate((30, 50, 40, 20))]
    keys = [[(seed, i) for i in range(len(values))] for seed, values in enumerate(differences)]
    found = across_seeds(differences, keys, confidence=0.9)
    expected = ttest_1samp([values.mean() for values in differences], 0)
    interval = expected.confidence_interval(0.9)
    assert found["p"] == pytest.approx(expected.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["mean"] == pytest.approx(np.mean([values.mean() for values in differences]))


def test_shared_examples_add_the_variance_between_them_as_min_f_does():
    values_SN = np.random.default_rng(1).normal(0.3, 1, (4, 25)) + np.random.default_rng(2).normal(0, 1, 25)
    found = across_seeds(list(values_SN), [range(25)] * 4, confidence=0.95)
    by_seeds = ttest_1samp(values_SN.mean(1), 0).statistic ** 2
    by_examples = ttest_1samp(values_SN.mean(0), 0).statistic ** 2
    min_f = by_seeds * by_examples / (by_seeds + by_examples)
    degrees = (by_seeds + by_examples) ** 2 / (by_seeds**2 / 24 + by_examples**2 / 3)
    assert found["p"] == pytest.approx(f.sf(min_f, 1, degrees))


def test_sign_flips_are_counted_over_seeds_and_a_single_seed_claims_nothing():
    differences = [np.array([0.1, 0.3]), np.array([0.2, 0.2]), np.array([0.4, 0.1])]
    assert across_seeds(differences, own_examples(3, 2), confidence=0.95)["p_sign_flip"] == 2 / 2**3
    alone = across_seeds(differences[:1], own_examples(1, 2), confidence=0.95)
    assert alone == {"mean": pytest.approx(0.2), "low": None, "high": None, "p": None, "p_sign_flip": None}


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.2, 0.0)])
def test_differences_that_are_all_alike_decide_the_question(value, p):
    found = across_seeds([np.full(3, value)] * 2, own_examples(2, 3), confidence=0.95)
    assert (found["p"], found["low"], found["high"]) == pytest.approx((p, value, value))


def test_one_example_that_two_seeds_have_changes_next_to_nothing():
    differences = [np.random.default_rng(seed).normal(0, 1, 200) for seed in range(3)]
    keys = own_examples(3, 200)
    apart = across_seeds(differences, keys, confidence=0.95)
    keys[1][0] = keys[0][0]
    assert across_seeds(differences, keys, confidence=0.95)["p"] == pytest.approx(apart["p"], abs=0.01)


@pytest.mark.parametrize(("examples", "shared", "least"), [(0.0, 0.0, 0.03), (1.0, 1.0, 0.005), (1.0, 0.5, 0.005)])
def test_where_nothing_differs_p_is_rarely_small(examples, shared, least):
    """Seeds differ (SD .3), and examples do (`examples`), of which each seed draws a share from one pool."""
    rng, num, n, pool, found = np.random.default_rng(3), 3, 40, 80, []
    for _ in range(600):
        of_pool = rng.normal(0, examples, pool)
        differences, keys = [], []
        for seed in range(num):
            picked = rng.permutation(pool)[:n] if shared < 1 else np.arange(n)
            differences.append(rng.normal(0, 0.3) + of_pool[picked] + rng.normal(0, 1, n))
            keys.append([int(i) if shared else (seed, int(i)) for i in picked])
        found.append(across_seeds(differences, keys, confidence=0.95)["p"])
    rate = np.mean(np.array(found) < 0.05)
    print(f"p < .05 in {rate:.1%}")
    assert least <= rate <= 0.07


def test_models_alone_forget_that_seeds_differ():
    """Where only seeds vary, the p of these models is small in far more than 5 % of studies: why both are told."""
    rng, small = np.random.default_rng(4), 0
    for _ in range(100):
        differences = [rng.normal(0, 0.5) + rng.normal(0, 1, 40) for _ in range(3)]
        small += of_these_models(differences, own_examples(3, 40), confidence=0.95, num_resamples=200)["p"] < 0.05
    assert small > 30


def test_a_shared_example_is_drawn_with_all_its_differences():
    same = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    together = of_these_models([same, same], [range(8)] * 2, **SETTINGS)
    alone = of_these_models([same], [range(8)], **SETTINGS)
    apart = of_these_models([same, same], own_examples(2, 8), **SETTINGS)
    assert together == alone
    assert apart["high"] - apart["low"] < alone["high"] - alone["low"]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = np.mean(np.abs(same @ signs) >= abs(same.sum()) - 1e-9)
    assert alone["p"] == pytest.approx(exact)
