"""What one parity worker replays: written by the launcher, read in the runtime's own environment."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.job import DatasetReference
from bench.result_file import from_json
from models.decoding import Caption, Search
from models.files import write_text_atomic


@dataclass(frozen=True)
class ParityJob:
    """One artifact on one runtime. `captions` is what it is known to say; without them the worker captions itself."""

    artifact: str
    runtime: str
    threads: int
    dataset: DatasetReference | None  # None: the golden set's own files
    fingerprint: str  # of the data set, "" where unknown
    images: tuple[str, ...]  # to trace, or to compare
    probes: tuple[str, ...] = ()  # to measure noise on
    captions: Mapping[Search, Mapping[str, Caption]] = field(default_factory=dict)
    keep_files: bool = False  # whether a trace holds the encoded files too

    def write(self, path: Path) -> Path:
        """Write as JSON; returns `path`."""
        write_text_atomic(path, json.dumps(dataclasses.asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> "ParityJob":
        """Read what `write` wrote."""
        job: ParityJob = from_json(cls, json.loads(path.read_text(encoding="utf-8")))
        return job
