"""What a compression reached, proved from the exported file and not from Keras.

Reads the weights of .onnx and .tflite files at every precision that this project writes, and counts multiply-adds.
"""

from pathlib import Path
from types import ModuleType

from convert import readback_onnx, readback_tflite
from convert.coverage import MINIMUM_ELEMENTS
from convert.stored_weights import (
    StoredWeight,
    distinct_values,
    follows_two_of_four,
    sparsity,
    whole_sparsity,
)
from models.errors import ArtifactError

__all__ = [
    "StoredWeight",
    "distinct_values",
    "follows_two_of_four",
    "multiply_adds",
    "read_weights",
    "sparsity",
    "whole_sparsity",
]

# Each has `readers` and `output_sizes`.
READERS: dict[str, ModuleType] = {".onnx": readback_onnx, ".tflite": readback_tflite}


def read_weights(path: Path) -> list[StoredWeight]:
    """Every constant of two or more axes and 64 or more numbers that a conv, dense layer or embedding reads.

    Each tensor comes once, however many operators read it, in the order of the graph. Raises ArtifactError when
    the file is of another format, missing or damaged, or holds weights that can't be read here (an LSTM operator:
    the step graphs have none, their cell is dense layers).
    """
    weights: dict[str, StoredWeight] = {}
    for reader in _module(path).readers(path):
        if reader.weight.values.size >= MINIMUM_ELEMENTS:
            weights.setdefault(reader.weight.name, reader.weight)
    return list(weights.values())


def multiply_adds(path: Path) -> int:
    """Multiply-adds of one run at batch 1: one image of an encoder, one word of a step.

    Counts convolutions and dense layers with constant weights of any size, zeros included; leaves out what
    multiplies two tensors (attention's weighted mean) and element-wise work. Raises ArtifactError like
    `read_weights`, and when the file doesn't determine a shape.
    """
    module = _module(path)
    readers = [reader for reader in module.readers(path) if reader.weight.products]
    sizes = module.output_sizes(path)
    unknown = [reader.weight.name for reader in readers if reader.output not in sizes]
    if unknown:
        raise ArtifactError(f"{path} does not say how often it multiplies by '{unknown[0]}': a shape is unknown.")
    return sum(reader.weight.products * sizes[reader.output] for reader in readers)


def _module(path: Path) -> ModuleType:
    if path.suffix not in READERS:
        raise ArtifactError(f"can't read weights of {path}: only {' and '.join(READERS)} files are read.")
    return READERS[path.suffix]
