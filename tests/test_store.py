"""The store: whole or not at all, whatever happens while building."""

import errno
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from convert.store import MANIFEST, Store
from models.errors import ArtifactError
from models.files import write_bytes_atomic

ROOT = Path(__file__).parent.parent


def make(folder: Path) -> Mapping[str, Any]:
    (folder / "model.bin").write_bytes(b"weights")
    return {"answer": 42}


def refuse(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("built again")


def test_build_makes_an_entry_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.build("things", "k1", "thing", make)
    second = store.build("things", "k1", "thing", refuse)
    assert (first.reused, second.reused) == (False, True)
    assert second.facts == {"answer": 42}
    assert (second.path / "model.bin").read_bytes() == b"weights"


def test_store_knows_how_long_an_entry_took_whoever_made_it(tmp_path: Path) -> None:
    first = Store(tmp_path)
    manifest = first.build("things", "k1", "thing", make).path / MANIFEST
    before = manifest.read_bytes()
    second = Store(tmp_path)
    second.build("things", "k1", "thing", refuse)
    assert second.spent_on("things") == first.spent_on("things") > 0
    assert second.spent_on("others") == 0
    assert manifest.read_bytes() == before
    (tmp_path / "spent" / "things-k1.seconds").write_text("damaged")
    third = Store(tmp_path)
    third.build("things", "k1", "thing", refuse)
    assert third.spent_on("things") == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_build_leaves_nothing_when_it_fails(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "half").write_bytes(b"ha")
        raise error

    store = Store(tmp_path)
    with pytest.raises(type(error)):
        store.build("things", "k1", "thing", fail)
    assert store.find("things", "k1") is None
    assert list((tmp_path / "things").iterdir()) == []
    assert not store.build("things", "k1", "thing", make).reused


def test_build_starts_over_what_a_killed_run_left(tmp_path: Path) -> None:
    left = tmp_path / "things" / ".k1.partial"
    left.mkdir(parents=True)
    (left / "old").write_bytes(b"half a file")
    entry = Store(tmp_path).build("things", "k1", "thing", make)
    assert sorted(p.name for p in entry.path.iterdir()) == [MANIFEST, "model.bin"]


def test_build_forgets_its_checkpoints_once_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.work("things", "k1").mkdir(parents=True)
    (store.work("things", "k1") / "checkpoint.npz").write_bytes(b"state")
    store.build("things", "k1", "thing", make)
    assert not store.work("things", "k1").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_corrupt_entry_is_an_error_and_is_set_aside_when_built(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    entry = store.build("things", "k1", "thing", make)
    model, manifest = entry.path / "model.bin", entry.path / MANIFEST
    damages: dict[str, Callable[[], object]] = {
        "flip": lambda: model.write_bytes(b"weighty"),
        "truncate": lambda: model.write_bytes(b"we"),
        "remove": model.unlink,
        "manifest": lambda: manifest.write_text("{"),
        "no manifest": manifest.unlink,
    }
    damages[damage]()
    with pytest.raises(ArtifactError):
        store.find("things", "k1")
    again = store.build("things", "k1", "thing", make)
    assert not again.reused
    assert (tmp_path / "things" / "k1.corrupt").is_dir()
    assert store.build("things", "k1", "thing", refuse).reused


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from convert.store import Store
def make(folder):
    time.sleep(1.0)
    with open(sys.argv[2], "a") as log: log.write("built\\n")
    (folder / "x").write_text("x")
    return {}
print(Store(Path(sys.argv[1])).build("things", "k", "the thing", make).reused)
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path / "store"), str(tmp_path / "log")]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_runs_at_once_build_once(tmp_path: Path) -> None:
    runs = [start(tmp_path), start(tmp_path)]
    outputs = [run.communicate(timeout=30) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(out.strip() for out, _ in outputs) == ["False", "True"]
    assert (tmp_path / "log").read_text() == "built\n"
    assert any("another run is building the thing" in error for _, error in outputs)


def test_killed_run_leaves_no_lock_and_no_entry(tmp_path: Path) -> None:
    run = start(tmp_path)
    partial = tmp_path / "store" / "things" / ".k.partial"
    deadline = time.monotonic() + 20
    while not partial.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.kill()
    run.communicate()
    store = Store(tmp_path / "store")
    assert store.find("things", "k") is None
    assert not store.build("things", "k", "the thing", make).reused


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_bytes_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
