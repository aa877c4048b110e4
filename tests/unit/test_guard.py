"""When RL is taken back or stops, which checkpoint it ships, and how often a clean run is disturbed."""

from __future__ import annotations

import numpy as np
import pytest

from homestretch.algorithms.guard import Band, Guard, Observation, Verdict
from homestretch.config import GuardConfig

RNG = np.random.default_rng(0)
BASE = RNG.random(50)
NOISE = RNG.normal(0, 0.1, (3, 50))
BANDS = {"density": Band(1.0, 3.0), "repetition_3": Band(0.0, 0.0)}


def see(guard: Guard, update: int, scores: np.ndarray, kl: float = 0.0, rewards: np.ndarray | None = None,
        held_out: np.ndarray | None = None, **statistics: np.ndarray) -> Verdict:  # fmt: skip
    seen = (np.zeros(0) if values is None else values for values in (rewards, held_out))
    return guard.observe(Observation(update, scores, *seen, statistics=statistics, kl=kl))


# --- the checkpoint, and the stops -----------------------------------------------------------------------------------


def test_the_best_held_out_score_is_shipped_and_ties_stay_with_the_earlier():
    guard = Guard(GuardConfig())
    verdicts = [see(guard, 0, BASE), see(guard, 5, BASE + 0.1), see(guard, 10, BASE + 0.1)]
    assert verdicts == [Verdict(True), Verdict(True), Verdict(False)]
    assert guard.best_update == 5


def test_too_much_kl_stops():
    guard = Guard(GuardConfig(max_kl=5))
    see(guard, 0, BASE)
    verdict = see(guard, 5, BASE + 0.1, kl=6.0)
    assert verdict.is_best
    assert verdict.alarm is None
    assert "rl.guard.max_kl=5" in (verdict.stop or "")


def test_patience_runs_out():
    guard = Guard(GuardConfig(patience=2))
    see(guard, 0, BASE)
    assert see(guard, 5, BASE).stop is None
    assert "2 validations" in (see(guard, 10, BASE).stop or "")


# --- alarms ----------------------------------------------------------------------------------------------------------


def test_a_significant_fall_is_an_alarm_with_its_numbers():
    guard = Guard(GuardConfig(), num_validations=4)
    see(guard, 0, BASE)
    verdict = see(guard, 5, BASE - 0.1 + NOISE[0])
    assert verdict.alarm is not None
    assert (verdict.alarm.kind, verdict.alarm.action, verdict.is_best) == ("drop", "rolled back", False)
    assert "standard errors) below its best, update 0" in verdict.alarm.sentence
    assert guard.best_update == 0


def test_a_fall_on_every_example_alike_needs_no_test():
    guard = Guard(GuardConfig())
    see(guard, 0, np.ones(20))
    verdict = see(guard, 5, np.zeros(20))
    assert verdict.alarm is not None
    assert "1.0000 (on every example alike)" in verdict.alarm.sentence
    assert see(Guard(GuardConfig()), 0, np.ones(1)).alarm is None


def test_noise_is_no_alarm():
    guard = Guard(GuardConfig())
    see(guard, 0, BASE)
    assert see(guard, 5, BASE + np.random.default_rng(1).normal(-0.001, 0.2, 50)).alarm is None


def test_a_smaller_fall_is_an_alarm_while_the_reward_rises():
    """1.8 standard errors: less than `max_drop_se`, more than chance; and only against a rising reward."""
    fall = NOISE[0] - NOISE[0].mean()
    fall -= 1.8 * fall.std(ddof=1) / np.sqrt(50)
    for rewards, kind in ((BASE + 0.5 + NOISE[1], "divergence"), (BASE - 0.5 + NOISE[1], None), (BASE, None)):
        guard = Guard(GuardConfig())
        see(guard, 0, BASE, rewards=BASE)
        alarm = see(guard, 5, BASE + fall, rewards=rewards).alarm
        assert (alarm.kind if alarm else None) == kind
        if alarm:
            assert "the reward rose 0.5" in alarm.sentence
            assert "the held-out score fell 0.02" in alarm.sentence


def falling(by: float, noise: np.ndarray) -> np.ndarray:
    """`BASE` lower by so many standard errors of the paired difference."""
    change = noise - noise.mean()
    return BASE + change - by * change.std(ddof=1) / np.sqrt(50)


