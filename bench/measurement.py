"""What is measured of a row: phases and their seconds, throughput, memory, where time goes, what disturbed it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What is timed, each on its own; none is got by subtraction."""

    LOAD = "load"  # files -> sessions, in a fresh process that has imported the runtime
    FIRST_CAPTION = "first_caption"  # the first caption after loading
    PREPROCESS = "preprocess"  # encoded file -> tensor
    ENCODE = "encode"  # tensor -> features and initial state
    STEP = "step"  # one word
    DECODE = "decode"  # features -> caption, greedy
    CAPTION = "caption"  # encoded file -> caption, greedy
    CAPTION_FRESH = "caption_fresh"  # the first time that a process captions an image: a cache would show
    CAPTION_FORCED = "caption_forced"  # the same, but every image takes the same number of steps
    BATCH_1 = "batch_1"  # tensors -> captions, so many images at once
    BATCH_8 = "batch_8"
    BATCH_32 = "batch_32"
    OFFLINE = "offline"  # all timed images' files -> captions, in one batch


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of raw seconds, with a 95 % interval (bootstrap over rounds; None for a single round)."""

    seconds: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Raw seconds of one phase and what they say.

    `median` is that of the rounds' medians and `ci95` its interval (order statistics over rounds; over samples
    where there is one round). `rounds` counts the samples of each round, in order; () stands for a single one.
    """

    median: float
    ci95: tuple[float, float]
    n: int
    samples: tuple[float, ...]
    rounds: tuple[int, ...] = ()
    percentiles: Mapping[str, Percentile] = field(default_factory=dict)  # "p90": only of enough samples

    @property
    def by_round(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round, in time order."""
        ends = list(itertools.accumulate(self.rounds or (self.n,)))
        return tuple(self.samples[start:end] for start, end in zip([0, *ends], ends, strict=False))


@dataclass(frozen=True, slots=True)
class Difference:
    """The share by which a median exceeds another (0.1: 10 % slower), rounds paired, with its 99 % interval."""

    relative: float
    ci99: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Captions a second when images come in batches, with the 95 % interval of the median batch."""

    batch: int
    images_per_second: float
    ci95: tuple[float, float] | None = None
    scenario: str = "batch"  # "batch": tensors at hand; "offline": all files at once


@dataclass(frozen=True, slots=True)
class Memory:
    """The process that loaded this artifact and captioned with it."""

    peak_rss_bytes: int
    loaded_bytes: int | None = None  # by how much loading grew it, the runtime itself imported before


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What else the machine did while a row was timed; means over that time."""

    other_cores: float  # cores that other processes kept busy
    stolen_cores: float  # cores that the hypervisor gave to others
    throttled: float  # share of the time in which the container's quota held processes back
    slowed: float = 0.0  # share of samples left out, because a known loop beside them was slower than at its best


@dataclass(frozen=True, slots=True)
class GraphProfile:
    """Where a graph's time goes, by the runtime's own profiler; `reason` says why it is not known."""

    shares: Mapping[str, float]  # kind of arithmetic, or data movement -> share 0..1
    top: tuple[tuple[str, float], ...]  # operators that take most, with their shares
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GraphWork:
    """What one run of a graph has to do: an image for an encoder, a word for a step."""

    multiply_adds: Mapping[str, int]  # arithmetic -> number
    weight_bytes: int
