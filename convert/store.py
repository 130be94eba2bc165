"""The content-addressed store: what was built from the same inputs by the same tools is never built again.

Layout: `ROOT/KIND/KEY/` holds finished entries, each with a `manifest.json` of checksums; `ROOT/unfinished/`
holds what unfinished ones need to resume (checkpoints); `ROOT/locks/` keeps two runs from building the
same entry at once; `ROOT/spent/` tells how long entries took. An entry is built in a hidden folder and renamed
into place, so it is there whole or not at all, whatever kills the run. The kernel frees a killed run's lock.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import ArtifactError
from models.files import sha256_of, write_text_atomic
from models.progress import say

MANIFEST = "manifest.json"
# How long entries took, by the process that finished them; not inside, so that an entry is the same bytes every time.
SPENT = "spent"


@dataclass(frozen=True)
class Entry:
    """A finished entry. `facts` is what its builder recorded; `reused` tells whether this run built it."""

    path: Path
    facts: Mapping[str, Any]
    reused: bool


def default_root() -> Path:
    """`$CAPTIONBENCH_STORE`, or `.captionbench` in the working directory."""
    return Path(os.environ.get("CAPTIONBENCH_STORE", ".captionbench")).absolute()


@dataclass(frozen=True)
class Store:
    """A folder of finished entries by kind and content key. `spent`: seconds that the entries of this run took."""

    root: Path
    spent: dict[tuple[str, str], float] = field(default_factory=dict, compare=False)

    def find(self, kind: str, key: str) -> Entry | None:
        """The finished entry, checked against its checksums. None when absent; raises ArtifactError when corrupt."""
        path = self.root / kind / key
        return Entry(path, read_manifest(path)["facts"], reused=True) if path.is_dir() else None

    def build(self, kind: str, key: str, label: str, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """The entry, built by `make(folder) -> facts` unless it is there already.

        A corrupt entry is set aside (`KEY.corrupt`) and built again, and the run says so.
        """
        with self.lock(f"{kind}-{key}", label):
            try:
                found = self.find(kind, key)
            except ArtifactError as error:
                self._set_aside(kind, key, error)
                found = None
            entry = found or self._make(kind, key, make)
        self.spent[kind, key] = self._seconds(kind, key)
        return entry

    def spent_on(self, kind: str) -> float:
        """Seconds that all entries of a kind took which this run asked for, whichever run made them."""
        return sum(seconds for (found, _), seconds in self.spent.items() if found == kind)

    def _note_seconds(self, kind: str, key: str, seconds: float) -> None:
        path = self._spent_path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, f"{seconds:.6f}\n")

    def _seconds(self, kind: str, key: str) -> float:
        """What an entry took; 0 for one from before this was noted."""
        try:
            return float(self._spent_path(kind, key).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0.0

    def _spent_path(self, kind: str, key: str) -> Path:
        return self.root / SPENT / f"{kind}-{key}.seconds"

    def work(self, kind: str, key: str) -> Path:
        """Where an unfinished entry keeps what it needs to resume."""
        return self.root / "unfinished" / f"{kind}-{key}"

    @contextmanager
    def lock(self, name: str, label: str) -> Iterator[None]:
        """Hold the lock `name`; waits, and says so, while another run holds it."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another run is building {label}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make(self, kind: str, key: str, make: Callable[[Path], Mapping[str, Any]]) -> Entry:
        target = self.root / kind / key
        partial = target.with_name(f".{key}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a killed run; the lock is ours
        partial.mkdir(parents=True)
        try:
            started = time.monotonic()
            facts = make(partial)
            self._note_seconds(kind, key, time.monotonic() - started)
            write_manifest(partial, facts)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(self.work(kind, key), ignore_errors=True)
        return Entry(target, facts, reused=False)

    def _set_aside(self, kind: str, key: str, error: ArtifactError) -> None:
        path = self.root / kind / key
        aside = path.with_name(f"{key}.corrupt")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        say(f"{error} It was moved to {aside.name} and is built again.")


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Record `facts` and the size and SHA-256 of every file of `folder`."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_text_atomic(folder / MANIFEST, json.dumps({"files": files, "facts": facts}, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, after checking every file against it. Raises ArtifactError."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        manifest["facts"]
    except FileNotFoundError:
        raise ArtifactError(f"{folder} is not an artifact: it has no {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged ({error}). Build it again.") from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{folder} is incomplete: {name} is missing. Build it again.")
        if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
            raise ArtifactError(f"{path} is corrupt: its checksum is not the manifest's. Build it again.")
    return manifest
