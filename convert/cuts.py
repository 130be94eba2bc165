"""Places at which two converted graphs of one captioner can be compared: what their layers put out.

Making all intermediate tensors outputs at once keeps operators from being fused, and so changes the numbers
(https://github.com/NVIDIA/TensorRT/issues/2571); a graph is cut at one place at a time instead. Places are matched by
the path of the Keras layer that converters keep in the names of nodes (ONNX) and tensors (TFLite).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import ConfigError

# What tf2onnx and the TFLite converter put before a function's own names.
_PREFIXES = ("StatefulPartitionedCall/", "PartitionedCall/")


@dataclass(frozen=True)
class Place:
    """Where a graph can be cut. `names`: paths of the operators that are one here, an activation with its layer.

    `tensor`: what is compared; `entry`: the same value before it is quantized, which can be fed to what follows.
    """

    names: frozenset[str]
    tensor: str
    entry: str

    @property
    def label(self) -> str:
        """The shortest path, for a reader."""
        return min(self.names, key=lambda name: (len(name), name))


@dataclass(frozen=True)
class Cut:
    """A part of a graph in a file of its own; its inputs and its one output are tensors of the whole graph."""

    path: Path
    inputs: tuple[str, ...]
    output: str


def plain_path(name: str) -> str:
    """A name without what converters put before and behind it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.removesuffix("_quant").split(":")[0]


def shared_places(reference: Sequence[Place], own: Sequence[Place]) -> list[tuple[Place, Place]]:
    """The places that both graphs have, in the order of the reference. A place that only one has is left out.

    Where one graph does in one operator (a product and its bias) what the other does in two, the last of them counts.
    """
    last_own = {place: max(_meeting(place, own), default=-1) for place in reference}
    last_reference = {place: max(_meeting(place, reference), default=-1) for place in own}
    return [
        (place, own[last_own[place]])
        for index, place in enumerate(reference)
        if last_own[place] >= 0 and last_reference[own[last_own[place]]] == index
    ]


def _meeting(place: Place, others: Sequence[Place]) -> list[int]:
    return [index for index, other in enumerate(others) if other.names & place.names]


def find_places(path: Path) -> list[Place]:
    """The places of an .onnx or .tflite file, in the order of the graph. Raises ConfigError for another format."""
    from convert import cut_onnx, cut_tflite

    if path.suffix == ".onnx":
        return cut_onnx.find_places(path)
    if path.suffix == ".tflite":
        return cut_tflite.find_places(path)
    raise ConfigError(f"graphs are cut in .onnx and .tflite files; received {path.name}. Choose such a row.")


def cut(path: Path, out: Path, tensor: str, entries: Sequence[str] = ()) -> Cut:
    """Write what computes `tensor` from the graph's inputs, or from `entries` where it meets one."""
    from convert import cut_onnx, cut_tflite

    if path.suffix == ".onnx":
        return cut_onnx.cut(path, out, tensor, entries)
    return cut_tflite.cut(path, out, tensor, entries)
