"""Intervals cover what they promise, and the verdict follows its rules."""

import math
from typing import Any

import numpy as np
import pytest

from bench.result import RunPlan, Status
from bench.statistics import bootstrap_ci95, drift, median_ci95, noise_floor, summarise, verdict

PLAN = RunPlan(minimum_samples=64, minimum_seconds=10.0)
GOOD: dict[str, Any] = {"samples": 64, "seconds": 10.0, "drifts": (0.05,), "outputs_equal": True}


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
    # Three standard errors of a share of 0.95 in 2000 trials.
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_summarise_keeps_samples_in_order() -> None:
    latency = summarise([3.0, 1.0, 2.0, 5.0, 4.0])
    assert latency.samples == (3.0, 1.0, 2.0, 5.0, 4.0)
    assert (latency.median, latency.n, latency.ci95) == (3.0, 5, (1.0, 5.0))
    assert latency.p90 == pytest.approx(4.6)


def test_summarise_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_drift_compares_halves_in_time_order() -> None:
    assert drift([[1.0, 1.0, 1.1, 1.1]]) == pytest.approx(0.1)
    assert drift([[1.1, 1.1, 1.0, 1.0]]) == pytest.approx(0.1)
    assert drift([[1.0, 9.0, 1.0]]) == 0.0  # the middle one belongs to neither half
    assert drift([[1.0]]) == drift([[]]) == drift([]) == 0.0


def test_drift_is_within_rounds_and_not_between_them() -> None:
    assert drift([[1.0, 1.0], [2.0, 2.0]]) == 0.0
    assert drift([[1.0, 1.2], [2.0, 2.4], [1.0, 1.2]]) == pytest.approx(0.2)


def test_noise_floor_is_symmetric() -> None:
    assert noise_floor([1.0, 2.0, 3.0], [2.5]) == noise_floor([2.5], [1.0, 2.0, 3.0]) == pytest.approx(0.25)
    assert noise_floor([0.0], [0.0]) == 0.0
    assert noise_floor([0.0], [1.0]) == math.inf


def test_verdict_is_valid_at_the_limits() -> None:
    assert verdict(PLAN, **GOOD) == (Status.VALID, "")
    assert verdict(PLAN, **{**GOOD, "drifts": ()}, repeat_gain=0.1) == (Status.VALID, "")


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"samples": 63}, Status.QUICK, "63 samples in 10.0 s"),
        ({"seconds": 9.9}, Status.QUICK, "64 in 10 s are needed"),
        ({"drifts": (0.01, 0.08)}, Status.INVALID, "differ by 8.0%, more than 5%"),
        ({"outputs_equal": False}, Status.INVALID, "captions differ"),
        ({"outputs_equal": False, "samples": 1}, Status.INVALID, "captions differ"),
        ({"repeat_gain": 0.2}, Status.INVALID, "20% faster"),
        ({"drifts": (0.5,), "samples": 3}, Status.QUICK, "3 samples"),  # drift of three is noise
    ],
)
def test_verdict_says_what_is_wrong(change: dict[str, Any], status: Status, reason: str) -> None:
    received, said = verdict(PLAN, **{**GOOD, **change})
    assert received is status
    assert reason in said


def test_bootstrap_of_a_mean_matches_the_normal_interval() -> None:
    values = np.random.default_rng(2012).normal(size=(400, 1))
    low, high = bootstrap_ci95(values, lambda sums: sums[:, 0] / 400, seed=1, resamples=4000)
    error = 1.96 * values.std() / 20
    # The ends of 4000 resamples scatter by about 0.04 of the half width.
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)
