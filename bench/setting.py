"""Under which conditions a run was made: its plan, the machine, what runtimes cost and what they reach at best."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a suite is measured; recorded with the results.

    One process a row and round. `cpus` pins it to logical CPUs; () leaves that to the system. Python's garbage
    collector stays on while timing, as it would in use, and collects once before.
    """

    threads: int = 2  # of an operator (intra); operators run one after the other
    rounds: int = 12
    warmup: int = 3
    minimum_samples: int = 64
    minimum_seconds: float = 10.0
    seed: int = 2012
    quick: bool = False
    cpus: tuple[int, ...] = ()
    examined: int = 0  # images of a row's differing captions that are replayed to find out why, the first; 0: all


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the software a run was made with."""

    cpu: str
    cores: int
    isa: tuple[str, ...]  # instruction sets that matter for inference: avx2, avx512_vnni, ...
    memory_bytes: int
    system: str
    python: str
    packages: Mapping[str, str]  # "onnxruntime" -> "1.32.0", of the environment that ran it
    governor: str = ""  # of the CPU's frequency, "" where it can't be read
    hypervisor: bool = False
    cpu_limit: float | None = None  # cores that the container may use, None without a limit
    memory_limit_bytes: int | None = None  # of the container
    load_before: tuple[float, ...] = ()  # 1, 5 and 15 minutes' load average, before the timing
    load_after: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeCost:
    """What a runtime costs before any model: disk of the package and all it needs, and a new process to import it."""

    version: str
    install_bytes: int
    import_seconds: float
    import_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Roofline:
    """The most that this machine does on a runtime at the run's threads, measured with plain kernels."""

    threads: int
    fp32_macs_per_second: float | None
    int8_macs_per_second: float | None
    bytes_per_second: float | None
    kernels: str  # what was run
    reason: str = ""  # why something is None
