"""The tests and intervals against hand-worked numbers, plain loops, scipy, and their own promise under the null."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from homestretch.ops.significance import (
    bootstrap_interval,
    effect_size,
    equivalence,
    holm,
    mcnemar,
    paired_randomization,
    wilson_interval,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_randomization_is_exact_for_few_examples() -> None:
    differences = [0.3, -0.1, 0.2, 0.2, 0.4, 0.0]
    extreme = 0
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    for signs in patterns:
        total = sum(sign * value for sign, value in zip(signs, differences, strict=True))
        extreme += abs(total) >= abs(sum(differences)) - 1e-9
    p = paired_randomization(differences, num_resamples=100, rng=rng())
    assert p == pytest.approx(extreme / len(patterns))


def test_randomization_agrees_with_scipy() -> None:
    differences = rng(1).normal(0.2, 1.0, size=80)
    ours = paired_randomization(differences, num_resamples=20_000, rng=rng(2))
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, n_resamples=20_000, batch=500, rng=rng(3)
    ).pvalue
    assert 0.01 < ours < 0.5
    assert ours == pytest.approx(theirs, abs=0.015)


def test_randomization_counts_as_a_plain_loop_does() -> None:
    differences = rng(4).normal(0.1, 1.0, size=40)
    generator = rng(5)
    extreme = 0
    for _ in range(3000):
        signs = np.where(generator.random(40) < 0.5, 1, -1)
        extreme += abs((signs * differences).mean()) >= abs(differences.mean())
    p = paired_randomization(differences, num_resamples=3000, rng=rng(6))
    assert p == pytest.approx((extreme + 1) / 3001, abs=0.04)


def test_randomization_never_gives_zero() -> None:
    assert paired_randomization(np.ones(100), num_resamples=999, rng=rng()) == 1 / 1000


@pytest.mark.parametrize("differences", [[], [0.0, 0.0]])
def test_randomization_without_a_difference_is_one(differences: list[float]) -> None:
    assert paired_randomization(differences, num_resamples=100, rng=rng()) == 1.0


def test_randomization_is_unchanged_by_zeros_sign_and_scale() -> None:
    differences = rng(7).normal(0.3, 1.0, size=12)
    p = paired_randomization(differences, num_resamples=5000, rng=rng())
    assert paired_randomization([*differences, 0.0, 0.0], num_resamples=5000, rng=rng()) == p
    assert paired_randomization(-1000 * differences, num_resamples=5000, rng=rng()) == p


@pytest.mark.parametrize("n", [9, 60])
def test_randomization_is_uniform_under_the_null(n: int) -> None:
    """Skewed scores of two exchangeable systems; exact enumeration (n = 9) and sampled patterns (n = 60)."""
    generator = rng(8)
    p_values = []
    for _ in range(400):
        differences = generator.exponential(size=n) - generator.exponential(size=n)
        p_values.append(paired_randomization(differences, num_resamples=599, rng=generator))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_randomization_finds_a_real_difference() -> None:
    generator = rng(9)
    p_values = [
        paired_randomization(generator.normal(0.5, 1.0, size=60), num_resamples=999, rng=generator) for _ in range(50)
    ]
    assert np.mean(np.array(p_values) < 0.05) > 0.85


@pytest.mark.parametrize("draw", ["exponential", "normal"])
def test_bootstrap_interval_covers_the_mean(draw: str) -> None:
    """Near 95 % for n = 60: BCa is known to fall a little short on skewed data, so 91-98 % is asked for."""
    generator = rng(10)
    mean = {"exponential": 1.0, "normal": 0.0}[draw]
    hits = 0
    for _ in range(400):
        interval = bootstrap_interval(
            getattr(generator, draw)(size=60), confidence=0.95, num_resamples=500, rng=generator
        )
        hits += interval.low <= mean <= interval.high
    assert 0.91 <= hits / 400 <= 0.98


def test_bootstrap_interval_is_scipys() -> None:
    values = rng(11).gamma(2.0, size=50)
    ours = bootstrap_interval(values, confidence=0.9, num_resamples=20_000, rng=rng(12))
    theirs = stats.bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=20_000, rng=rng(13))
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.03)
    assert ours.low < values.mean() < ours.high


def test_bootstrap_interval_widens_with_confidence() -> None:
    values = rng(14).normal(size=50)
    wide = bootstrap_interval(values, confidence=0.99, num_resamples=2000, rng=rng())
    narrow = bootstrap_interval(values, confidence=0.8, num_resamples=2000, rng=rng())
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[0.1] * 9, [0.0] * 500, [0.7], [1, 0], [0, 0, 0, 1], [0.0] * 499 + [1.0]])
def test_bootstrap_interval_of_degenerate_data_is_finite_and_silent(values: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = bootstrap_interval(values, confidence=0.95, num_resamples=1000, rng=rng())
    assert np.isfinite(interval).all()
    assert interval.low <= np.mean(values) <= interval.high
    if len(set(values)) == 1:
        assert interval == (np.mean(values), np.mean(values))


def test_holm_by_hand() -> None:
    # Sorted: .005 x 4 = .02; .01 x 3 = .03; .03 x 2 = .06; .04 x 1 = .04, raised to the .06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.5, 0.9]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_as_the_step_down_procedure_does() -> None:
    generator = rng(15)
    for _ in range(200):
        p_values = generator.random(6) ** 3
        rejected = set()
        for step, i in enumerate(np.argsort(p_values)):
            if p_values[i] > 0.05 / (6 - step):
                break
            rejected.add(int(i))
        assert {i for i, p in enumerate(holm(list(p_values))) if p <= 0.05} == rejected


def test_holm_refuses_what_is_no_p_value() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([0.5, 1.5])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([float("nan")])


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(5, 1) == mcnemar(1, 5)
    assert mcnemar(3, 3) == 1.0


def test_wilson_interval_by_its_formula() -> None:
    z = stats.norm.ppf(0.975)
    centre = (7 / 50 + z**2 / 100) / (1 + z**2 / 50)
    half = z * np.sqrt(0.14 * 0.86 / 50 + z**2 / (4 * 50**2)) / (1 + z**2 / 50)
    assert wilson_interval(7, 50, confidence=0.95) == pytest.approx((centre - half, centre + half))
    assert wilson_interval(0, 20, confidence=0.95).low == 0.0


def test_equivalence_is_two_one_sided_t_tests() -> None:
    differences = rng(16).normal(0.002, 0.02, size=100)
    error = differences.std(ddof=1) / 10
    above = stats.t.sf((differences.mean() + 0.01) / error, 99)
    below = stats.t.cdf((differences.mean() - 0.01) / error, 99)
    assert equivalence(differences, margin=0.01) == pytest.approx(max(above, below))
    assert equivalence(differences, margin=0.01) < 0.05 < equivalence(differences + 0.01, margin=0.01)


def test_equivalence_at_the_margin_errs_at_its_level() -> None:
    generator = rng(17)
    p_values = [equivalence(generator.normal(0.5, 1.0, size=200), margin=0.5) for _ in range(1000)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_equivalence_without_spread() -> None:
    assert equivalence([0.0] * 5, margin=0.01) == 0.0
    assert equivalence([0.02] * 5, margin=0.01) == 1.0
    assert equivalence([0.0], margin=0.01) == 1.0
    with pytest.raises(ValueError, match="margin"):
        equivalence([0.0, 0.1], margin=0.0)


def test_effect_size() -> None:
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert effect_size([0.0, 0.0]) == 0.0
    assert effect_size([0.1, 0.1, 0.1]) is None
    assert effect_size([0.5]) is None


def test_undefined_scores_are_refused() -> None:
    for function in (effect_size, lambda values: equivalence(values, margin=1.0)):
        with pytest.raises(ValueError, match="NaN"):
            function([0.1, float("nan")])
    with pytest.raises(ValueError, match="NaN"):
        paired_randomization([float("inf")], num_resamples=10, rng=rng())
    with pytest.raises(ValueError, match="dimension"):
        bootstrap_interval([[1.0, 2.0]], confidence=0.95, num_resamples=10, rng=rng())
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([], confidence=0.95, num_resamples=10, rng=rng())


def test_the_same_generator_gives_the_same_numbers() -> None:
    values = rng(18).normal(size=40)
    assert paired_randomization(values, num_resamples=500, rng=rng(1)) == paired_randomization(
        values, num_resamples=500, rng=rng(1)
    )
    assert bootstrap_interval(values, confidence=0.95, num_resamples=500, rng=rng(1)) == bootstrap_interval(
        values, confidence=0.95, num_resamples=500, rng=rng(1)
    )
