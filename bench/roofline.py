"""The roofline: how fast a machine computes and reads on a runtime at best, and what a graph asks of it.

After S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009: no graph is faster than its products at the best rate of products, nor than its bytes
at the best rate of bytes. Both rates are measured with plain kernels on the same runtime at the same threads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.disturbance import Watch, is_disturbed, why_disturbed
from bench.environment import describe_environment
from bench.launcher import Launcher
from bench.measurement import GraphWork
from bench.roofline_kernels import INPUT, KERNELS_VERSION, PLAIN, PRECISIONS, Kernel, KernelSet, build_kernel
from bench.roofline_worker import KernelFile, KernelJob, KernelTimes
from bench.runtimes import find_runtime
from bench.setting import Roofline
from convert.artifact import Artifact
from convert.ledger import SUFFIXES, Arithmetic, Part, ledger_of
from convert.recipe import Format
from convert.scheme import Precision
from convert.store import Store
from models.errors import CaptionbenchError
from models.files import content_key
from models.progress import say

# Raised when a change measures the same kernels in another way.
ROOFLINE_VERSION = 1
SECONDS = 6.0

# What is timed: a kernel in a precision.
Pair = tuple[Kernel, Precision]

# Of a weight while a graph runs. FP16 is widened once, at load, by LiteRT and ONNX Runtime alike.
_BYTES: Mapping[Arithmetic, float] = {
    Arithmetic.FP32: 4,
    Arithmetic.FP16: 4,
    Arithmetic.INT16: 2,
    Arithmetic.INT8: 1,
    Arithmetic.INT4: 0.5,
}


class _NotKept(CaptionbenchError):
    """Limits that say nothing about the next run: nothing could be measured, or something else ran beside it."""

    def __init__(self, roofline: Roofline) -> None:
        super().__init__(roofline.reason)
        self.roofline = roofline


def measure_rooflines(
    store: Store,
    launcher: Launcher,
    versions: Mapping[str, str],
    threads: int,
    *,
    kernels: KernelSet = PLAIN,
    seconds: float = SECONDS,
) -> dict[str, Roofline]:
    """The limits of each runtime in `versions` (name -> version) that has plain kernels, `seconds` of timing each.

    Kept in the store by machine, runtime, version and threads. What fails is None in the limits, with a reason. The
    lock of the timing is taken, so call this outside of it.
    """
    plan = Plan(store, launcher, threads, kernels, seconds)
    return {name: plan.roofline(name, version) for name, version in versions.items() if _has_kernels(name)}


def graph_work(artifact: Artifact) -> dict[str, GraphWork]:
    """What one run of each graph multiplies and reads; {} for formats without a ledger.

    `weight_bytes` are those of the weights that are multiplied, so a table of which a word looks up one row does not
    count. The ledger is read anew, for the manifest keeps sums only.
    """
    work = {}
    for name, path in artifact.graphs.items():
        if path.suffix in SUFFIXES:
            ledger = ledger_of(path)
            products = {str(arithmetic): count for arithmetic, count in ledger.multiply_adds.items()}
            work[name] = GraphWork(products, round(sum(map(_read_bytes, ledger.parts))))
    return work


def _has_kernels(runtime: str) -> bool:
    """Whether limits of it mean something: not those of the fake, nor of a loop that nobody would deploy."""
    found = find_runtime(runtime)
    return found.by_default and found.formats[0] in PRECISIONS


def _read_bytes(part: Part) -> float:
    return part.weights * _BYTES.get(part.stored, 0) if part.multiply_adds and part.stored else 0


def limits_of(times: Mapping[Pair, float], failures: Mapping[Pair, str], kernels: KernelSet, threads: int) -> Roofline:
    """The limits that the shortest run of each kernel, in seconds, shows: the best rate of each kind. Pure."""
    rates = {pair: pair[0].multiply_adds / seconds for pair, seconds in times.items() if pair[0] in kernels.compute}
    reads = {
        kernel: kernel.weight_bytes / seconds for (kernel, _), seconds in times.items() if kernel in kernels.memory
    }
    best = {
        precision: max((pair for pair in rates if pair[1] is precision), key=rates.__getitem__, default=None)
        for precision in (Precision.FP32, Precision.INT8_STATIC)
    }
    fp32, int8 = (rates[pair] if pair else None for pair in best.values())
    reasons = [f"{kernel.name} in {precision}: {why}" for (kernel, precision), why in failures.items()]
    if int8 is None and not reasons:
        reasons = ["the format holds no INT8 kernels"]
    described = _describe(best, reads)
    return Roofline(threads, fp32, int8, max(reads.values(), default=None), described, reason="; ".join(reasons))


def _describe(best: Mapping[Precision, Pair | None], reads: Mapping[Kernel, float]) -> str:
    """Which kernels the limits come from, and how fast weights of each size are read."""
    parts = [f"{precision}: {pair[0].label}" for precision, pair in best.items() if pair]
    sizes = [f"{rate / 1e9:.0f} GB/s of {kernel.weight_bytes / 1e6:.0f} MB" for kernel, rate in reads.items()]
    return "; ".join([*parts, f"weights read at {', '.join(sizes)}"] if sizes else parts)


@dataclass(frozen=True)
class Plan:
    """What is common to the limits of all runtimes."""

    store: Store
    launcher: Launcher
    threads: int
    kernels: KernelSet
    seconds: float

    def roofline(self, runtime: str, version: str) -> Roofline:
        """The limits of one runtime, from the store when they were measured before."""
        machine = describe_environment([])
        inputs = (machine.cpu, machine.isa, machine.cores, runtime, version, self.threads, asdict(self.kernels))

        def make(folder: Path) -> Mapping[str, Any]:
            say(f"measuring what {runtime} reaches at best with threads={self.threads}")
            return asdict(self._measure(runtime, folder))

        try:
            key = content_key(ROOFLINE_VERSION, KERNELS_VERSION, *inputs)
            return Roofline(**self.store.build("rooflines", key, f"the limits of {runtime}", make).facts)
        except _NotKept as found:
            say(f"the limits of {runtime} are not kept: {found}")
            return found.roofline

    def _measure(self, runtime: str, folder: Path) -> Roofline:
        """Build and time the kernels; raw times go to `folder`. Raises _NotKept."""
        built, failures = self._build(find_runtime(runtime).formats[0])
        try:
            with self.store.lock("timing", "a benchmark (two at once would time each other)"), Watch() as watch:
                times, failed = self._time(runtime, built, folder)
        except CaptionbenchError as error:
            raise _NotKept(Roofline(self.threads, None, None, None, "", reason=str(error))) from error
        found = limits_of(times, failures | failed, self.kernels, self.threads)
        disturbed = why_disturbed(watch.disturbance) if is_disturbed(watch.disturbance) else ""
        if disturbed or not times:
            raise _NotKept(replace(found, reason="; ".join(filter(None, (found.reason, disturbed)))))
        return found

    def _build(self, format_: Format) -> tuple[dict[Pair, Path], dict[Pair, str]]:
        """The kernels' files, and why some could not be made."""
        built: dict[Pair, Path] = {}
        failures: dict[Pair, str] = {}
        for kernel, precision in self.kernels.of(format_):
            try:
                built[kernel, precision] = build_kernel(self.store, kernel, format_, precision)
            except CaptionbenchError as error:
                failures[kernel, precision] = str(error)
        return built, failures

    def _time(
        self, runtime: str, built: Mapping[Pair, Path], folder: Path
    ) -> tuple[dict[Pair, float], dict[Pair, str]]:
        """Seconds of the kernels that ran, in a process of the runtime's environment. Raises WorkerError."""
        named = {f"{kernel.name}.{precision}": (kernel, precision) for kernel, precision in built}
        files = tuple(KernelFile(name, str(built[pair]), pair[0].input_shape) for name, pair in named.items())
        job, out = folder / "job.json", folder / "times.json"
        KernelJob(runtime, self.threads, self.seconds, INPUT, files).write(job)
        self.launcher.run(runtime, ["-m", "bench.roofline_worker", str(job), str(out)])
        found = KernelTimes(**json.loads(out.read_text(encoding="utf-8")))
        return (
            {named[name]: seconds for name, seconds in found.seconds.items()},
            {named[name]: why for name, why in found.failures.items()},
        )
