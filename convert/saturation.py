"""Whether the INT8 products of an ONNX file can overflow on x86 CPUs without VNNI, and whether they do.

ONNX Runtime's kernels for unsigned activations and signed weights (U8S8) use the instruction VPMADDUBSW there, which
adds two neighbouring products into an int16 that saturates: 255 * 127 + 255 * 127 is 64770, and 32767 comes out. The
results are wrong without a word, and right on the VNNI machine where the file was tested
(github.com/microsoft/onnxruntime/issues/5849 and 6004; its quantization guide says so under "reduce_range").

What mends it:

* weights of 7 bits (`reduce_range=True`): 255 * (64 + 64) is 32640, which fits;
* the session option `session.x64quantprecision=1`, which turns weights to unsigned on such CPUs: their kernel widens
  to 16 bits first, and is slower (issues/14642);
* the layer in float: often only the first, whose activations are large next to each other;
* signed activations in integer operators (QLinearConv, QLinearMatMul), whose kernel is exact, and many times slower.
  In QDQ form they mend nothing: on x86 ONNX Runtime makes them unsigned while it loads (QDQS8ToU8Transformer).

What is assumed of the kernels (MLAS): weights are packed by four along the sum (`MlasGemmU8S8KernelAvx2`,
`MlasConvSymKernelAvx2`), so that the pairs are (0, 1), (2, 3) ... of a matrix' rows, and of a convolution's inputs in
the order height, width, channel of its group, zeros behind the last. Depthwise convolutions have a kernel without
pairs. A layer is `possible` when two of its weights could overflow in any order, so that "never" does not depend on the
packing. Layers that ONNX Runtime leaves in float are not known here, and are judged as if they were not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.saturation_layers import Kernel, QuantizedLayer, open_with_outputs, quantized_layers

Feeds = Iterable[Mapping[str, NDArray[Any]]]

LOWEST, HIGHEST = -(2**15), 2**15 - 1
LARGEST_ACTIVATION = 255
# Pair sums that are computed at once: bounds the memory.
_SUMS_AT_ONCE = 4_000_000


class Saturates(StrEnum):
    """Whether the sums of a layer leave int16; each includes the one before."""

    NEVER = "never"  # whatever the activations
    POSSIBLE = "possible"  # for some activations, but none that were seen
    OBSERVED = "observed"


@dataclass(frozen=True)
class LayerSaturation:
    """One operator with constant INT8 weights. Shares and errors are of the feeds, None without any."""

    name: str  # of the operator
    operator: str
    kernel: Kernel
    saturates: Saturates
    # Largest sum of a pair in the kernel's order for any activations, by size; 32767 fits. 0 without pairs.
    worst_pair: int
    worst_pair_any_order: int  # the same for any two weights of an output
    share_pairs: float | None  # of sums of two products that saturated
    share_outputs: float | None  # of outputs that are wrong for it
    max_error: float | None  # of an output, in its own unit


@dataclass(frozen=True)
class OverflowRisk:
    """A file, summed up."""

    saturates: Saturates
    layers: int
    possible: int  # layers that could, those that did among them
    observed: int
    worst_layer: str | None  # the one with the largest share of wrong outputs, or else the largest possible sum


def saturation_of(path: Path, feeds: Feeds) -> tuple[LayerSaturation, ...]:
    """Judge each layer of an ONNX file: QDQ, QLinear operators, MatMulInteger and ConvInteger.

    The graph runs on each feed with ONNX Runtime's optimizations off, so that QDQ is computed in float and the
    activations are right on every machine. Of each layer and feed at most 256 positions (rows of a matrix, places of a
    convolution) are looked at, drawn with a fixed seed, so that memory does not grow with the feeds. Feeds may be
    empty. Raises ArtifactError for a file that can't be read.
    """
    layers = quantized_layers(path)
    counts = {layer.name: _Counts() for layer in layers if _may_saturate(layer)}
    watched = [layer for layer in layers if layer.name in counts]
    if watched:
        run = open_with_outputs(path, watched)
        rng = np.random.default_rng(0)
        for feed in feeds:
            outputs = run(feed)
            for layer in watched:
                counts[layer.name].add(layer, layer.rows(outputs, rng), layer.activation_scale(outputs))
    return tuple(_judge(layer, counts.get(layer.name)) for layer in layers)


def overflow_risk(layers: Sequence[LayerSaturation]) -> OverflowRisk:
    """Sum a file up."""
    possible = [layer for layer in layers if layer.saturates is not Saturates.NEVER]
    observed = [layer for layer in layers if layer.saturates is Saturates.OBSERVED]
    worst = max(possible, key=lambda layer: (layer.share_outputs or 0, layer.worst_pair_any_order), default=None)
    saturates = Saturates.OBSERVED if observed else Saturates.POSSIBLE if possible else Saturates.NEVER
    return OverflowRisk(saturates, len(layers), len(possible), len(observed), worst.name if worst else None)


def worst_pair(weights: NDArray[np.int8]) -> int:
    """The largest |sum| of two neighbouring products over activations 0 to 255; weights (outputs, inputs)."""
    first, second = _pairs(weights)
    up = np.maximum(first, 0) + np.maximum(second, 0)
    down = np.minimum(first, 0) + np.minimum(second, 0)
    return LARGEST_ACTIVATION * int(max(up.max(initial=0), -down.min(initial=0)))


def worst_pair_any_order(weights: NDArray[np.int8]) -> int:
    """The same for any two weights of an output."""
    wide = np.pad(weights.astype(np.int32), ((0, 0), (0, 2)))  # zeros, for outputs of one sign or one input
    ordered = np.sort(wide, axis=1)
    up, down = np.maximum(ordered[:, -2:], 0).sum(axis=1), np.minimum(ordered[:, :2], 0).sum(axis=1)
    return LARGEST_ACTIVATION * int(max(up.max(initial=0), -down.min(initial=0)))


def saturation_errors(
    activations: NDArray[np.uint8], weights: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What saturation changes in products of activations (rows, inputs) and weights (outputs, inputs).

    Returns (rows, outputs) arrays: the error of each sum, and how many of its pairs saturated.
    """
    shape = (len(activations), len(weights))
    errors, saturated = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    (first, second), (left, right) = _pairs(weights), _pairs(activations)
    up, down = np.maximum(first, 0) + np.maximum(second, 0), np.minimum(first, 0) + np.minimum(second, 0)
    # Few pairs can: only these are multiplied.
    can = (LARGEST_ACTIVATION * up > HIGHEST) | (LARGEST_ACTIVATION * down < LOWEST)
    outputs, places = np.nonzero(can)
    if not len(outputs):
        return errors, saturated
    starts = np.flatnonzero(np.diff(outputs, prepend=-1))
    step = max(1, _SUMS_AT_ONCE // len(outputs))
    for start in range(0, len(activations), step):
        rows = slice(start, start + step)
        sums = left[rows][:, places] * first[can] + right[rows][:, places] * second[can]
        excess = np.clip(sums, LOWEST, HIGHEST) - sums
        errors[rows, outputs[starts]] = np.add.reduceat(excess, starts, axis=1)
        saturated[rows, outputs[starts]] = np.add.reduceat(excess != 0, starts, axis=1, dtype=np.int64)
    return errors, saturated


def _pairs(matrix: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The first and the second number of each pair of columns; a missing last one is 0."""
    even = np.pad(matrix.astype(np.int32), ((0, 0), (0, matrix.shape[1] % 2)))
    return even[:, 0::2], even[:, 1::2]


def _may_saturate(layer: QuantizedLayer) -> bool:
    return layer.kernel is Kernel.PAIRS and any(
        worst_pair_any_order(weights) > HIGHEST for weights in layer.weights_by_group
    )


class _Counts:
    """What was seen of one layer."""

    def __init__(self) -> None:
        self.pairs = self.saturated_pairs = self.outputs = self.wrong_outputs = 0
        self.max_error = 0.0

    def add(self, layer: QuantizedLayer, rows: NDArray[np.uint8], activation_scale: float) -> None:
        """Count the products of activations (rows, groups, inputs)."""
        for group, weights in enumerate(layer.weights_by_group):
            errors, saturated = saturation_errors(rows[:, group], weights)
            scales = layer.scales_by_group[group] * activation_scale
            self.pairs += errors.size * ((weights.shape[1] + 1) // 2)
            self.saturated_pairs += int(saturated.sum())
            self.outputs += errors.size
            self.wrong_outputs += int(np.count_nonzero(saturated))
            self.max_error = max(self.max_error, float((np.abs(errors) * scales).max(initial=0)))


def _judge(layer: QuantizedLayer, counts: _Counts | None) -> LayerSaturation:
    by_group = layer.weights_by_group
    pairs = layer.kernel is Kernel.PAIRS
    saturates = Saturates.NEVER if counts is None else Saturates.POSSIBLE
    if counts and counts.saturated_pairs:
        saturates = Saturates.OBSERVED
    seen = counts if counts and counts.outputs else None
    return LayerSaturation(
        layer.name,
        layer.operator,
        layer.kernel,
        saturates,
        max(map(worst_pair, by_group)) if pairs else 0,
        max(map(worst_pair_any_order, by_group)) if pairs else 0,
        seen.saturated_pairs / seen.pairs if seen else None,
        seen.wrong_outputs / seen.outputs if seen else None,
        seen.max_error if seen else None,
    )
