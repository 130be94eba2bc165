"""What else the machine did while something was timed: other processes, the hypervisor, a container's quota.

Counters of the whole machine are read before and after, and what this process and its finished children used is taken
off. They say nothing of a neighbour on a core's other hyperthread: that is what `bench.canary` is for.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psutil

from bench.cgroups import throttled_seconds
from bench.measurement import Disturbance

# An idle system's own threads, a shell and an editor take a few hundredths of a core. One busy process takes a whole
# one, and still half of one where it has to share two cores with two threads that are timed.
OTHER_CORES = 0.2
# Of two cores this is a twentieth: as much as a row's halves may differ.
STOLEN_CORES = 0.1
# A quota stops all threads for tens of milliseconds at a time, so that few stops make many samples worthless.
THROTTLED = 0.01

_DIGITS = 4  # of shares and cores: clocks tick every 4 to 10 ms


@dataclass(frozen=True, slots=True)
class Counters:
    """The machine's counters at one moment, all in seconds and all only growing."""

    clock: float
    busy: float  # of all CPUs that this process may use, by whatever process
    own: float  # of this process and of its children that have ended, on all CPUs
    stolen: float  # in which a CPU wanted to run and the hypervisor let others do so
    throttled: float  # by the container's quota, summed over CPUs


class Watch:
    """A context manager around a child process's whole life: `seconds` it took, and what disturbed it.

    A child counts as this process's own when it has ended and was waited for; so no child that began earlier may
    end meanwhile.
    """

    seconds: float
    disturbance: Disturbance

    def __enter__(self) -> Self:
        self._before = read_counters()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = read_counters()
        self.seconds = after.clock - self._before.clock
        self.disturbance = disturbance_between(self._before, after)


def read_counters() -> Counters:
    """The counters now; 0 for what this platform does not count."""
    cpus = _usable_cpus()
    times = os.times()
    return Counters(
        clock=time.perf_counter(),
        busy=sum(_busy(cpu) for cpu in cpus),
        own=times.user + times.system + times.children_user + times.children_system,
        stolen=sum(getattr(cpu, "steal", 0.0) for cpu in cpus),
        throttled=throttled_seconds(),
    )


def disturbance_between(before: Counters, after: Counters) -> Disturbance:
    """Means over the time between two moments.

    `throttled` is summed over CPUs by the kernel, and so an upper bound of the share of time; it is cut off at 1.
    """
    seconds = after.clock - before.clock
    if seconds <= 0:
        return Disturbance(0.0, 0.0, 0.0)
    others = (after.busy - before.busy) - (after.own - before.own)
    return Disturbance(
        # Ticks are counted apart for CPUs and for processes: without others the difference can fall below zero.
        other_cores=round(max(0.0, others / seconds), _DIGITS),
        stolen_cores=round(max(0.0, (after.stolen - before.stolen) / seconds), _DIGITS),
        throttled=round(min(1.0, max(0.0, (after.throttled - before.throttled) / seconds)), _DIGITS),
    )


def is_disturbed(disturbance: Disturbance) -> bool:
    """Whether something other than the slow state of a shared core (`slowed`) makes the times worthless."""
    return bool(why_disturbed(disturbance))


def why_disturbed(disturbance: Disturbance) -> str:
    """What disturbed, and how much; "" when nothing did that counts."""
    causes = []
    if disturbance.other_cores > OTHER_CORES:
        causes.append(f"other processes kept {disturbance.other_cores:.1f} cores busy")
    if disturbance.stolen_cores > STOLEN_CORES:
        causes.append(f"the hypervisor gave {disturbance.stolen_cores:.1f} cores to others")
    if disturbance.throttled > THROTTLED:
        held = f"{100 * disturbance.throttled:.0f} %"
        causes.append(f"the container's quota held processes back for {held} of the time")
    return " and ".join(causes)


def merge(disturbances: Sequence[Disturbance], seconds: Sequence[float]) -> Disturbance:
    """The mean of several, each weighted by the seconds it lasted; nothing at all of none."""
    total = sum(seconds)
    if not total:
        return Disturbance(0.0, 0.0, 0.0)

    def mean(name: str) -> float:
        weighted = [getattr(d, name) * s for d, s in zip(disturbances, seconds, strict=True)]
        return float(round(sum(weighted) / total, _DIGITS))

    return Disturbance(mean("other_cores"), mean("stolen_cores"), mean("throttled"), mean("slowed"))


def _usable_cpus() -> list[Any]:
    """Times of each CPU that this process may use: in a container the machine may have many more."""
    try:
        times = psutil.cpu_times(percpu=True)
    except OSError:  # Android hides them
        return []
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    if max(usable, default=0) >= len(times):  # CPUs that are offline shift the numbers
        return times
    return [times[cpu] for cpu in usable]


def _busy(cpu: Any) -> float:
    """Seconds of work; Linux counts guests' time as user time too, and Windows interrupts as the system's."""
    return sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
