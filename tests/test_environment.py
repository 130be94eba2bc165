"""What is said about a machine, on x86, on Arm, and where nothing can be read."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.cgroups import Limits, container_limits, throttled_seconds
from bench.environment import (
    commit,
    cpu_name,
    describe_environment,
    is_virtual,
    load_average,
    peak_rss_bytes,
    read_governor,
)
from bench.head import merge_environments
from convert import machine
from convert.machine import isa_flags, parse_cpu_info

X86 = """processor\t: 0
model name\t: Example CPU @ 2.00GHz
flags\t\t: fpu sse4_2 avx fma avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Second CPU
"""
ARM = """processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B
"""


def test_cpu_info_of_x86_and_arm() -> None:
    x86, arm = parse_cpu_info(X86), parse_cpu_info(ARM)
    assert cpu_name(x86) == "Example CPU @ 2.00GHz"
    assert isa_flags(x86) == ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni")
    assert cpu_name(arm) == "Raspberry Pi 5 Model B"
    assert isa_flags(arm) == ("asimd", "asimdhp", "asimddp", "i8mm")


def test_guest_is_told_by_its_cpu() -> None:
    assert is_virtual(parse_cpu_info(X86.replace("fpu", "fpu hypervisor")))
    assert not is_virtual(parse_cpu_info(X86))
    assert not is_virtual({})


def test_governor_is_read_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "scaling_governor").write_text("powersave\n", encoding="utf-8")
    assert read_governor(tmp_path / "scaling_governor") == "powersave"
    assert read_governor(tmp_path / "missing") == ""


def test_load_is_empty_where_nothing_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1.234, 0.5, 0.0))
    assert load_average() == (1.23, 0.5, 0.0)
    monkeypatch.delattr("os.getloadavg")
    assert load_average() == ()


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize("group", ["/", "/docker/0123/inner", "/../outside"])
def test_limits_of_a_container_that_sees_itself_as_root(tmp_path: Path, group: str) -> None:
    root = write_files(
        tmp_path,
        {
            "proc/self/cgroup": f"0::{group}\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "2147483648\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 99\nnr_throttled 4\nthrottled_usec 2500000\n",
        },
    )
    assert container_limits(root) == Limits(cpus=1.5, memory_bytes=2**31)
    assert throttled_seconds(root) == 2.5


def test_strictest_limit_of_a_group_and_its_ancestors_counts(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/outer/cpu.stat": "throttled_usec 3000000\n",
            "sys/fs/cgroup/outer/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/outer/inner/cpu.stat": "throttled_usec 0\n",
            "sys/fs/cgroup/outer/inner/memory.max": "1000000\n",
        },
    )
    assert container_limits(root) == Limits(cpus=0.5, memory_bytes=1_000_000)
    assert throttled_seconds(root) == 3.0


def test_limits_of_the_first_version(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "25000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.stat": "nr_throttled 4\nthrottled_time 2500000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1048576\n",
        },
    )
    assert container_limits(root) == Limits(cpus=0.25, memory_bytes=2**20)
    assert throttled_seconds(root) == 2.5


def test_nothing_is_limited_without_a_limit(tmp_path: Path) -> None:
    root = write_files(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        },
    )
    assert container_limits(root) == container_limits(tmp_path / "missing") == Limits(None, None)
    assert throttled_seconds(root) == throttled_seconds(tmp_path / "missing") == 0.0


def test_environment_lists_every_version_that_its_parts_hold() -> None:
    described = {
        name: {"environment": {"packages": {"numpy": version, "ai-edge-litert": "9.9"}}}
        for name, version in (("tflite", "0.1"), ("onnxruntime", np.__version__))
    }
    merged = merge_environments({**described, "tensorflow": "not installed"})
    assert merged.packages["numpy"] == f"{np.__version__}, 0.1"
    assert merged.packages["ai-edge-litert"].endswith("9.9")
    assert (merged.governor, merged.cpu_limit) == (read_governor(), container_limits().cpus)


def test_environment_describes_this_machine() -> None:
    described = describe_environment(["numpy", "no-such-package-here"])
    assert described.packages == {"numpy": np.__version__}
    assert described.cpu
    assert 1 <= described.cores <= (psutil.cpu_count() or 1)
    assert described.memory_bytes == psutil.virtual_memory().total
    assert described.python == ".".join(map(str, sys.version_info[:3]))


def test_environment_has_no_isa_where_nothing_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "missing")
    described = describe_environment([])
    assert described.isa == ()
    assert described.cpu


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_names_the_checkout_and_its_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) == ""
    git("init", "--quiet")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    git("add", "file")
    git("commit", "--quiet", "-m", "First")
    git("tag", "v1")  # a tag must not replace the hash
    assert commit(tmp_path) == git("rev-parse", "--short", "HEAD")
    (tmp_path / "file").write_text("two", encoding="utf-8")
    assert commit(tmp_path) == git("rev-parse", "--short", "HEAD") + "-dirty"


def test_commit_is_empty_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == ""


def test_peak_rss_grows_with_memory() -> None:
    before = peak_rss_bytes()
    held = b"x" * (before + 64 * 2**20)  # more than any peak so far
    assert peak_rss_bytes() >= len(held)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux carries the peak over exec")
def test_peak_rss_of_a_child_is_not_its_parents() -> None:
    held = b"x" * (256 * 2**20)
    code = "from bench.environment import peak_rss_bytes; print(peak_rss_bytes())"
    root = Path(machine.__file__).parent.parent
    child = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert 0 < int(child.stdout) < len(held)
