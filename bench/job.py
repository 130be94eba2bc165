"""A job: what one worker process does, written by the launcher and read in the runtime's own environment."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measurement import Phase
from bench.result_file import from_json
from models.datasets import Dataset, open_dataset
from models.files import write_text_atomic


@dataclass(frozen=True)
class DatasetReference:
    """Enough to open the same data set in another process."""

    name: str
    data: str  # the `--data` directory, "" for none
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> Dataset:
        """The data set."""
        return open_dataset(self.name, Path(self.data) if self.data else None, self.options)


@dataclass(frozen=True)
class Job:
    """One artifact on one runtime over some test images. `seconds` and below are for timing."""

    artifact: str
    runtime: str
    threads: int
    dataset: DatasetReference
    images: tuple[str, ...]
    features: str = ""  # file in which a quality run keeps the encoder's outputs for other rows, "" for none
    seconds: float = 0.0  # of timing in this process, over all phases
    samples: int = 1  # whole captions at least
    warmup: int = 3
    phases: tuple[Phase, ...] = tuple(Phase)  # to time; those that the artifact does not have are left out
    forced_steps: int = 0  # of every caption of equal length
    canary: float | None = None  # its best time in seconds; None: never wait
    cpus: tuple[int, ...] = ()  # to run on, () for all
    delay_seconds: float = 0.0  # added to each image, to see whether a slowdown is found
    captions: Mapping[str, str] = field(default_factory=dict)  # what the quality run said, by image

    def write(self, path: Path) -> Path:
        """Write as JSON; returns `path`."""
        write_text_atomic(path, json.dumps(dataclasses.asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read what `write` wrote."""
        job: Job = from_json(cls, json.loads(path.read_text(encoding="utf-8")))
        return job

    def read_images(self) -> Iterator[tuple[str, bytes]]:
        """(id, encoded file) of every image."""
        dataset = self.dataset.open()
        for image in self.images:
            yield image, dataset.read(image)
