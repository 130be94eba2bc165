"""What the harness times, and for how long: one artifact on one runtime, phase by phase."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.captioning import FusedCaptioner, LoadedCaptioner, load_sessions
from bench.job import Job
from bench.result import Phase
from bench.runtimes import find_runtime
from convert.artifact import load_artifact
from models.decoding import Search
from models.vocabulary import START

# How a process's timing is shared out; whole captions matter most. Load and first caption are timed once.
SHARES: Mapping[Phase, float] = {
    Phase.PREPROCESS: 0.1,
    Phase.ENCODE: 0.15,
    Phase.STEP: 0.1,
    Phase.DECODE: 0.15,
    Phase.CAPTION: 0.5,
}
# A fused graph does the rest in one call, which can't be parted.
FUSED_PHASES = (Phase.PREPROCESS, Phase.CAPTION)
# A sample is the mean of as many calls as take about this long, so that the clock's resolution and
# the harness's own microseconds don't show.
SAMPLE_SECONDS = 0.0005
# More raw samples than this say no more, and results.json keeps them all: beyond it a sample is the mean of more
# calls. Whole captions are what verdicts rest on, so they get more.
MAXIMUM_CAPTION_SAMPLES = 1000
MAXIMUM_PHASE_SAMPLES = 200


class TimedCaptioner:
    """Callables by phase. `load` must come first; the other phases cycle over the job's images."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job = job
        self.stack = stack
        self.loaded: LoadedCaptioner
        self.captions: dict[str, str] = {}
        self._files = list(job.read_images())
        self._next = itertools.cycle(range(len(self._files)))

    def load(self) -> None:
        """Files -> sessions."""
        artifact = load_artifact(Path(self.job.artifact))
        runtime = find_runtime(self.job.runtime)
        self.loaded = self.stack.enter_context(load_sessions(artifact, runtime, threads=self.job.threads))

    def caption(self, index: int) -> None:
        """Encoded file -> caption; what was said is kept to be compared with the quality run."""
        name, encoded = self._files[index]
        self.captions[name] = self.loaded.sentence(self.loaded.caption(encoded, Search.GREEDY, name))

    @property
    def shares(self) -> dict[Phase, float]:
        """How the timing is shared out among the phases that this artifact has."""
        if not isinstance(self.loaded, FusedCaptioner):
            return dict(SHARES)
        total = sum(SHARES[phase] for phase in FUSED_PHASES)
        return {phase: SHARES[phase] / total for phase in FUSED_PHASES}

    def phase(self, phase: Phase) -> Callable[[], object]:
        """One call of a phase on the next image, inputs prepared beforehand."""
        loaded = self.loaded
        if phase is Phase.PREPROCESS:
            return lambda: loaded.preprocess(self._files[next(self._next)][1])
        if phase is Phase.CAPTION:
            return lambda: self.caption(next(self._next))
        pixels, inputs = self._prepared
        order = itertools.cycle(range(len(pixels)))
        if phase is Phase.ENCODE:
            return lambda: loaded.encode(pixels[next(order)])
        if phase is Phase.DECODE:
            return lambda: loaded.decode(inputs[next(order)], Search.GREEDY)
        token = np.array([START], np.int32)
        return lambda: loaded.step(token, inputs[next(order)])

    def differing(self) -> list[str]:
        """Images whose timed caption is not the quality run's."""
        return [name for name, said in self.captions.items() if said != self.job.captions.get(name, said)]

    @cached_property
    def _prepared(self) -> tuple[list[Any], list[Any]]:
        """Pixels and encoder outputs of some images, so that phases are timed apart."""
        files = self._files[:16]
        pixels = [self.loaded.preprocess(encoded) for _, encoded in files]
        return pixels, [self.loaded.encode(p) for p in pixels]


def rounds_and_iterations(
    call: Callable[[], object], *, seconds: float, minimum: int, maximum: int, warmup: int
) -> tuple[int, int]:
    """(samples, calls per sample) that fill `seconds`, from the fastest of some warm-up calls."""
    fastest = min(_timed_calls(call, max(warmup, 1)))
    iterations = max(1, math.ceil(max(SAMPLE_SECONDS, seconds / maximum) / fastest))
    rounds = math.ceil(seconds / (fastest * iterations))
    return min(max(rounds, minimum), maximum), iterations


def _timed_calls(call: Callable[[], object], count: int) -> Iterator[float]:
    for _ in range(count):
        start = time.perf_counter()
        call()
        yield max(time.perf_counter() - start, 1e-9)
