"""A row is worth what the rules say, and the reason says what to do."""

from dataclasses import replace
from typing import Any

import pytest

from bench.result import Status
from bench.setting import RunPlan
from bench.verdict import Evidence, judge

PLAN = RunPlan(minimum_samples=64, minimum_seconds=10.0)
GOOD = Evidence(samples=64, seconds=10.0, rounds=6, drift=0.05, repeat_gain=0.1, length_change=-0.1)


def test_row_is_valid_at_the_limits() -> None:
    assert judge(PLAN, GOOD) == (Status.VALID, "")


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"samples": 63}, Status.QUICK, "63 samples in 10.0 s"),
        ({"seconds": 9.9}, Status.QUICK, "64 in 10 s and 6 are needed"),
        ({"rounds": 5}, Status.QUICK, "5 rounds"),
        ({"drift": 0.08}, Status.INVALID, "differ by 8.0%, more than 5%: measure again"),
        ({"differing": 3}, Status.INVALID, "captions of 3 images differ"),
        ({"differing": 3, "samples": 1}, Status.INVALID, "captions of 3 images differ"),
        ({"repeat_gain": 0.2}, Status.INVALID, "20% faster than fresh ones: results are cached"),
        ({"length_change": 0.15}, Status.INVALID, "15% longer than fp32's"),
        ({"length_change": -0.15}, Status.INVALID, "15% shorter than fp32's"),
        ({"disturbed": "other processes kept 1.0 cores busy"}, Status.INVALID, "1.0 cores busy while it was timed"),
        ({"drift": 0.5, "samples": 3}, Status.QUICK, "3 samples"),  # drift of three is noise
    ],
)
def test_verdict_says_what_is_wrong(change: dict[str, Any], status: Status, reason: str) -> None:
    received, said = judge(PLAN, replace(GOOD, **change))
    assert received is status
    assert reason in said


def test_quick_run_is_quick_whatever_the_machine_did_but_wrong_outputs_are_wrong() -> None:
    plan = replace(PLAN, quick=True)
    assert judge(plan, replace(GOOD, drift=1.0, disturbed="hog"))[0] is Status.QUICK
    assert judge(plan, replace(GOOD, differing=1))[0] is Status.INVALID


def test_plan_asks_for_more_and_never_for_less() -> None:
    assert judge(replace(PLAN, minimum_samples=65), GOOD)[0] is Status.QUICK
    assert judge(replace(PLAN, minimum_samples=1, minimum_seconds=0.1), replace(GOOD, samples=63))[0] is Status.QUICK