def test_a_held_out_reward_that_falls_while_the_paid_one_rises():
    for rewards, held_out, kind in (
        (BASE + 0.5 + NOISE[1], falling(3, NOISE[0]), "held_out_reward"),
        (BASE + 0.5 + NOISE[1], BASE + 0.5 + NOISE[2], None),
        (BASE - 0.5 + NOISE[1], falling(3, NOISE[0]), None),
        (BASE, falling(3, NOISE[0]), None),
    ):
        guard = Guard(GuardConfig())
        see(guard, 0, BASE, rewards=BASE, held_out=BASE)
        alarm = see(guard, 5, BASE + 0.1, rewards=rewards, held_out=held_out).alarm
        assert (alarm.kind if alarm else None) == kind
        if alarm:
            assert "the reward rose 0.5" in alarm.sentence
            assert "(3.0 standard errors) since the best checkpoint, update 0" in alarm.sentence
            assert guard.best_update == 0  # though the held-out score rose


def test_two_judges_share_the_chance_of_error():
    """A fall of 1.8 standard errors: an alarm from the held-out score alone, and none beside a second judge."""
    for held_out, fires in ((None, True), (BASE, False)):
        guard = Guard(GuardConfig())
        see(guard, 0, BASE, rewards=BASE, held_out=held_out)
        verdict = see(guard, 5, falling(1.8, NOISE[0]), rewards=BASE + 0.5 + NOISE[1], held_out=held_out)
        assert (verdict.alarm is not None) == fires


def test_another_reward_is_compared_with_itself():
    """What the first reward gave the best checkpoint says nothing about a rise under the second."""
    for rescored, fires in ((BASE, True), (BASE + 0.6 + NOISE[1], False)):
        guard = Guard(GuardConfig(), num_validations=4)
        see(guard, 0, BASE, rewards=BASE)
        first = see(guard, 1, falling(4, NOISE[0]), rewards=BASE + 0.5 + NOISE[1]).alarm
        assert first is not None
        guard.answered("what it learned")
        guard.rescored(rescored)
        second = see(guard, 2, falling(3.3, NOISE[0]), rewards=BASE + 0.5 + NOISE[1]).alarm
        assert (second is not None and second.kind == "divergence") == fires
        assert [alarm.refresh for alarm in guard.state.alarms] == ["what it learned", ""][: 1 + (second is not None)]


@pytest.mark.parametrize(
    ("sft", "now", "fires"),
    [
        (2.0, 4.0, True),  # out at the top
        (2.0, 0.5, True),  # and at the bottom
        (2.0, 2.9, False),  # moved far, but within
        (6.0, 6.1, False),  # the SFT model itself is outside: the band includes it
        (6.0, 9.0, True),
        (6.0, 2.0, False),  # back to what references are like
    ],
)
def test_a_statistic_that_leaves_the_references_band(sft, now, fires):
    guard = Guard(GuardConfig(), num_validations=10, bands=BANDS)
    see(guard, 0, BASE, density=sft + NOISE[0])
    verdict = see(guard, 5, BASE + 0.2, density=now + NOISE[1])
    assert (verdict.alarm is not None) == fires
    if verdict.alarm:
        assert verdict.alarm.kind == "band"
        assert f"the mean density is {(now + NOISE[1]).mean():.3f}" in verdict.alarm.sentence
        assert guard.best_update == 0  # the best score by far, and still not the one to go back to


def test_references_that_are_all_alike_leave_some_room_and_undefined_values_are_left_out():
    guard = Guard(GuardConfig(), bands=BANDS)
    see(guard, 0, BASE, repetition_3=np.zeros(50), density=np.full(50, np.nan))
    few = np.where(np.arange(50) < 5, 0.3, 0.0)
    assert see(guard, 1, BASE, repetition_3=few, density=2 + NOISE[0]).alarm is None
    many = np.where(np.arange(50) < 25, 0.5, np.nan)
    assert see(guard, 2, BASE, repetition_3=many, density=np.full(50, np.nan)).alarm is not None


@pytest.mark.parametrize(
    ("max_alarms", "actions"),
    [(0, ["recorded"] * 3), (1, ["stopped"]), (2, ["rolled back", "stopped"]), (3, ["rolled back"] * 2 + ["stopped"])],
)
def test_which_alarm_ends_the_run(max_alarms, actions):
    guard = Guard(GuardConfig(max_alarms=max_alarms, patience=4), num_validations=4)
    see(guard, 0, BASE)
    for i, action in enumerate(actions):
        verdict = see(guard, i + 1, BASE - 0.2 + NOISE[i])
        assert verdict.alarm is not None
        assert verdict.alarm.action == action
        assert (verdict.stop is not None) == (action == "stopped")
    assert [alarm.action for alarm in guard.state.alarms] == actions
    assert guard.state.waited == (3 if max_alarms == 0 else 0)
    assert guard.best_update == 0


