"""What Linux's control groups allow this process, and for how long they held it back: a container's limits.

Both versions are read (kernel.org: admin-guide/cgroup-v2, scheduler/sched-bwc, admin-guide/cgroup-v1/memory). A group
is bound by its ancestors' limits too, so the strictest counts. Where there are no groups, nothing is limited.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

_ROOT = Path("/")
# Version 1 writes "no limit" as the largest multiple of a page below 2**63.
_UNLIMITED_BYTES = 2**62

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the groups of this process may use; None where nothing limits it."""

    cpus: float | None  # cores' worth of time, on whichever CPUs
    memory_bytes: int | None


def container_limits(root: Path = _ROOT) -> Limits:
    """The strictest limits of this process's groups. `root` holds `proc` and `sys`."""
    return Limits(
        cpus=min(_found(map(_cpus, _groups(root, "cpu"))), default=None),
        memory_bytes=min(_found(map(_memory_bytes, _groups(root, "memory"))), default=None),
    )


def throttled_seconds(root: Path = _ROOT) -> float:
    """For how long the CPU quota has held this process's group back so far, summed over CPUs; 0 without a quota."""
    return max((_throttled_seconds(group) for group in _groups(root, "cpu")), default=0.0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's group and of its ancestors, as far as they can be seen from here."""
    mount, group = _own_group(root, controller)
    # A container sees its own group as the mount's root, whatever name the host has for it.
    names = [] if ".." in group.parts else [part for part in group.parts if part != "/"]
    for depth in range(len(names), -1, -1):
        folder = mount.joinpath(*names[:depth])
        if folder.is_dir():
            yield folder


def _own_group(root: Path, controller: str) -> tuple[Path, PurePosixPath]:
    """Where a controller's groups are mounted, and which one is ours: lines of `ID:CONTROLLERS:GROUP`."""
    mounts = root / "sys/fs/cgroup"
    own = PurePosixPath("/")
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controller in controllers.split(","):
            return mounts / controller, PurePosixPath(group)
        if not controllers:  # version 2 has one tree for all
            own = PurePosixPath(group)
    return mounts, own


def _cpus(group: Path) -> float | None:
    written = _read(group / "cpu.max") or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    quota, _, period = written.strip().partition(" ")
    if not quota.isdecimal() or not period.strip().isdecimal():  # "max" and "-1": no limit
        return None
    return int(quota) / int(period)


def _memory_bytes(group: Path) -> int | None:
    written = (_read(group / "memory.max") or _read(group / "memory.limit_in_bytes")).strip()
    if not written.isdecimal() or int(written) >= _UNLIMITED_BYTES:
        return None
    return int(written)


def _throttled_seconds(group: Path) -> float:
    """Version 2 counts microseconds, version 1 nanoseconds."""
    counts = dict(line.split(maxsplit=1) for line in _read(group / "cpu.stat").splitlines() if " " in line)
    return int(counts.get("throttled_usec", 0)) / 1e6 or int(counts.get("throttled_time", 0)) / 1e9


def _found(values: Iterable[_Number | None]) -> list[_Number]:
    return [value for value in values if value is not None]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
