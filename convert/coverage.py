"""The share of an artifact's weights that are stored as INT8; `convert/ledger.py` says the rest."""

from collections.abc import Sequence
from pathlib import Path

from convert.ledger import SUFFIXES, Arithmetic, stored_elements, weights_of
from convert.ledger_parts import MINIMUM_ELEMENTS

__all__ = ["MINIMUM_ELEMENTS", "weights_int8"]

# A SavedModel is a folder; neither it nor a Keras file holds anything but fp32.
FLOAT_ONLY = ("", ".keras")


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
