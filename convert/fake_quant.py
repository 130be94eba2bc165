"""Finds FakeQuant operations, which quantization-aware training leaves in a graph, and says what rounding they mean."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.graphs import GraphFunction
from convert.scheme import Precision, Scheme
from models.errors import UnsupportedError

FAKE_QUANT = ("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")


def holds_fake_quant(graph: GraphFunction) -> bool:
    """Whether a graph, or a function that it calls, rounds to ranges learned by quantization-aware training."""
    definition = graph.function.get_concrete_function().graph.as_graph_def()
    return any(node.op in FAKE_QUANT for node in _nodes(definition))


def _nodes(definition: Any) -> Iterator[Any]:
    yield from definition.node
    for function in definition.library.function:
        nodes: Iterable[Any] = function.node_def
        yield from nodes


def require_static(graph: GraphFunction, scheme: Scheme) -> None:
    """A graph with FakeQuant has one scheme: its ranges are trained. Raises UnsupportedError for any other."""
    if scheme != Scheme(Precision.INT8_STATIC):
        raise UnsupportedError(
            f"the half '{graph.name}' was trained for INT8 (technique 'qat'): its only precision is int8_static",
            thread="https://www.tensorflow.org/model_optimization/guide/quantization/training",
        )


@dataclass(frozen=True)
class Rounding:
    """q = clip(round(x / scale) + zero, the limits of zero's type); a scale for each index of the last axis, or one."""

    scale: NDArray[np.float32]
    zero: NDArray[Any]

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """The integers of floats; half to even, as QuantizeLinear."""
        limits = np.iinfo(self.zero.dtype)
        integers = np.round(values / self.scale) + self.zero
        rounded: NDArray[Any] = np.clip(integers, limits.min, limits.max).astype(self.zero.dtype)
        return rounded


def rounding_of(low: Any, high: Any, *, narrow: bool) -> Rounding:
    """The rounding of a FakeQuant with 8 bits and these limits: int8 around zero for weights (narrow), else uint8.

    The zero point is nudged as TensorFlow does it (core/kernels/fake_quant_ops_functor.h), so that both round alike;
    uint8 for activations because U8S8 is what VNNI multiplies.
    """
    steps = 254 if narrow else 255
    scale = np.maximum((np.float32(high) - np.float32(low)) / np.float32(steps), np.float32(1e-12)).astype(np.float32)
    if narrow:
        return Rounding(scale, np.zeros(scale.shape, np.int8))
    return Rounding(scale, np.clip(np.floor(-np.float32(low) / scale + np.float32(0.5)), 0, 255).astype(np.uint8))
