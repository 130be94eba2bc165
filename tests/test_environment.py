"""What is said about a machine, on x86, on Arm, and where nothing can be read."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.environment import commit, cpu_name, describe_environment, peak_rss_bytes
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
