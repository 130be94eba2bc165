"""The pytest-benchmark harness: run by the launcher once a round in each runtime's environment.

pytest-benchmark collects and keeps the raw seconds; what they say is worked out in `bench.statistics`.
The tests run in the order they are written: loading comes first, and whole captions last.
"""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.latency import (
    MAXIMUM_CAPTION_SAMPLES,
    MAXIMUM_PHASE_SAMPLES,
    SHARES,
    TimedCaptioner,
    rounds_and_iterations,
)
from bench.result import Phase


def test_load(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """Files -> sessions, once a process."""
    _record(benchmark, timed, Phase.LOAD, timed.load, rounds=1, iterations=1)


def test_first_caption(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """The first caption after loading, once a process."""
    _record(benchmark, timed, Phase.FIRST_CAPTION, lambda: timed.caption(0), rounds=1, iterations=1)


@pytest.mark.parametrize("phase", list(SHARES))
def test_phase(benchmark: BenchmarkFixture, timed: TimedCaptioner, phase: Phase) -> None:
    """The steady state of one phase."""
    if phase not in timed.shares:
        pytest.skip("a fused graph does this within a caption")
    call = timed.phase(phase)
    rounds, iterations = rounds_and_iterations(
        call,
        seconds=timed.job.seconds * timed.shares[phase],
        maximum=MAXIMUM_CAPTION_SAMPLES if phase is Phase.CAPTION else MAXIMUM_PHASE_SAMPLES,
        minimum=timed.job.samples if phase is Phase.CAPTION else max(timed.job.samples // 3, 2),
        warmup=timed.job.warmup,
    )
    _record(benchmark, timed, phase, call, rounds=rounds, iterations=iterations)
    benchmark.extra_info["differing"] = timed.differing()


def _record(
    benchmark: BenchmarkFixture,
    timed: TimedCaptioner,
    phase: Phase,
    call: Callable[[], object],
    *,
    rounds: int,
    iterations: int,
) -> None:
    # pytest-benchmark's own `options` ignore what pedantic was given, so the protocol is recorded here.
    benchmark.extra_info |= {
        "phase": phase,
        "threads": timed.job.threads,
        "warmup": timed.job.warmup,
        "rounds": rounds,
        "iterations": iterations,
    }
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        call, rounds=rounds, iterations=iterations
    )
