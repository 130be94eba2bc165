"""The machine and the software of a run: no number is worth anything without them."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import psutil

from bench.result import Environment

# Instruction sets that decide how fast inference can be, as Linux spells them: x86, then Arm.
ISA_FLAGS = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)

_CPU_INFO = Path("/proc/cpuinfo")
_PROCESS_STATUS = Path("/proc/self/status")
_REPOSITORY = Path(__file__).parent.parent


def describe_environment(packages: Sequence[str]) -> Environment:
    """What runs here; `packages` that are not installed are left out."""
    cpu_info = parse_cpu_info(_read(_CPU_INFO))
    return Environment(
        cpu=cpu_name(cpu_info) or platform.processor() or platform.machine(),
        cores=_usable_cores(),
        isa=isa_flags(cpu_info),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(packages),
    )


def parse_cpu_info(text: str) -> dict[str, str]:
    """/proc/cpuinfo as key -> value of the first processor that has the key."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields


def cpu_name(cpu_info: dict[str, str]) -> str:
    """The marketing name where there is one; Arm boards have only their own name, or none."""
    return next((cpu_info[key] for key in ("model name", "Model", "Hardware") if cpu_info.get(key)), "")


def isa_flags(cpu_info: dict[str, str]) -> tuple[str, ...]:
    """ISA_FLAGS that this CPU has; x86 lists them as `flags`, Arm as `Features`."""
    present = {*cpu_info.get("flags", "").split(), *cpu_info.get("Features", "").split()}
    return tuple(flag for flag in ISA_FLAGS if flag in present)


def commit(folder: Path = _REPOSITORY) -> str:
    """Short hash of the checkout, with '-dirty' when tracked files were changed; '' outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


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
