"""A trace: what a reference row made of some images, tensor by tensor, for other rows and other machines to check.

A folder. `trace.json` says of what and by what it was made, and for each image its captions and hashes; `0000.npz`
holds its pixels (8 bits, before scaling), the inputs of the first step and, for each word of its greedy caption, logits
and state; `0000.beam.json` the steps of its beam search; `0000.image` the encoded file, where files are kept. It is
written and read an image at a time.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.result_file import from_json
from convert.artifact import Artifact
from models.decoding import BeamStep, Caption, Search
from models.errors import ArtifactError, ConfigError
from models.files import write_atomic, write_bytes_atomic, write_text_atomic
from models.preprocessing import Preprocessing, scale_pixels, tensor_hash
from models.vocabulary import Vocabulary

FORMAT_VERSION = 1
INDEX = "trace.json"
_INPUT, _STATE = "input.", "state."
_AGAIN = "Save it again with `captionbench parity --save`."

Array = NDArray[Any]


@dataclass(frozen=True)
class TracedImage:
    """Where an image's tensors lie, what its tensor hashes to, and what was said of it."""

    file: str
    pixels_sha256: str
    captions: Mapping[Search, Caption]


@dataclass(frozen=True)
class TraceHead:
    """Of what and by what a trace was made; two traces compare when captioner, words and images are the same."""

    recipe: str
    captioner: str
    runtime: str
    runtime_version: str
    artifact_sha256: str
    vocabulary_sha256: str
    max_length: int
    preprocessing: Mapping[str, Any]
    fingerprint: str  # of the data set, "" where unknown
    images: Mapping[str, TracedImage] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class TensorTrace:
    """The tensors of one image: float32 (height, width, 3) pixels; logits and states have a row for each word said."""

    pixels: Array
    inputs: Mapping[str, Array]
    logits: Array
    states: Mapping[str, Array]
    beam: tuple[BeamStep, ...]


def vocabulary_hash(vocabulary: Vocabulary) -> str:
    """Hex SHA-256 of the words in their order."""
    return hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest()


class TraceWriter:
    """Writes a trace; it can be read once `finish` has written its index."""

    def __init__(self, folder: Path, head: TraceHead) -> None:
        self._folder, self._head = folder, head
        self._images: dict[str, TracedImage] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self, image: str, fitted: Image.Image, trace: TensorTrace, captions: Mapping[Search, Caption], encoded: bytes
    ) -> None:
        """Keep one image: its resized picture, its tensors and captions, and its file unless that is empty."""
        name = f"{len(self._images):04d}"
        arrays = {"pixels": np.asarray(fitted, np.uint8), "logits": trace.logits.astype(np.float32)}
        arrays |= {f"{_INPUT}{key}": value for key, value in trace.inputs.items()}
        arrays |= {f"{_STATE}{key}": value for key, value in trace.states.items()}
        write_atomic(self._folder / f"{name}.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        beam = [dataclasses.asdict(step) for step in trace.beam]
        write_text_atomic(self._folder / f"{name}.beam.json", json.dumps(beam) + "\n")
        if encoded:
            write_bytes_atomic(self._folder / f"{name}.image", encoded)
        self._images[image] = TracedImage(name, tensor_hash(trace.pixels), dict(captions))

    def finish(self) -> None:
        """Write the index."""
        head = dataclasses.replace(self._head, images=self._images)
        write_text_atomic(self._folder / INDEX, json.dumps(dataclasses.asdict(head), indent=1) + "\n")


@dataclass(frozen=True)
class Trace:
    """A trace on disk."""

    folder: Path
    head: TraceHead

    def read(self, image: str) -> TensorTrace:
        """The tensors of one image. Raises ArtifactError when its file is missing, damaged or not what was saved."""
        known = self.head.images[image]
        try:
            content = BytesIO((self.folder / f"{known.file}.npz").read_bytes())
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            beam = json.loads((self.folder / f"{known.file}.beam.json").read_text(encoding="utf-8"))
            picture = Image.fromarray(arrays["pixels"])
            trace = TensorTrace(
                scale_pixels(picture, Preprocessing.from_json(self.head.preprocessing).scaling),
                _with_prefix(arrays, _INPUT),
                arrays["logits"],
                _with_prefix(arrays, _STATE),
                tuple(from_json(BeamStep, step) for step in beam),
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise ArtifactError(f"{self.folder} is damaged at image {image}: {error}. {_AGAIN}") from error
        if tensor_hash(trace.pixels) != known.pixels_sha256:
            raise ArtifactError(f"{self.folder} is damaged: the pixels of {image} are not those saved. {_AGAIN}")
        return trace

    def encoded(self, image: str) -> bytes:
        """The file of an image. Raises ArtifactError where the trace holds none."""
        try:
            return (self.folder / f"{self.head.images[image].file}.image").read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"{self.folder} holds no picture of {image}. {_AGAIN}") from None


def open_trace(folder: Path) -> Trace:
    """Read a trace's index. Raises ArtifactError when it is missing, damaged, newer or something else."""
    path = folder / INDEX
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"no saved reference at {folder}: it has no {INDEX}. {_AGAIN}") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_AGAIN}") from error
    version = table.get("format_version") if isinstance(table, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(f"{path} has format {version!r}; this version reads {FORMAT_VERSION}. {_AGAIN}")
    try:
        return Trace(folder, from_json(TraceHead, table))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. {_AGAIN}") from error


def head_of(artifact: Artifact, runtime: str, runtime_version: str, fingerprint: str) -> TraceHead:
    """The head of a trace that an artifact makes on a runtime."""
    return TraceHead(
        recipe=artifact.recipe.name,
        captioner=artifact.recipe.captioner,
        runtime=runtime,
        runtime_version=runtime_version,
        artifact_sha256=artifact.sha256,
        vocabulary_sha256=vocabulary_hash(artifact.vocabulary()),
        max_length=artifact.contract.max_length,
        preprocessing=artifact.contract.preprocessing.to_json(),
        fingerprint=fingerprint,
    )


def check_comparable(head: TraceHead, artifact: Artifact, fingerprint: str, where: str) -> None:
    """Refuse what was not made from the same captioner and data. Raises ConfigError naming the field that differs.

    Another preparation of images is no reason to refuse: that is a finding.
    """
    own = head_of(artifact, "", "", fingerprint)
    for name in ("captioner", "vocabulary_sha256", "max_length", "fingerprint"):
        theirs, ours = getattr(head, name), getattr(own, name)
        if theirs != ours and (name != "fingerprint" or (theirs and ours)):
            field_name = {"vocabulary_sha256": "vocabulary", "fingerprint": "data list"}.get(name, name)
            raise ConfigError(
                f"{artifact.recipe.name} can't be compared with {where}: its {field_name} is {ours!r:.60}, "
                f"and {theirs!r:.60} there. Compare artifacts of one captioner over the same images."
            )


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
