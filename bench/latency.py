"""What the harness times, and for how long: one artifact on one runtime, phase by phase."""

import contextlib
import importlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.canary import Canary
from bench.captioning import FusedCaptioner, LoadedCaptioner, load_sessions
from bench.job import Job
from bench.measurement import Phase
from bench.runtimes import find_runtime
from bench.runtimes.fake import IdleCaptioner
from bench.runtimes.slowed import SlowedRuntime
from convert.artifact import load_artifact
from models.decoding import Search, Tensors, decode, without_end
from models.errors import ConfigError
from models.vocabulary import START

# How a process's timing is shared out; whole captions matter most. Loading and the first captions come before.
SHARES: Mapping[Phase, float] = {
    Phase.PREPROCESS: 0.06,
    Phase.ENCODE: 0.1,
    Phase.STEP: 0.06,
    Phase.DECODE: 0.08,
    Phase.BATCH_1: 0.04,
    Phase.BATCH_8: 0.05,
    Phase.BATCH_32: 0.05,
    Phase.OFFLINE: 0.05,
    Phase.CAPTION_FORCED: 0.11,
    Phase.CAPTION: 0.4,
}
BATCHES: Mapping[Phase, int] = {Phase.BATCH_1: 1, Phase.BATCH_8: 8, Phase.BATCH_32: 32}
# A fused graph does the rest in one call, which can't be parted, and takes one image.
FUSED_PHASES = frozenset({Phase.PREPROCESS, Phase.BATCH_1, Phase.OFFLINE, Phase.CAPTION})
# A sample is the mean of as many calls as take about this long, so that the clock's resolution and
# the harness's own microseconds don't show.
SAMPLE_SECONDS = 0.0005
# A process waits for full speed as long as this many times what it times, and no longer.
PATIENCE = 2.0
# Fresh images are timed only when the process is warm: after the first caption, so many seconds of the same image.
WARM_SECONDS = 0.1


