"""The machine and the software of a run: no number is worth anything without them."""

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import psutil

from bench.cgroups import container_limits
from bench.setting import Environment
from convert.machine import isa_flags, parse_cpu_info, read_cpu_info

_PROCESS_STATUS = Path("/proc/self/status")
_REPOSITORY = Path(__file__).parent.parent
# Of the first CPU: they are set together, unless somebody went out of their way.
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_environment(packages: Sequence[str]) -> Environment:
    """What runs here; `packages` that are not installed are left out.

    `cores` are the CPUs that this process may be scheduled on, `cpu_limit` is how much of them it may use.
    """
    cpu_info = parse_cpu_info(read_cpu_info())
    limits = container_limits()
    return Environment(
        cpu=cpu_name(cpu_info) or platform.processor() or platform.machine(),
        cores=_usable_cores(),
        isa=isa_flags(cpu_info),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(packages),
        governor=read_governor(),
        hypervisor=is_virtual(cpu_info),
        cpu_limit=limits.cpus,
        memory_limit_bytes=limits.memory_bytes,
    )


def cpu_name(cpu_info: dict[str, str]) -> str:
    """The marketing name where there is one; Arm boards have only their own name, or none."""
    return next((cpu_info[key] for key in ("model name", "Model", "Hardware") if cpu_info.get(key)), "")


def is_virtual(cpu_info: Mapping[str, str]) -> bool:
    """Whether an x86 CPU says that it runs under a hypervisor; Arm has no such flag."""
    return "hypervisor" in cpu_info.get("flags", "").split()


def read_governor(path: Path = _GOVERNOR) -> str:
    """What sets the CPU's frequency ("performance", "powersave"); "" where that can't be read, as in most guests."""
    return _read(path).strip()


def load_average() -> tuple[float, ...]:
    """Processes that ran or wanted to, means over 1, 5 and 15 minutes; () where the system does not count them."""
    try:
        return tuple(round(load, 2) for load in os.getloadavg())
    except (AttributeError, OSError):
        return ()


def commit(folder: Path = _REPOSITORY) -> str:
    """Short hash of the checkout, with '-dirty' when tracked files were changed; '' outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def resident_bytes() -> int:
    """Resident set of this process now, garbage collected first."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Peak resident set of this process so far.

    Linux's VmHWM comes first: ru_maxrss survives exec, so that a child started by a large parent would
    report its parent's memory (getrusage(2): "maximum resident set size"; fs/exec.c carries it over).
    """
    for line in _read(_PROCESS_STATUS).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def _usable_cores() -> int:
    """Logical CPUs that this process may use: fewer than the machine's in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
