"""Which layer is to blame: two graphs of one captioner compared at every place that both have.

Each place is looked at, and not only those that a halving search would visit: an error may shrink again behind a
saturating layer, so a good place does not prove those before it good. Two things are told: the first place out of
tolerance, and how far that layer alone is off when it is given the reference's own values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.launcher import Launcher
from bench.parity.boundary_worker import PartsJob
from bench.parity.differences import DifferenceMeter, relative_error
from bench.parity.record import TensorDifference
from convert.artifact import Artifact
from convert.cuts import Cut, Place, cut, find_places, shared_places
from convert.scheme import Precision
from models.errors import ConfigError
from models.files import write_atomic
from models.progress import say

Array = NDArray[Any]
Feeds = Mapping[str, Array]

# Relative error (RMS over RMS) out of which a place is: float kernels differ by some 1e-6 a layer; integers are worth
# 8 bits, and 20 dB is where captions begin to change on Flickr8k.
FLOAT_TOLERANCE, INTEGER_TOLERANCE = 1e-3, 0.1
_FLOAT = (Precision.FP32, Precision.FP16)
# Graphs that are cut at once: each holds all weights before its place.
BATCH = 8


@dataclass(frozen=True)
class Side:
    """One of the two: a graph's file and the runtime that it runs on."""

    path: Path
    runtime: str
    places: tuple[Place, ...]

    @classmethod
    def of(cls, artifact: Artifact, graph: str, runtime: str) -> "Side":
        """The side of an artifact's graph. Raises ConfigError for formats that can't be cut."""
        path = artifact.graphs[graph]
        return cls(path, runtime, tuple(find_places(path)))


@dataclass(frozen=True)
class Boundary:
    """A place that both have, and how far apart they are there."""

    layer: str
    error: float  # relative
    difference: TensorDifference


@dataclass(frozen=True)
class Suspect:
    """The first layer out of tolerance. `local_error`: alone, on the reference's own values."""

    layer: str
    error: float
    local_error: float
    part: Cut
    inputs: tuple[Feeds, ...]
    expected: tuple[Array, ...]


@dataclass(frozen=True)
class Bisection:
    """All places in order, and the first that is out of tolerance (None: none is)."""

    graph: str
    tolerance: float
    boundaries: tuple[Boundary, ...]
    suspect: Suspect | None


def default_tolerance(*artifacts: Artifact) -> float:
    """Strict where both compute in floating point."""
    schemes = [scheme for artifact in artifacts for scheme in (artifact.recipe.encoder, artifact.recipe.decoder)]
    return FLOAT_TOLERANCE if all(scheme.precision in _FLOAT for scheme in schemes) else INTEGER_TOLERANCE


