"""Options and fixtures of the pytest-benchmark harness; used by `test_latency.py` in a runtime's environment."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.job import Job
from bench.latency import TimedCaptioner


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--job FILE`: what to time."""
    parser.addoption("--job", required=True, type=Path, help="job file written by the launcher")


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Nothing: results.json describes the machine, and asking for it again costs a second a process."""
    return {}


def pytest_benchmark_generate_commit_info(config: pytest.Config) -> dict[str, Any]:
    """Nothing: results.json names the commit."""
    return {}


@pytest.fixture(scope="session")
def timed(request: pytest.FixtureRequest) -> Iterator[TimedCaptioner]:
    """What is timed; loaded by the first test, freed at the end.

    The garbage collector stays on, but what the harness itself has made is not looked at again.
    """
    with ExitStack() as stack:
        captioner = TimedCaptioner(Job.read(request.config.getoption("--job")), stack)
        gc.collect()
        gc.freeze()
        yield captioner
