"""A weight as an exported file stores it, and what compression left in it: zeros, clusters, the 2:4 pattern."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

# The kinds of operators that read weights.
CONV, DEPTHWISE, DENSE, EMBEDDING = "conv", "depthwise", "dense", "embedding"

Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class StoredWeight:
    """A constant of a file, dequantized, laid out as (outputs, ..., inputs) whatever the format's own order.

    conv: (outputs, height, width, inputs of the group); depthwise: (outputs, height, width, 1);
    dense: (outputs, inputs); embedding: (words, size), as it is looked up.
    """

    name: str  # of the tensor that holds the numbers
    operator: str  # conv, depthwise, dense or embedding: the first operator that reads it
    values: NDArray[np.float32]  # what the operator multiplies by
    # As stored: INT8, onnxruntime's UINT8 tables, or INT4 as int8 (-8 to 7) or uint8 (0 to 15); None for float weights.
    integers: NDArray[Any] | None = None

    @property
    def products(self) -> int:
        """Multiply-adds for one number of the operator's output; a look-up needs none."""
        if self.operator == EMBEDDING:
            return 0
        return int(np.prod(self.values.shape[-1:] if self.operator == DENSE else self.values.shape[1:]))


@dataclass(frozen=True)
class WeightReader:
    """One operator that reads a weight; `output` is the format's own key of the tensor that it writes."""

    weight: StoredWeight
    output: str | int


def sparsity(weight: StoredWeight) -> float:
    """Share (0..1) of exact zeros; an integer at its zero point is one."""
    return whole_sparsity([weight])


def whole_sparsity(weights: Sequence[StoredWeight]) -> float:
    """Share (0..1) of exact zeros over all numbers of these weights; 0 of none."""
    total = sum(weight.values.size for weight in weights)
    zeros = sum(weight.values.size - int(np.count_nonzero(weight.values)) for weight in weights)
    return zeros / total if total else 0.0


def distinct_values(weight: StoredWeight, *, per_channel: bool) -> int:
    """Number of distinct values, zero included where present.

    `per_channel` gives the largest number within one output (of an embedding: one word): scales per output make
    of one cluster as many values as there are scales, so that only this holds for INT8 weights.
    """
    if per_channel:
        return max(np.unique(channel).size for channel in weight.values)
    return int(np.unique(weight.values).size)


def follows_two_of_four(weight: StoredWeight) -> bool:
    """Whether any four consecutive inputs hold at least two zeros; zeros fill the last group up.

    So a weight of one or two inputs (depthwise) follows it, and says nothing.
    """
    inputs = weight.values.shape[-1]
    nonzero = weight.values.reshape(-1, inputs) != 0
    groups = np.pad(nonzero, ((0, 0), (0, -inputs % 4))).reshape(-1, 4)
    return bool((groups.sum(axis=1) <= 2).all())


def dequantize(integers: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int) -> NDArray[np.float32]:
    """(integers - zero) * scale, with one scale and zero point for all or one for each index of `axis`."""
    along = [1] * integers.ndim
    along[axis] = -1
    differences = integers.astype(np.int32) - zero.astype(np.int32).reshape(along)
    return differences.astype(np.float32) * scale.astype(np.float32).reshape(along)


def rounded(values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int, kind: Any) -> NDArray[np.float32]:
    """What is left of float weights that the file rounds to integers of type `kind` while it runs."""
    along = [1] * values.ndim
    along[axis] = -1
    integers = np.round(values / scale.reshape(along)) + zero.astype(np.int32).reshape(along)
    limits = np.iinfo(kind)
    return dequantize(integers.clip(limits.min, limits.max), scale, zero, axis)


def ancestors(tensor: Key, sources: Callable[[Key], Iterable[Key]]) -> set[Key]:
    """A tensor and all that it is computed from; `sources` gives what one tensor is computed from at once."""
    found: set[Key] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += sources(name)
    return found