class Bisector:
    """Cuts and runs two graphs on the same feeds; `work` is a scratch folder that outlives it."""

    def __init__(self, launcher: Launcher, reference: Side, own: Side, feeds: Sequence[Feeds], work: Path) -> None:
        self._launcher, self._reference, self._own, self._feeds, self._work = launcher, reference, own, feeds, work
        self._pairs = shared_places(reference.places, own.places)
        if not self._pairs:
            raise ConfigError(
                f"{reference.path.name} and {own.path.name} share no layer's name. Compare artifacts of one captioner."
            )

    def bisect(self, graph: str, tolerance: float) -> Bisection:
        """Compare at every place; the first out of tolerance is then run alone."""
        say(f"comparing {len(self._pairs)} places of the {graph}")
        boundaries: list[Boundary] = []
        suspect = None
        for theirs, own, values, others in self._values():
            if values[0].shape != others[0].shape:
                continue  # the same layer, laid out in another way
            boundary = _boundary(theirs, values, others)
            boundaries.append(boundary)
            if suspect is None and boundary.error > tolerance:
                suspect = self._suspect(theirs, own, values, boundary.error)
        return Bisection(graph, tolerance, tuple(boundaries), suspect)

    def _values(self) -> Iterator[tuple[Place, Place, list[Array], list[Array]]]:
        """Each pair of places with what both compute there, for every feed."""
        for start in range(0, len(self._pairs), BATCH):
            pairs = self._pairs[start : start + BATCH]
            theirs = self._run(self._reference, [a.tensor for a, _ in pairs])
            ours = self._run(self._own, [b.tensor for _, b in pairs])
            for (a, b), values, others in zip(pairs, theirs, ours, strict=True):
                yield a, b, values, [_laid_out(other, value) for value, other in zip(values, others, strict=True)]

    def _run(self, side: Side, tensors: Sequence[str]) -> list[list[Array]]:
        with TemporaryDirectory(dir=self._work) as folder:
            cuts = [cut(side.path, Path(folder) / f"{i}{side.path.suffix}", name) for i, name in enumerate(tensors)]
            return self._run_cuts(side, cuts, [_renamed(side, feeds) for feeds in self._feeds], Path(folder))

    def _run_cuts(self, side: Side, cuts: Sequence[Cut], feeds: Sequence[Feeds], folder: Path) -> list[list[Array]]:
        arrays = {f"{name}@{i}": value for i, feed in enumerate(feeds) for name, value in feed.items()}
        write_atomic(folder / "feeds.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        outputs = [folder / f"{i}.out.npz" for i in range(len(cuts))]
        files = tuple(str(found.path) for found in cuts)
        job = PartsJob(files, tuple(map(str, outputs)), str(folder / "feeds.npz"), len(feeds), 1)
        written = str(job.write(folder / "job.json"))
        self._launcher.run(side.runtime, ["-m", "bench.parity.boundary_worker", written])
        return [_read(path, len(feeds)) for path in outputs]

    def _suspect(self, theirs: Place, own: Place, expected: list[Array], error: float) -> Suspect:
        """Cut the layer out of its graph, between the places before it, and give it the reference's values."""
        index = [place for place, _ in self._pairs].index(theirs)
        before = self._pairs[:index]
        out = self._work / f"suspect{self._own.path.suffix}"
        part = cut(self._own.path, out, own.tensor, [b.entry for _, b in before])
        entries = {b.entry: a for a, b in before if b.entry in part.inputs}
        feeds = tuple(self._feeds_of(part, entries))
        with TemporaryDirectory(dir=self._work) as folder:
            alone = self._run_cuts(self._own, [part], feeds, Path(folder))[0]
        local = [_laid_out(value, other) for value, other in zip(alone, expected, strict=True)]
        return Suspect(theirs.label, error, _error(expected, local), part, feeds, tuple(expected))

    def _feeds_of(self, part: Cut, entries: Mapping[str, Place]) -> Iterator[dict[str, Array]]:
        """What a part takes, for every case: the graph's own feeds, and the reference's values at the places before."""
        values = self._run(self._reference, [place.entry for place in entries.values()]) if entries else []
        likes = self._run(self._own, list(entries)) if entries else []
        for case, feed in enumerate(self._feeds):
            given = {name: value for name, value in _renamed(self._own, feed).items() if name in part.inputs}
            found = zip(entries, values, likes, strict=True)
            yield given | {name: _laid_out(theirs[case], like[case]) for name, theirs, like in found}


def _boundary(place: Place, values: Sequence[Array], others: Sequence[Array]) -> Boundary:
    meter = DifferenceMeter()
    for value, other in zip(values, others, strict=True):
        meter.add("", value.reshape(1, -1), other.reshape(1, -1))
    return Boundary(place.label, _error(values, others), meter.results()[""])


def _error(values: Sequence[Array], others: Sequence[Array]) -> float:
    return relative_error(*(np.concatenate([v.ravel() for v in side]) for side in (values, others)))


def _laid_out(value: Array, like: Array) -> Array:
    """ONNX puts channels first and TFLite last; a batch or time axis of one may be there or not."""
    if value.shape == like.shape:
        return value
    for axes in ((0, 2, 3, 1), (0, 3, 1, 2)):
        if value.ndim == 4 and tuple(value.shape[axis] for axis in axes) == like.shape:
            return value.transpose(axes)
    squeezed = tuple(axis for axis in value.shape if axis != 1) == tuple(axis for axis in like.shape if axis != 1)
    return value.reshape(like.shape) if squeezed else value


def _renamed(side: Side, feeds: Feeds) -> dict[str, Array]:
    """Feeds by the name that a cut of this side takes: TFLite's are numbers."""
    if side.path.suffix != ".tflite":
        return dict(feeds)
    from convert.cut_tflite import input_indices

    indices = input_indices(side.path)
    return {indices[name]: value for name, value in feeds.items() if name in indices}


def _read(path: Path, cases: int) -> list[Array]:
    with np.load(path) as file:
        return [file[str(i)] for i in range(cases)]
