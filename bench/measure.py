"""Measures built artifacts: captions once (kept in the store), then interleaved rounds of timing."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import DatasetReference, Job
from bench.latency import SHARES
from bench.launcher import Launcher, WorkerError
from bench.result import Phase, RunPlan
from bench.statistics import MAXIMUM_DRIFT, drift
from bench.suite import Cell
from convert.artifact import Artifact
from convert.scheme import FLOAT
from convert.store import Store
from models.decoding import Search
from models.files import content_key
from models.progress import say, track

# Raised when a change makes the same artifact caption or be timed in another way.
CAPTION_VERSION = 2
TIMING_VERSION = 2

TIMED_IMAGES = 16
# How long to time is planned from the fastest warm-up call; a little more makes sure that the seconds come together.
MARGIN = 1.3
AGAIN = ".again"  # marks the second measurement of one artifact, for the noise floor


@dataclass(frozen=True)
class Captioned:
    """What a quality run found. `captions`: search offered -> image -> {caption, ids, log_probability}."""

    captions: Mapping[Search, Mapping[str, Mapping[str, Any]]]
    probe: Mapping[str, Any]  # tensor name -> array of the probe images
    peak_rss_bytes: int
    loaded_bytes: int
    runtime_version: str

    def sentences(self, search: Search) -> dict[str, str]:
        """Caption by image."""
        return {image: found["caption"] for image, found in self.captions[search].items()}

    def ids(self, search: Search) -> dict[str, tuple[int, ...]]:
        """Token ids by image."""
        return {image: tuple(found["ids"]) for image, found in self.captions[search].items()}


@dataclass(frozen=True)
class Timed:
    """Raw seconds of one row: phase -> samples of each round in time order."""

    seconds: Mapping[Phase, Sequence[Sequence[float]]]
    total_seconds: float  # of timing in the steady phases, iterations included
    differing: Sequence[str]  # images whose timed caption was not the quality run's

    def samples(self, phase: Phase) -> list[float]:
        """All samples of a phase in time order."""
        return [sample for part in self.seconds.get(phase, ()) for sample in part]


@dataclass(frozen=True)
class Bench:
    """What is common to all rows of a run."""

    store: Store
    launcher: Launcher
    dataset: DatasetReference
    fingerprint: str  # of the data set
    images: tuple[str, ...]
    plan: RunPlan
    versions: Mapping[str, str]  # of the runtimes

    def caption(self, cell: Cell, artifact: Artifact) -> Captioned:
        """Captions of all test images; from the store when this artifact was captioned here before."""
        version = self.versions[cell.runtime]
        key = content_key(
            CAPTION_VERSION, artifact.sha256, cell.runtime, version, self.fingerprint, self.images, self.plan.threads
        )

        def make(folder: Path) -> dict[str, Any]:
            job = self._job(cell, artifact).write(folder / "job.json")
            self.launcher.caption(cell.runtime, job, folder / "captions.json")
            return {"cell": cell.name}

        entry = self.store.build("captions", key, f"captions of {cell.name}", make)
        return _read_captioned(entry.path / "captions.json")

    def time(
        self, cells: Mapping[Cell, Artifact], captioned: Mapping[Cell, Captioned], *, baseline: str = ""
    ) -> dict[str, Timed | str]:
        """Raw seconds by row name, or why a row failed; rounds are interleaved, finished ones are kept.

        The row named `baseline` is measured once more when it drifted, because nothing can be compared without it.
        """
        by_name = {cell.name: cell for cell in cells}
        again = _noise_cell(list(cells))
        by_name[f"{again.name}{AGAIN}"] = again
        images = representative_images(self.images, next(iter(captioned.values()), None), self.plan.seed)
        jobs = {
            name: self._timing_job(cell, cells[cell], captioned.get(cell), images) for name, cell in by_name.items()
        }
        work = self._timing_work(cells)
        failures: dict[str, str] = {}
        with self.store.lock("timing", "a benchmark (two at once would time each other)"):
            self._time_rounds(work, jobs, failures)
            timed = {name: self._read_rounds(work, name) for name in jobs if name not in failures}
            if baseline in timed and _caption_drift(timed[baseline]) > MAXIMUM_DRIFT:
                self._time_rounds(work / "again", {baseline: jobs[baseline]}, failures)
                if baseline not in failures:
                    second = self._read_rounds(work / "again", baseline)
                    timed[baseline] = min(timed[baseline], second, key=_caption_drift)
        return timed | failures

    def _read_rounds(self, folder: Path, name: str) -> Timed:
        return _read_timed([_round_path(folder, round_, name) for round_ in range(self.plan.rounds)])

    def _time_rounds(self, folder: Path, jobs: Mapping[str, Job], failures: dict[str, str]) -> None:
        """Time each row once a round, in rotating order; a row that fails joins `failures` and is left out."""
        folder.mkdir(parents=True, exist_ok=True)
        for round_, name in track(schedule(list(jobs), self.plan.rounds), "timing"):
            out = _round_path(folder, round_, name)
            if out.is_file() or name in failures:
                continue
            try:
                self.launcher.time(jobs[name].runtime, jobs[name].write(out.with_suffix(".job")), out)
            except WorkerError as error:
                failures[name] = str(error)
                say(f"{name}: {error}")

    def forget_timing(self, cells: Mapping[Cell, Artifact]) -> None:
        """Remove the finished rounds of a complete measurement, so that the next run measures anew."""
        shutil.rmtree(self._timing_work(cells), ignore_errors=True)

    def _timing_work(self, cells: Mapping[Cell, Artifact]) -> Path:
        """Where the rounds of exactly this measurement are kept until it is complete."""
        rows = {cell.name: artifact.sha256 for cell, artifact in cells.items()}
        return self.store.work("timing", content_key(TIMING_VERSION, self.plan, rows, self.images, self.versions))

    def _job(self, cell: Cell, artifact: Artifact) -> Job:
        return Job(str(artifact.path), cell.runtime, self.plan.threads, self.dataset, self.images)

    def _timing_job(
        self, cell: Cell, artifact: Artifact, captioned: Captioned | None, timed_images: tuple[str, ...]
    ) -> Job:
        return dataclasses.replace(
            self._job(cell, artifact),
            images=timed_images,
            seconds=self.plan.minimum_seconds / self.plan.rounds * MARGIN,
            samples=-(-self.plan.minimum_samples // self.plan.rounds),
            warmup=self.plan.warmup,
            captions=captioned.sentences(Search.GREEDY) if captioned else {},
        )


def _round_path(folder: Path, round_: int, name: str) -> Path:
    return folder / f"{round_}-{content_key(name)}.json"


def _caption_drift(timed: Timed) -> float:
    return drift(timed.seconds[Phase.CAPTION])


def _noise_cell(cells: Sequence[Cell]) -> Cell:
    """The row that is measured twice: fp32 on ONNX Runtime where there is one, because it is steady."""
    return next((c for c in cells if c.runtime == "onnxruntime" and c.recipe.encoder == FLOAT), cells[0])


def representative_images(images: Sequence[str], captioned: Captioned | None, seed: int) -> tuple[str, ...]:
    """Images to time: evenly spaced in the length of their captions, in random order.

    A caption's time is mostly its length. Few images make every half of every round hold all of them, so that
    halves and rows differ by speed and not by which captions they happened to get.
    """
    ids = captioned.ids(Search.GREEDY) if captioned else {}
    by_length = sorted(images, key=lambda image: (len(ids.get(image, ())), image))
    count = min(TIMED_IMAGES, len(by_length))
    chosen = [by_length[(2 * rank + 1) * len(by_length) // (2 * count)] for rank in range(count)]
    return tuple(chosen[i] for i in np.random.default_rng(seed).permutation(count))


def schedule(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """(round, row) with the rows rotated from round to round: A B C, B C A, ..."""
    return [(round_, names[(index + round_) % len(names)]) for round_ in range(rounds) for index in range(len(names))]


def _read_captioned(path: Path) -> Captioned:
    table = json.loads(path.read_text(encoding="utf-8"))
    captions: dict[Search, dict[str, Any]] = {
        search: {image: found[search] for image, found in table["captions"].items()}
        for search in Search
        if all(search in found for found in table["captions"].values())
    }
    with np.load(path.with_suffix(".npz")) as file:
        probe = {name: file[name] for name in file.files}
    return Captioned(captions, probe, table["peak_rss_bytes"], table["loaded_bytes"], table["runtime_version"])


def _read_timed(paths: Sequence[Path]) -> Timed:
    seconds: dict[Phase, list[list[float]]] = {}
    total, differing = 0.0, set()
    for phase, data, extra in _read_rounds(paths):
        seconds.setdefault(phase, []).append(data)
        # Loading and the first caption are timed once a process; only the steady state is sampled.
        total += sum(data) * extra["iterations"] if phase in SHARES else 0.0
        differing |= set(extra.get("differing", ()))
    return Timed(seconds, total, sorted(differing))


def _read_rounds(paths: Sequence[Path]) -> Iterator[tuple[Phase, list[float], Mapping[str, Any]]]:
    for path in paths:
        for benchmark in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
            # Five digits: far below the clock's and the machine's noise, and results.json stays small.
            data = [float(f"{value:.5g}") for value in benchmark["stats"]["data"]]
            yield Phase(benchmark["extra_info"]["phase"]), data, benchmark["extra_info"]