def test_going_back_gives_new_patience():
    guard = Guard(GuardConfig(patience=2), num_validations=4)
    see(guard, 0, BASE)
    see(guard, 1, BASE)
    see(guard, 2, BASE - 0.2 + NOISE[0])
    assert see(guard, 3, BASE).stop is None
    assert see(guard, 4, BASE).stop is not None


# --- how often it is wrong, and how often it misses ------------------------------------------------------------------

NUM_EXAMPLES, NUM_VALIDATIONS, NUM_RUNS = 200, 10, 200


def simulated_alarms(
    seed: int, *, fall: float = 0.0, rise: float = 0.5, sft_density: float = 2.0, held_out_fall: float | None = None
) -> bool:
    """Whether a run raises an alarm. Examples differ in difficulty, every validation adds its own noise, and the mean
    of the held-out score falls by `fall` a validation, that of a held-out reward, if there is one, by `held_out_fall`.
    The reward rises in every run, as it should: that is RL.
    """
    rng = np.random.default_rng(seed)
    difficulty, rewards = rng.normal(0.5, 0.2, NUM_EXAMPLES), rng.normal(0, 1, NUM_EXAMPLES)
    lengths, densities = rng.normal(1, 0.3, NUM_EXAMPLES), rng.normal(sft_density, 1, NUM_EXAMPLES)
    bands = {"relative_length": Band(0.6, 1.5), "density": Band(1.0, 3.0)}
    guard = Guard(GuardConfig(patience=100), num_validations=NUM_VALIDATIONS, bands=bands)
    for i in range(NUM_VALIDATIONS + 1):
        noise = rng.normal(0, 1, (4, NUM_EXAMPLES))
        judge = None if held_out_fall is None else rewards + rng.normal(0, 1, NUM_EXAMPLES) - held_out_fall * i
        verdict = see(
            guard, i, difficulty + 0.2 * noise[0] - fall * i, rewards=rewards + noise[1] + rise * i, held_out=judge,
            relative_length=lengths + 0.3 * noise[2], density=densities + noise[3],
        )  # fmt: skip
        if verdict.alarm:
            return True
    return False


@pytest.mark.parametrize("sft_density", [2.0, 6.0])
def test_a_clean_run_is_rarely_disturbed(sft_density):
    """At most 5 % of runs, whether the SFT model lies within the references' bands or not. docs/guard.md cites it."""
    rate = np.mean([simulated_alarms(seed, sft_density=sft_density) for seed in range(NUM_RUNS)])
    print(f"false alarms: {rate:.3f} of {NUM_RUNS} runs")
    assert rate <= 0.05


def test_a_clean_run_is_rarely_disturbed_by_a_held_out_reward():
    """The same with a second judge, whose mean does not move either. docs/guard.md cites it."""
    rate = np.mean([simulated_alarms(seed, held_out_fall=0.0) for seed in range(NUM_RUNS)])
    print(f"false alarms with a held-out reward: {rate:.3f} of {NUM_RUNS} runs")
    assert rate <= 0.05


@pytest.mark.parametrize("falls", [{"fall": 0.02}, {"held_out_fall": 0.1}])
def test_a_hacked_run_is_seen(falls):
    """A held-out score of 0.5 that loses 0.02 a validation, or a held-out reward that loses a tenth of the SD between
    examples: 1 standard error of a paired difference each."""
    assert np.mean([simulated_alarms(seed, **falls) for seed in range(100)]) >= 0.95


def test_a_checkpoint_with_an_alarm_is_never_the_best():
    guard = Guard(GuardConfig(max_alarms=0), bands=BANDS, num_validations=4)
    few, many = np.full(50, 0.0) + 0.001 * NOISE[0], np.full(50, 0.9) + 0.001 * NOISE[1]
    see(guard, 0, BASE, repetition_3=few)
    verdict = see(guard, 1, BASE + 0.1, repetition_3=many)
    assert verdict.alarm is not None
    assert (verdict.alarm.action, verdict.is_best, guard.best_update) == ("recorded", False, 0)
