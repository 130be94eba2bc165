"""What an artifact's manifest keeps of its ledgers: numbers stored, numbers multiplied, and what stayed in float."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.ledger import SUFFIXES, Arithmetic, Ledger, ledger_of, stored_elements, weights_of
from convert.ledger_parts import MINIMUM_ELEMENTS

__all__ = ["MINIMUM_ELEMENTS", "GraphCoverage", "coverage_of", "weights_int8"]

# A SavedModel is a folder; neither it nor a Keras file holds anything but fp32.
FLOAT_ONLY = ("", ".keras")


@dataclass(frozen=True)
class GraphCoverage:
    """The ledger of one graph, small enough for a manifest; mappings are by `Arithmetic`."""

    weights: Mapping[str, int]  # elements
    weight_bytes: Mapping[str, int]
    multiply_adds: Mapping[str, int]  # of one run at batch 1
    leftover_pairs: int
    lstm: str
    floats: Mapping[str, str]  # parts that multiply in floating point, and why


def coverage_of(graphs: Mapping[str, Path]) -> dict[str, GraphCoverage]:
    """The coverage of each .onnx and .tflite graph; other formats have none. Raises ArtifactError like `ledger_of`."""
    return {name: _summary(ledger_of(path)) for name, path in graphs.items() if path.suffix in SUFFIXES}


def _summary(ledger: Ledger) -> GraphCoverage:
    return GraphCoverage(
        {str(arithmetic): count for arithmetic, count in ledger.weights.items()},
        {str(arithmetic): count for arithmetic, count in ledger.weight_bytes.items()},
        {str(arithmetic): count for arithmetic, count in ledger.multiply_adds.items()},
        ledger.leftover_pairs,
        str(ledger.lstm),
        {part.name: str(part.reason) for part in ledger.parts if part.reason and part.multiply_adds},
    )


def weights_int8(graphs: Sequence[Path]) -> float | None:
    """Share (0..1) of the weights of these files that are stored as 8-bit integers; None where unknown.

    Raises ArtifactError like `weights_of`.
    """
    if any(path.suffix not in (*SUFFIXES, *FLOAT_ONLY) for path in graphs):
        return None
    if all(path.suffix in FLOAT_ONLY for path in graphs):
        return 0.0 if graphs else None
    counted = stored_elements(weight for path in graphs if path.suffix in SUFFIXES for weight in weights_of(path))
    total = sum(counted.values())
    return counted.get(Arithmetic.INT8, 0) / total if total else None
