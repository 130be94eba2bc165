"""Examines the rows of a run: their reference is traced once, and each replays its own graphs against that trace.

Only images whose caption or pixels differ are replayed, and a few probe images that measure noise. The trace is large
(half a megabyte an image) and lies in the store only while it is needed; what was found is small and kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.launcher import Launcher, WorkerError
from bench.measure import CAPTION_VERSION, Bench, Captioned
from bench.parity.evidence import Examined
from bench.parity.job import ParityJob
from bench.result_file import from_json
from bench.suite import Cell
from convert.artifact import Artifact
from models.decoding import Caption, Search
from models.errors import ArtifactError
from models.files import content_key
from models.progress import say

# Raised when a change makes the same captions be examined in another way.
PARITY_VERSION = 3
# Images that are replayed whatever their captions, to measure noise: some 200 steps.
PROBE_IMAGES = 16
_WRITTEN = "examined.json"


def examine_rows(
    bench: Bench, cells: Mapping[Cell, Artifact], captioned: Mapping[Cell, Captioned], twins: Mapping[Cell, Cell]
) -> dict[Cell, Examined | str]:
    """What a replay shows of each row against its twin; or why there is none. Finished ones come from the store."""
    found: dict[Cell, Examined | str] = {}
    for twin in dict.fromkeys(twins.values()):
        rows = [cell for cell, of in twins.items() if of == twin != cell]
        found |= _Examination(bench, cells, captioned, twin).examine(rows)
    return found


def save_trace(bench: Bench, cell: Cell, artifact: Artifact, captioned: Captioned, folder: Path) -> None:
    """Leave a row's trace of all images, their files beside it, in a new folder. Raises WorkerError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    job = replace(parity_job(bench, cell, artifact, captioned, bench.images), keep_files=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        run_worker(bench.launcher, cell.runtime, "trace", job, Path(scratch), Path(scratch) / "trace")
        (Path(scratch) / "trace").replace(folder)


def differing_images(search: Search, captioned: Captioned, twin: Captioned) -> list[str]:
    """Images that the two caption with different tokens; none where one of them lacks the search."""
    if search not in captioned.captions or search not in twin.captions:
        return []
    theirs, ours = twin.ids(search), captioned.ids(search)
    return [image for image in theirs if theirs[image] != ours[image]]


class _Examination:
    """One reference and the rows that are compared with it."""

    def __init__(
        self, bench: Bench, cells: Mapping[Cell, Artifact], captioned: Mapping[Cell, Captioned], twin: Cell
    ) -> None:
        self._bench, self._cells, self._captioned, self._twin = bench, cells, captioned, twin

    def examine(self, rows: Sequence[Cell]) -> dict[Cell, Examined | str]:
        found: dict[Cell, Examined | str] = {cell: kept for cell in rows if (kept := self._kept(cell))}
        missing = [cell for cell in rows if cell not in found]
        if missing:
            say(f"comparing {len(missing)} rows with {self._twin.name}")
            found |= dict(self._replay(missing))
        return found

    def _kept(self, cell: Cell) -> Examined | None:
        try:
            entry = self._bench.store.find("parity", self._key(cell))
        except ArtifactError:
            return None  # damaged: it is made again
        return read_examined(entry.path / _WRITTEN) if entry else None

    def _replay(self, rows: Sequence[Cell]) -> Iterator[tuple[Cell, Examined | str]]:
        """Trace the reference, then examine each row."""
        folder = self._bench.store.root / "unfinished"
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="trace-", dir=folder) as trace:
            try:
                self._trace(Path(trace), rows)
            except WorkerError as error:
                yield from ((cell, f"the reference can't be replayed: {error}") for cell in rows)
                return
            for cell in rows:
                try:
                    yield cell, self._examine(cell, Path(trace))
                except WorkerError as error:
                    yield cell, f"it can't be replayed: {error}"

    def _trace(self, folder: Path, rows: Sequence[Cell]) -> None:
        wanted = {image for cell in rows for image in self._images(cell)} | set(probe_images(self._bench))
        images = [image for image in self._bench.images if image in wanted]
        job = parity_job(self._bench, self._twin, self._cells[self._twin], self._captioned[self._twin], images)
        run_worker(self._bench.launcher, self._twin.runtime, "trace", job, folder, folder / "trace")

    def _examine(self, cell: Cell, folder: Path) -> Examined:
        def make(entry: Path) -> dict[str, Any]:
            job = parity_job(self._bench, cell, self._cells[cell], self._captioned[cell], self._images(cell))
            run_worker(self._bench.launcher, cell.runtime, "examine", job, entry, folder / "trace", entry / _WRITTEN)
            return {"row": cell.name, "reference": self._twin.name}

        return read_examined(
            self._bench.store.build("parity", self._key(cell), f"parity of {cell.name}", make).path / _WRITTEN
        )

    def _images(self, cell: Cell) -> list[str]:
        ours, theirs = self._captioned[cell], self._captioned[self._twin]
        return images_to_replay(ours, theirs, self._bench.images, self._bench.plan.examined)

    def _key(self, cell: Cell) -> str:
        sides = [(self._cells[c].sha256, c.runtime, self._bench.versions[c.runtime]) for c in (self._twin, cell)]
        bench = self._bench
        # Left out where all are examined, so that what was examined before there was a choice is found.
        some = [bench.plan.examined] if bench.plan.examined else []
        asked = (bench.fingerprint, bench.images, bench.plan.threads, PROBE_IMAGES, *some)
        return content_key(PARITY_VERSION, CAPTION_VERSION, sides, *asked)


def images_to_replay(ours: Captioned, theirs: Captioned, images: Sequence[str], limit: int) -> list[str]:
    """The first `limit` images of which any caption differs, or the pixels do; 0 for all."""
    differing = {image for search in Search for image in differing_images(search, ours, theirs)}
    differing |= {image for image, pixels in theirs.pixels.items() if ours.pixels.get(image) != pixels}
    return [image for image in images if image in differing][: limit or None]


def probe_images(bench: Bench) -> tuple[str, ...]:
    """Images that are replayed whatever their captions."""
    return bench.images[:PROBE_IMAGES]


def parity_job(bench: Bench, cell: Cell, artifact: Artifact, captioned: Captioned, images: Sequence[str]) -> ParityJob:
    """What a worker replays of one row, with the captions that it is known to say."""
    probes = probe_images(bench)
    return ParityJob(
        artifact=str(artifact.path),
        runtime=cell.runtime,
        threads=bench.plan.threads,
        dataset=bench.dataset,
        fingerprint=bench.fingerprint,
        images=tuple(images),
        probes=probes,
        captions={
            search: {
                image: Caption(tuple(found[image]["ids"]), found[image]["log_probability"])
                for image in dict.fromkeys([*images, *probes])
            }
            for search, found in captioned.captions.items()
        },
    )


def run_worker(launcher: Launcher, runtime: str, verb: str, job: ParityJob, scratch: Path, *paths: Path) -> None:
    """Run one verb of `bench.parity.worker` in the runtime's environment. Raises WorkerError."""
    written = job.write(scratch / "job.json")
    launcher.run(runtime, ["-m", "bench.parity.worker", verb, str(written), *map(str, paths)])


def read_examined(path: Path) -> Examined:
    """Read what a worker found."""
    examined: Examined = from_json(Examined, json.loads(path.read_text(encoding="utf-8")))
    return examined
