"""Is the decoder's state lost? Masked or padded steps can freeze it or set it to zero in one runtime and not another.

Runtimes differ in what a masked step leaves: TensorFlow repeats the last state, ONNX Runtime writes zeros
(https://github.com/microsoft/onnxruntime/issues/12492).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Smaller than this share of the reference's state is nothing.
NOTHING = 1e-6


def is_state_lost(reference: Mapping[str, Array], own: Mapping[str, Array]) -> bool:
    """Whether a state is zero, or stands still, while the reference's is neither. Arrays are (steps, ...)."""
    return any(
        _is_lost(values, own[name])
        for name, values in reference.items()
        if name in own and own[name].shape == values.shape
    )


def _is_lost(reference: Array, own: Array) -> bool:
    size = float(np.abs(reference).max(initial=0.0))
    if not size:
        return False
    zero = float(np.abs(own).max(initial=0.0)) < NOTHING * size
    return zero or (_moves(reference, size) and not _moves(own, size))


def _moves(state: Array, size: float) -> bool:
    return len(state) > 1 and float(np.abs(np.diff(state, axis=0)).max()) > NOTHING * size
