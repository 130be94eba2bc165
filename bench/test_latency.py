"""The pytest-benchmark harness: run by the launcher once a round in each runtime's environment.

pytest-benchmark collects and keeps the raw seconds; what they say is worked out in `bench.statistics`.
The tests run in the order they are written: loading comes first, and whole captions last.
"""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.latency import BATCHES, SHARES, TimedCaptioner, rounds_and_calls
from bench.measurement import Phase

IDLE_CALLS = 1000


def test_load(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """Files -> sessions, once a process."""
    _record(benchmark, timed, Phase.LOAD, timed.load)


def test_first_caption(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """The first caption after loading, once a process."""
    _record(benchmark, timed, Phase.FIRST_CAPTION, lambda: timed.caption(0))


def test_fresh(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """Every other image for the first time: a cache of results would make the later ones faster."""
    timed.warm_up()
    if Phase.CAPTION_FRESH not in timed.job.phases or not timed.fresh_images:
        pytest.skip("not asked for")
    _record(benchmark, timed, Phase.CAPTION_FRESH, timed.fresh(), rounds=timed.fresh_images)


@pytest.mark.parametrize("phase", list(SHARES))
def test_phase(benchmark: BenchmarkFixture, timed: TimedCaptioner, phase: Phase) -> None:
    """The steady state of one phase."""
    if phase not in timed.shares:
        pytest.skip("not asked for, or a fused graph does this within a caption")
    call = timed.phase(phase)
    few = phase in BATCHES or phase is Phase.OFFLINE
    try:
        rounds, calls = rounds_and_calls(
            call,
            timed.canary,
            seconds=timed.job.seconds * timed.shares[phase],
            minimum=timed.job.samples if phase is Phase.CAPTION else 1 if few else max(timed.job.samples // 3, 1),
            warmup=1 if few else timed.job.warmup,
        )
    except Exception as error:
        if not few:
            raise
        pytest.skip(f"this graph takes no batch: {error}")
    _record(benchmark, timed, phase, call, rounds=rounds, calls=calls)
    benchmark.extra_info["differing"] = timed.differing()


def test_idle(benchmark: BenchmarkFixture, timed: TimedCaptioner) -> None:
    """A caption of nothing: what the harness costs."""
    _record(benchmark, timed, None, timed.idle(), rounds=5, calls=IDLE_CALLS)


def _record(
    benchmark: BenchmarkFixture,
    timed: TimedCaptioner,
    phase: Phase | None,
    call: Callable[[], object],
    *,
    rounds: int = 1,
    calls: int = 1,
) -> None:
    """Time `rounds` samples of `calls` calls, each when the machine is at full speed."""

    def sample() -> None:
        for _ in range(calls):
            call()

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        call if calls == 1 else sample, setup=timed.canary.wait, rounds=rounds, iterations=1
    )
    # pytest-benchmark's own `options` ignore what pedantic was given, so the protocol is recorded here.
    benchmark.extra_info |= {
        "phase": phase,
        "threads": timed.job.threads,
        "warmup": timed.job.warmup,
        "rounds": rounds,
        "calls": calls,
        "canary": [[float(f"{reading:.4g}") for reading in pair] for pair in timed.canary.take_readings()],
    }
