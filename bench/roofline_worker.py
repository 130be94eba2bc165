"""Times plain kernels in a runtime's own environment: `python -m bench.roofline_worker JOB OUT`.

A limit is what the machine can do at best, so the shortest of many runs counts. Kernels take turns, for a virtual
machine's core can be slow for seconds on end (see `bench.canary`).
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.result_file import from_json
from bench.runtimes import Runtime, find_runtime
from models.decoding import Tensors
from models.errors import CaptionbenchError
from models.files import write_text_atomic

# One turn of a kernel: the first call of it brings its weights back into the caches.
TURN_SECONDS = 0.04


@dataclass(frozen=True)
class KernelFile:
    """A kernel's file and the shape of its one input."""

    name: str
    path: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class KernelJob:
    """Kernels to be timed in one process for so many seconds in all; `input` is what they call their input."""

    runtime: str
    threads: int
    seconds: float
    input: str
    kernels: tuple[KernelFile, ...] = ()

    def write(self, path: Path) -> Path:
        """Write as JSON; returns `path`."""
        write_text_atomic(path, json.dumps(dataclasses.asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> "KernelJob":
        """Read what `write` wrote."""
        job: KernelJob = from_json(cls, json.loads(path.read_text(encoding="utf-8")))
        return job

    def feed(self, kernel: KernelFile) -> Tensors:
        """Noise between 0 and 1."""
        return {self.input: np.random.default_rng(0).random(kernel.shape, np.float32)}


@dataclass(frozen=True)
class KernelTimes:
    """The shortest run of each kernel in seconds, and why others have none."""

    seconds: Mapping[str, float]
    failures: Mapping[str, str]


def time_kernels(job: KernelJob, runtime: Runtime) -> KernelTimes:
    """Load every kernel and time them in turn. A kernel that can't be loaded or run is a failure, and no exception."""
    failures: dict[str, str] = {}
    calls: dict[str, Callable[[], object]] = {}
    with ExitStack() as stack:
        for kernel in job.kernels:
            try:
                session = stack.enter_context(runtime.load(Path(kernel.path), threads=job.threads))
                call = functools.partial(session.run, job.feed(kernel))
                call()
                calls[kernel.name] = call
            except Exception as error:  # runtimes' own exceptions share no base class
                failures[kernel.name] = str(error) or type(error).__name__
        return KernelTimes(_shortest(calls, job.seconds), failures)


def _shortest(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The shortest call of each in seconds; each has one turn at least."""
    shortest = {name: _turn(call) for name, call in calls.items()}
    end = time.perf_counter() + seconds
    while calls and time.perf_counter() < end:
        shortest = {name: min(shortest[name], _turn(call)) for name, call in calls.items()}
    return shortest


def _turn(call: Callable[[], object]) -> float:
    """The shortest call of one turn in seconds."""
    call()
    shortest, end = float("inf"), time.perf_counter() + TURN_SECONDS
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        shortest = min(shortest, now - start)
        if now >= end:
            return shortest


def main(arguments: list[str]) -> int:
    """Time a job's kernels; errors a user can cause become one line and status 2."""
    try:
        job = KernelJob.read(Path(arguments[0]))
        times = time_kernels(job, find_runtime(job.runtime))
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text_atomic(Path(arguments[1]), json.dumps(dataclasses.asdict(times)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
