"""Encoder outputs of a quality run, kept for the rows that share an encoder: the same file on the same runtime.

VGG16 takes a quarter of a second an image, the words after it a hundredth; a suite over decoders would spend hours on
the same numbers. What is kept is used only after the first images came out the same, bit by bit. Times are never
taken here.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.captioning import FusedCaptioner, LoadedCaptioner
from convert.artifact import ENCODER, Artifact
from convert.store import read_manifest
from models.decoding import Tensors
from models.files import content_key, write_atomic

# Images that are always encoded anew: one that differs, and nothing of what is kept is used.
CHECKED_IMAGES = 8
# Above this nothing is kept: feature grids of 1000 images would be part of the memory that a row is said to take.
MAXIMUM_BYTES = 2**24


def encoder_key(artifact: Artifact) -> str:
    """What an artifact's encoder computes: its bytes, and how its images are prepared."""
    name = artifact.graphs[ENCODER].relative_to(artifact.path).as_posix()
    files = read_manifest(artifact.path)["files"]
    own = {file: digest for file, digest in files.items() if file == name or file.startswith(f"{name}/")}
    return content_key(own, artifact.contract.preprocessing.to_json())


class SharedEncoder:
    """The encoder of a loaded artifact, asked for images 0, 1, 2, ... of a job. `path`: where outputs are kept."""

    def __init__(self, loaded: LoadedCaptioner, path: Path | None) -> None:
        self._loaded = loaded
        self._path = None if isinstance(loaded, FusedCaptioner) else path
        self._kept = _read(self._path) if self._path else {}
        self._found: list[Tensors] = []
        self._bytes = 0

    def encode(self, index: int, pixels: NDArray[np.float32]) -> Tensors:
        """Pixels (1, height, width, 3) of image `index` -> what the first step takes besides the token."""
        if not self._path:
            return self._loaded.encode(pixels)
        kept = {name: rows[index : index + 1] for name, rows in self._kept.items()}
        if kept and index >= CHECKED_IMAGES:
            return self._loaded.start(kept)
        outputs = self._loaded.features(pixels)
        if kept and not _same(kept, outputs):
            self._kept = {}
        self._note(outputs)
        return self._loaded.start(outputs)

    def keep(self) -> None:
        """Write the outputs of all images, unless they are too large or there already."""
        if self._path and self._found and not self._path.is_file():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rows = {name: np.concatenate([found[name] for found in self._found]) for name in self._found[0]}
            write_atomic(self._path, lambda file: np.savez(file, **rows))  # type: ignore[arg-type]

    def _note(self, outputs: Tensors) -> None:
        self._bytes += sum(value.nbytes for value in outputs.values())
        if self._bytes > MAXIMUM_BYTES:
            self._path, self._found = None, []
        else:
            self._found.append(outputs)


def _read(path: Path) -> Mapping[str, NDArray[np.generic]]:
    """What is kept, empty where nothing is or where it can't be read."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return {}


def _same(kept: Tensors, outputs: Tensors) -> bool:
    return kept.keys() == outputs.keys() and all(np.array_equal(kept[name], outputs[name]) for name in kept)
