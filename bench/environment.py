"""The machine and the software of a run: no number is worth anything without them."""

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import psutil

from bench.result import Environment
from convert.machine import isa_flags, parse_cpu_info, read_cpu_info

_PROCESS_STATUS = Path("/proc/self/status")
_REPOSITORY = Path(__file__).parent.parent


def describe_environment(packages: Sequence[str]) -> Environment:
    """What runs here; `packages` that are not installed are left out."""
    cpu_info = parse_cpu_info(read_cpu_info())
    return Environment(
        cpu=cpu_name(cpu_info) or platform.processor() or platform.machine(),
        cores=_usable_cores(),
        isa=isa_flags(cpu_info),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(packages),
    )


def cpu_name(cpu_info: dict[str, str]) -> str:
    """The marketing name where there is one; Arm boards have only their own name, or none."""
    return next((cpu_info[key] for key in ("model name", "Model", "Hardware") if cpu_info.get(key)), "")


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
