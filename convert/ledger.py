"""The coverage ledger of one .onnx or .tflite file, whoever made it: in which numbers it stores and computes.

A converter's word ("quantized") is not taken: storage is read from the file, arithmetic from the operators that run.
For ONNX these are the operators that ONNX Runtime's own optimizer leaves, not those that the file asks for.
"""

from pathlib import Path

from convert.ledger_parts import (
    Arithmetic,
    Evidence,
    Ledger,
    LstmForm,
    Part,
    Reason,
    Sizes,
    Stored,
    shares,
    stored_elements,
)
from models.errors import ArtifactError

__all__ = [
    "Arithmetic",
    "Evidence",
    "Ledger",
    "LstmForm",
    "Part",
    "Reason",
    "Sizes",
    "ledger_of",
    "shares",
    "stored_elements",
    "weights_of",
]

SUFFIXES = (".onnx", ".tflite")


def ledger_of(path: Path) -> Ledger:
    """The ledger of a model file; multiply-adds are of one run at batch 1.

    Raises ArtifactError when the file is missing, empty, damaged, neither .onnx nor .tflite, asks for data outside its
    own folder, or is newer than the runtime; MissingPackageError when the package that reads the format is missing.
    """
    _check(path)
    if path.suffix == ".onnx":
        from convert.ledger_onnx import onnx_ledger

        return onnx_ledger(path)
    from convert.ledger_tflite import tflite_ledger

    return tflite_ledger(path)


def weights_of(path: Path) -> tuple[Stored, ...]:
    """The weights that a model file stores, without loading a runtime. Raises like `ledger_of`."""
    _check(path)
    if path.suffix == ".onnx":
        from convert.ledger_onnx_file import load_onnx, stored_weights

        return stored_weights(load_onnx(path))
    from convert.ledger_tflite_file import load_tflite

    return load_tflite(path).weights()


def _check(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ArtifactError(f"can't inspect {path}: it ends in '{path.suffix}'; give an .onnx or a .tflite file.")
    if not path.is_file():
        raise ArtifactError(f"can't inspect {path}: there is no such file; check the path.")
    if not path.stat().st_size:
        raise ArtifactError(f"can't inspect {path}: it has 0 bytes; build or copy it again.")
