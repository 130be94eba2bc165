"""Intervals cover what they promise, and differences are paired by rounds. Nothing here has a clock."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import (
    MINIMUM_PAIRS,
    PERCENTILES,
    bootstrap_ci95,
    drift,
    median_ci95,
    median_over_rounds,
    noise_floor,
    paired_difference,
    percentile_ci95,
    repeat_gain,
    summarise,
)

SECONDS = st.floats(min_value=1e-6, max_value=1e3)
ROUNDS = st.lists(st.lists(SECONDS, min_size=1, max_size=5), min_size=MINIMUM_PAIRS, max_size=14)


def enough(covered: int, trials: int, rate: float) -> bool:
    """Whether a share of covered trials is `rate`, but for three standard errors."""
    return covered / trials >= rate - 3 * math.sqrt(rate * (1 - rate) / trials)


def simulated_rounds(
    generator: np.random.Generator, rounds: int, samples: int, *, within: float = 0.01
) -> list[list[float]]:
    """Processes that differ from each other by 3 %, and their samples by `within`: log-normal around 1."""
    return [np.exp(generator.normal(shift, within, samples)).tolist() for shift in generator.normal(0, 0.03, rounds)]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, (1, 1)),
        (5, (1, 5)),  # no 95 % interval exists: the whole range
        (6, (1, 6)),
        (10, (2, 9)),  # tables of the sign test: P(2 <= B <= 8) = 0.979
        (64, (24, 41)),
        (100, (40, 61)),
    ],
)
def test_median_ci95_takes_the_tabled_ranks(n: int, expected: tuple[int, int]) -> None:
    assert median_ci95(list(range(n, 0, -1))) == expected


@pytest.mark.parametrize("n", [9, 64])
def test_median_ci95_covers_the_median(n: int) -> None:
    generator = np.random.default_rng(2012)
    trials = 2000
    median = math.log(2)  # of the skewed exponential distribution
    covered = 0
    for sample in generator.exponential(size=(trials, n)):
        low, high = median_ci95(sample.tolist())
        covered += low <= median <= high
    assert enough(covered, trials, 0.95)


def test_median_over_rounds_covers_although_processes_differ() -> None:
    generator = np.random.default_rng(2012)
    trials, covered, pooled = 1000, 0, 0
    for _ in range(trials):
        rounds = simulated_rounds(generator, 12, 40)
        low, high = median_over_rounds(rounds)[1]
        covered += low <= 1.0 <= high
        low, high = median_ci95([value for samples in rounds for value in samples])
        pooled += low <= 1.0 <= high
    assert enough(covered, trials, 0.95)
    assert pooled / trials < 0.8  # what an interval over samples would have promised


def test_percentile_ci95_moves_with_the_rounds() -> None:
    generator = np.random.default_rng(2012)
    trials, covered = 200, 0
    truth = float(np.quantile(np.concatenate(simulated_rounds(generator, 10_000, 20, within=0.2)), 0.9))
    for seed in range(trials):
        interval = percentile_ci95(simulated_rounds(generator, 12, 60, within=0.2), 0.9, seed=seed)
        assert interval is not None
        covered += interval[0] <= truth <= interval[1]
    assert enough(covered, trials, 0.95)


def test_percentile_of_one_round_has_no_interval() -> None:
    assert percentile_ci95([[1.0, 2.0], []], 0.9, seed=1) is None


@pytest.mark.parametrize("true_share", [0.0, 0.05])
def test_paired_difference_covers_the_difference_in_99_percent(true_share: float) -> None:
    generator = np.random.default_rng(2012)
    trials, covered = 1000, 0
    for _ in range(trials):
        theirs = simulated_rounds(generator, 12, 5)
        mine = [[value * (1 + true_share) for value in samples] for samples in simulated_rounds(generator, 12, 5)]
        found = paired_difference(mine, theirs)
        assert found is not None
        covered += found.ci99[0] <= true_share <= found.ci99[1]
    assert enough(covered, trials, 0.99)


def test_paired_difference_cancels_what_slows_both() -> None:
    machine = [1.0, 1.7, 1.0, 1.1, 1.7, 1.0, 1.2, 1.0, 1.6, 1.0]
    theirs = [[speed] for speed in machine]
    found = paired_difference([[1.1 * speed] for speed in machine], theirs)
    assert found is not None
    assert (found.relative, *found.ci99) == pytest.approx((0.1, 0.1, 0.1))


def test_one_disturbed_round_moves_little() -> None:
    theirs = [[1.0]] * 12
    mine = [[1.02 + 0.001 * i] for i in range(11)] + [[5.0]]
    found = paired_difference(mine, theirs)
    assert found is not None
    assert 0.02 < found.relative < 0.035
    assert found.ci99[0] > 0.02


@given(ROUNDS, st.floats(min_value=0.1, max_value=10))
def test_paired_difference_is_antisymmetric_and_knows_no_unit(rounds: list[list[float]], unit: float) -> None:
    theirs = [[1.0 + 0.01 * i] for i in range(len(rounds))]
    found, turned = paired_difference(rounds, theirs), paired_difference(theirs, rounds)
    scaled = paired_difference(*([[unit * v for v in s] for s in side] for side in (rounds, theirs)))
    assert found is not None
    assert turned is not None
    assert scaled is not None
    assert 1 + turned.relative == pytest.approx(1 / (1 + found.relative))
    assert 1 + turned.ci99[0] == pytest.approx(1 / (1 + found.ci99[1]))
    assert scaled.relative == pytest.approx(found.relative)
    assert found.ci99[0] <= found.relative <= found.ci99[1]


def test_rounds_that_are_empty_on_one_side_are_left_out() -> None:
    theirs: list[list[float]] = [[1.0]] * MINIMUM_PAIRS + [[]]
    mine = [[2.0]] * MINIMUM_PAIRS + [[99.0]]
    found = paired_difference(mine, theirs)
    assert found is not None
    assert found.relative == pytest.approx(1.0)
    assert paired_difference(mine[1:], theirs[1:]) is None


def test_summarise_keeps_samples_and_rounds_in_order() -> None:
    latency = summarise([[3.0, 1.0], [], [2.0, 5.0, 4.0]])
    assert latency.samples == (3.0, 1.0, 2.0, 5.0, 4.0)
    assert latency.by_round == ((3.0, 1.0), (), (2.0, 5.0, 4.0))
    assert (latency.median, latency.n, latency.ci95) == (3.0, 5, (2.0, 4.0))
    assert latency.percentiles == {}


def test_one_round_is_judged_by_its_samples() -> None:
    latency = summarise([[3.0, 1.0, 2.0, 5.0, 4.0]])
    assert (latency.median, latency.ci95) == (3.0, (1.0, 5.0))


@pytest.mark.parametrize(("n", "names"), [(63, []), (64, ["p90"]), (130, ["p90", "p95"]), (662, list(PERCENTILES))])
def test_percentiles_need_their_samples(n: int, names: list[str]) -> None:
    latency = summarise([[float(i) for i in range(1, n + 1)]])
    assert list(latency.percentiles) == names
    if names:
        assert latency.percentiles["p90"].seconds == pytest.approx(0.9 * n + 0.1)


def test_summarise_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([[], []])


def test_drift_compares_halves_in_time_order() -> None:
    assert drift([[1.0, 1.0, 1.1, 1.1]]) == pytest.approx(0.1)
    assert drift([[1.1, 1.1, 1.0, 1.0]]) == pytest.approx(0.1)
    assert drift([[1.0, 9.0, 1.0]]) == 0.0  # the middle one belongs to neither half
    assert drift([[1.0]]) == drift([[]]) == drift([]) == 0.0


def test_drift_is_within_rounds_and_not_between_them() -> None:
    assert drift([[1.0, 1.0], [2.0, 2.0]]) == 0.0
    assert drift([[1.0, 1.2], [2.0, 2.4], [1.0, 1.2]]) == pytest.approx(0.2)


def test_repeat_gain_is_what_a_repeated_image_saves_for_sure() -> None:
    fresh = [[2.0, 2.2]] * 12
    assert repeat_gain(fresh, [[0.021]] * 12) == pytest.approx(0.99)
    generator = np.random.default_rng(2012)
    assert repeat_gain(simulated_rounds(generator, 12, 15), simulated_rounds(generator, 12, 90)) < 0.05
    assert repeat_gain([[2.0]] * 7, [[1.0]] * 7) == repeat_gain([], [[1.0]]) == repeat_gain(fresh, [[3.0]] * 12) == 0.0


def test_noise_floor_is_symmetric() -> None:
    assert noise_floor([1.0, 2.0, 3.0], [2.5]) == noise_floor([2.5], [1.0, 2.0, 3.0]) == pytest.approx(0.25)
    assert noise_floor([0.0], [0.0]) == 0.0
    assert noise_floor([0.0], [1.0]) == math.inf


def test_bootstrap_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(2012).normal(size=(400, 1))
    low, high = bootstrap_ci95(values, lambda sums: sums[:, 0] / 400, seed=1, resamples=4000)
    error = 1.96 * values.std() / 20
    # The ends of 4000 resamples scatter by about 0.04 of the half width.
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)