class TimedCaptioner:
    """Callables by phase. `load` must come first; the other phases cycle over the job's images."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job = job
        self.stack = stack
        self.loaded: LoadedCaptioner
        self.captions: dict[str, str] = {}
        self.canary = Canary(job.canary, threads=job.threads, patience_seconds=PATIENCE * job.seconds)
        self._files = list(job.read_images())
        self._next = self._order()
        _pin(job.cpus)
        # What importing costs is measured apart: loading is files -> sessions. Loading says what is missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(find_runtime(job.runtime).module)

    def _order(self) -> Iterator[int]:
        """The images in turn; one whose sample ended on a slowed machine comes once more, so that each counts alike."""
        for index in itertools.cycle(range(len(self._files))):
            yield index
            while not self.canary.last_was_clean:
                yield index

    def load(self) -> None:
        """Files -> sessions."""
        artifact = load_artifact(Path(self.job.artifact))
        runtime = find_runtime(self.job.runtime)
        if self.job.delay_seconds:
            runtime = SlowedRuntime(runtime, self.job.delay_seconds)
        self.loaded = self.stack.enter_context(load_sessions(artifact, runtime, threads=self.job.threads))

    def caption(self, index: int) -> None:
        """Encoded file -> caption; what was said is kept to be compared with the quality run."""
        self._say(self.loaded, self.captions, index)

    def _say(self, loaded: LoadedCaptioner | IdleCaptioner, said: dict[str, str], index: int) -> None:
        name, encoded = self._files[index]
        said[name] = loaded.sentence(loaded.caption(encoded, Search.GREEDY, name))

    def warm_up(self) -> None:
        """Caption the first image until the process is in its steady state."""
        end = time.perf_counter() + WARM_SECONDS
        for _ in range(max(self.job.warmup, 1)):
            self.caption(0)
        while time.perf_counter() < end:
            self.caption(0)

    @property
    def fresh_images(self) -> int:
        """How many images this process has not captioned before `fresh` is called."""
        return len(self._files) - 1

    def fresh(self) -> Callable[[], object]:
        """A call captions the next image that was not captioned yet."""
        order = iter(range(1, len(self._files)))
        return lambda: self.caption(next(order))

    @property
    def shares(self) -> dict[Phase, float]:
        """How the timing is shared out among the phases that are asked for and that this artifact has."""
        has = FUSED_PHASES if isinstance(self.loaded, FusedCaptioner) else frozenset(SHARES)
        if not self.job.forced_steps:
            has -= {Phase.CAPTION_FORCED}
        chosen = [phase for phase in SHARES if phase in has and phase in self.job.phases]
        total = sum(SHARES[phase] for phase in chosen)
        return {phase: SHARES[phase] / total for phase in chosen}

    def phase(self, phase: Phase) -> Callable[[], object]:
        """One call of a phase on the next image, inputs prepared beforehand."""
        loaded = self.loaded
        if phase is Phase.PREPROCESS:
            return lambda: loaded.preprocess(self._files[next(self._next)][1])
        if phase is Phase.CAPTION:
            return lambda: self.caption(next(self._next))
        if phase is Phase.CAPTION_FORCED:
            return lambda: self._forced(self._files[next(self._next)][1])
        if phase in BATCHES:
            return self._batches(BATCHES[phase])
        if phase is Phase.OFFLINE:
            return self._offline
        order = itertools.cycle(range(len(self._pixels)))
        if phase is Phase.ENCODE:
            return lambda: loaded.encode(self._pixels[next(order)])
        inputs = self._inputs
        if phase is Phase.DECODE:
            return lambda: loaded.decode(inputs[next(order)], Search.GREEDY)
        token = np.array([START], np.int32)
        return lambda: loaded.step(token, inputs[next(order)])

    def idle(self) -> Callable[[], object]:
        """A caption of nothing: what the harness itself costs."""
        idle, said = IdleCaptioner(), dict[str, str]()
        return lambda: self._say(idle, said, next(self._next))

    def differing(self) -> list[str]:
        """Images whose timed caption is not the quality run's."""
        return [name for name, said in self.captions.items() if said != self.job.captions.get(name, said)]

    def _forced(self, encoded: bytes) -> None:
        """A caption of exactly the job's number of steps: END is never the likeliest word."""
        loaded = self.loaded
        inputs = loaded.encode(loaded.preprocess(encoded))
        decode(without_end(loaded.step), inputs, search=Search.GREEDY, max_length=self.job.forced_steps)

    def _batches(self, size: int) -> Callable[[], object]:
        order = itertools.cycle(self._pixels)
        images = itertools.cycle([np.concatenate([next(order) for _ in range(size)]) for _ in range(2)])
        return lambda: self.loaded.decode(self.loaded.encode(next(images)), Search.GREEDY)

    def _offline(self) -> None:
        """Every file of the job, preprocessed one by one and captioned in one batch."""
        pixels = np.concatenate([self.loaded.preprocess(encoded) for _, encoded in self._files])
        self.loaded.decode(self.loaded.encode(pixels), Search.GREEDY)

    @cached_property
    def _pixels(self) -> list[NDArray[np.float32]]:
        """Preprocessed images, so that phases are timed apart."""
        return [self.loaded.preprocess(encoded) for _, encoded in self._files]

    @cached_property
    def _inputs(self) -> list[Tensors]:
        """What the first step takes, of each image."""
        return [self.loaded.encode(pixels) for pixels in self._pixels]


def rounds_and_calls(
    call: Callable[[], object], canary: Canary, *, seconds: float, minimum: int, warmup: int
) -> tuple[int, int]:
    """(samples, calls per sample) that fill `seconds`, from the fastest of some warm-up calls at full speed."""
    fastest = min(_timed_calls(call, canary, max(warmup, 1)))
    canary.take_readings()
    calls = math.ceil(SAMPLE_SECONDS / fastest)
    return max(math.ceil(seconds / (fastest * calls)), minimum), calls


def _timed_calls(call: Callable[[], object], canary: Canary, count: int) -> Iterator[float]:
    for _ in range(count):
        canary.wait()
        start = time.perf_counter()
        call()
        yield max(time.perf_counter() - start, 1e-9)


def _pin(cpus: tuple[int, ...]) -> None:
    """Keep this process on some logical CPUs. Raises ConfigError where that can't be done."""
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError) as error:
        raise ConfigError(
            f"can't run on the CPUs {', '.join(map(str, cpus))} ({error}). "
            "Give CPUs that this machine has, or leave `cpus` out of the suite's plan."
        ) from error
