"""Measures built artifacts: captions once (kept in the store), then interleaved rounds of timing."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import DatasetReference, Job
from bench.launcher import Launcher
from bench.measurement import GraphProfile
from bench.row_profiles import profile_artifact
from bench.setting import RunPlan
from bench.shared_encoder import encoder_key
from bench.suite import Cell
from bench.timed import Timed
from bench.timing import TIMING_VERSION, Timer, representative_images, timing_job
from convert.artifact import Artifact
from convert.recipe import Graph
from convert.scheme import FLOAT
from convert.store import Store
from models.decoding import Search
from models.files import content_key

# Raised when a change makes the same artifact caption in another way.
CAPTION_VERSION = 4

AGAIN = ".again"  # marks the second measurement of one artifact, for the noise floor


@dataclass(frozen=True)
class Captioned:
    """What a quality run found. `captions`: search offered -> image -> {caption, ids, log_probability}."""

    captions: Mapping[Search, Mapping[str, Mapping[str, Any]]]
    probe: Mapping[str, Any]  # tensor name -> array of the probe images
    peak_rss_bytes: int
    loaded_bytes: int
    runtime_version: str
    pixels: Mapping[str, str]  # image -> hash of the tensor that it was prepared to

    def sentences(self, search: Search) -> dict[str, str]:
        """Caption by image."""
        return {image: found["caption"] for image, found in self.captions[search].items()}

    def ids(self, search: Search) -> dict[str, tuple[int, ...]]:
        """Token ids by image."""
        return {image: tuple(found["ids"]) for image, found in self.captions[search].items()}


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
            job = dataclasses.replace(self._job(cell, artifact), features=self._features(cell, artifact))
            self.launcher.caption(cell.runtime, job.write(folder / "job.json"), folder / "captions.json")
            return {"cell": cell.name}

        entry = self.store.build("captions", key, f"captions of {cell.name}", make)
        return _read_captioned(entry.path / "captions.json")

    def time(self, cells: Mapping[Cell, Artifact], captioned: Mapping[Cell, Captioned]) -> dict[str, Timed | str]:
        """Raw seconds by row name, or why a row failed; rounds are interleaved, finished ones are kept.

        One row is timed twice under two names: the second ends in `AGAIN`.
        """
        by_name = {cell.name: cell for cell in cells}
        again = _noise_cell(list(cells))
        by_name[f"{again.name}{AGAIN}"] = again
        lengths = caption_lengths(self.images, captioned)
        images = representative_images(lengths, self.plan.seed)
        steps = self.forced_steps(cells, captioned)
        jobs = {
            name: self._timing_job(cell, cells[cell], captioned.get(cell), images, steps)
            for name, cell in by_name.items()
        }
        return self._timer(cells).time(jobs)

    def profile(self, cell: Cell, artifact: Artifact) -> dict[str, GraphProfile]:
        """Where the time of each graph goes, by the runtime's own profiler, or why that is not known."""
        version = self.versions[cell.runtime]
        return profile_artifact(self.store, self.launcher, artifact, cell.runtime, version, self.plan.threads)

    def forced_steps(self, cells: Mapping[Cell, Artifact], captioned: Mapping[Cell, Captioned]) -> int:
        """Steps of the captions of equal length: the mean caption's, and no more than each artifact can take."""
        longest = min((artifact.contract.max_length for artifact in cells.values()), default=1)
        lengths = list(caption_lengths(self.images, captioned).values())
        return min(longest, max(1, round(float(np.mean(lengths)))))

    def timing_seconds(self, cells: Mapping[Cell, Artifact]) -> float:
        """What this measurement's rounds took, whichever process made them; 0 once they are forgotten."""
        return self._timer(cells).spent_seconds

    def forget_timing(self, cells: Mapping[Cell, Artifact]) -> None:
        """Remove the finished rounds of a complete measurement, so that the next run measures anew."""
        self._timer(cells).forget()

    def _timer(self, cells: Mapping[Cell, Artifact]) -> Timer:
        """Keeps the rounds of exactly this measurement until it is complete."""
        rows = {cell.name: artifact.sha256 for cell, artifact in cells.items()}
        key = content_key(TIMING_VERSION, self.plan, rows, self.images, self.versions)
        return Timer(self.store, self.launcher, self.plan, key)

    def _features(self, cell: Cell, artifact: Artifact) -> str:
        """Where rows with this encoder on this runtime share its outputs, "" for a graph that has no encoder."""
        if artifact.recipe.graph is Graph.FUSED:
            return ""
        version, threads = self.versions[cell.runtime], self.plan.threads
        key = content_key(encoder_key(artifact), cell.runtime, version, self.fingerprint, self.images, threads)
        return str(self.store.root / "features" / f"{key}.npz")

    def _job(self, cell: Cell, artifact: Artifact) -> Job:
        return Job(str(artifact.path), cell.runtime, self.plan.threads, self.dataset, self.images)

    def _timing_job(
        self,
        cell: Cell,
        artifact: Artifact,
        captioned: Captioned | None,
        images: tuple[str, ...],
        forced_steps: int,
    ) -> Job:
        job = dataclasses.replace(
            self._job(cell, artifact),
            images=images,
            forced_steps=forced_steps,
            captions=captioned.sentences(Search.GREEDY) if captioned else {},
        )
        return timing_job(job, self.plan)


def _noise_cell(cells: Sequence[Cell]) -> Cell:
    """The row that is measured twice: fp32 on ONNX Runtime where there is one, because it is steady."""
    return next((c for c in cells if c.runtime == "onnxruntime" and c.recipe.encoder == FLOAT), cells[0])


def caption_lengths(images: Sequence[str], captioned: Mapping[Cell, Captioned]) -> dict[str, int]:
    """Steps of each image's greedy caption by the first row; 0 where nothing was captioned."""
    first = next(iter(captioned.values()), None)
    ids = first.ids(Search.GREEDY) if first else {}
    return {image: len(ids.get(image, ())) for image in images}


def _read_captioned(path: Path) -> Captioned:
    table = json.loads(path.read_text(encoding="utf-8"))
    captions: dict[Search, dict[str, Any]] = {
        search: {image: found[search] for image, found in table["captions"].items()}
        for search in Search
        if all(search in found for found in table["captions"].values())
    }
    with np.load(path.with_suffix(".npz")) as file:
        probe = {name: file[name] for name in file.files}
    return Captioned(
        captions,
        probe,
        table["peak_rss_bytes"],
        table["loaded_bytes"],
        table["runtime_version"],
        table["pixels"],
    )
