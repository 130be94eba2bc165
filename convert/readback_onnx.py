"""Reads weights and shapes of ONNX files, as tf2onnx and onnxruntime's quantizer write them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.int4 import dequantize_blocks, unpack_nibbles
from convert.stored_weights import (
    CONV,
    DENSE,
    DEPTHWISE,
    EMBEDDING,
    StoredWeight,
    WeightReader,
    ancestors,
    dequantize,
    rounded,
)
from models.errors import ArtifactError

# Operator -> kind, input that holds the weight, input that holds its scale (its zero point follows).
OPERATORS: dict[str, tuple[str, int, int | None]] = {
    "Conv": (CONV, 1, None),
    "ConvInteger": (CONV, 1, None),
    "QLinearConv": (CONV, 3, 4),
    "MatMul": (DENSE, 1, None),
    "Gemm": (DENSE, 1, None),
    "MatMulInteger": (DENSE, 1, None),
    "QLinearMatMul": (DENSE, 3, 4),
    "DynamicQuantizeMatMul": (DENSE, 1, 2),
    "Gather": (EMBEDDING, 0, None),
    "MatMulNBits": (DENSE, 1, 2),
    "GatherBlockQuantized": (EMBEDDING, 0, 2),
}
# They read blocks of INT4 with a scale each.
BLOCKWISE = ("MatMulNBits", "GatherBlockQuantized")
# They hold weights, or run others an unknown number of times.
REFUSED = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "Loop", "Scan", "If")


def readers(path: Path) -> list[WeightReader]:
    """The operators that read a constant weight of two or more axes. Raises ArtifactError."""
    graph = Graph(load_model(path).graph)
    refused = [node.op_type for node in graph.nodes if node.op_type in REFUSED]
    if refused:
        raise ArtifactError(f"can't read the weights of {path}: it holds the operator {refused[0]}.")
    found = [(_read(graph, node), node) for node in graph.nodes if node.op_type in OPERATORS]
    return [WeightReader(weight, node.output[0]) for weight, node in found if weight]


def output_sizes(path: Path) -> Mapping[str | int, int]:
    """How many numbers each tensor holds at batch 1, where that can be inferred. Raises ArtifactError."""
    import onnx

    model = load_model(path)
    # What the file says of all other tensors was inferred for a free batch.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    _use_standard_operators(model.graph)
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output)}
    known = {name: axes for name, axes in shapes.items() if all(axis.HasField("dim_value") for axis in axes)}
    return {name: int(np.prod([axis.dim_value for axis in axes])) for name, axes in known.items()}


def _use_standard_operators(graph: Any) -> None:
    """Put MatMul and Gather, whose shapes can be inferred, in the place of ONNX Runtime's own; they can't run."""
    from onnx import TensorProto, helper

    tables = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type in BLOCKWISE]:
        if node.op_type == "MatMulNBits":
            kind, inputs, axes = "MatMul", [node.input[0]], [attribute(node, key, 0) for key in ("K", "N")]
        else:
            scales = tables[node.input[2]]
            kind, inputs, axes = "Gather", [node.input[1]], [scales[0], scales[1] * attribute(node, "block_size", 128)]
        name = f"{node.output[0]}__weight"
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, axes))
        order = [*inputs, name] if kind == "MatMul" else [name, *inputs]
        node.CopyFrom(helper.make_node(kind, order, list(node.output), node.name))


def load_model(path: Path) -> Any:
    """The model of a file. Raises ArtifactError."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf raises its own types, of its C++ or its Python half
        raise ArtifactError(f"can't read {path} as an ONNX model: {error}. Build it again.") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is an ONNX model without operators. Build it again.")
    return model


@dataclass(frozen=True)
class _Constant:
    """A tensor that does not depend on inputs; `integers` once `values` are dequantized."""

    name: str
    values: NDArray[Any]
    integers: NDArray[Any] | None = None

    def moved(self, move: Callable[[NDArray[Any]], NDArray[Any]]) -> "_Constant":
        """The same numbers at other places."""
        return replace(self, values=move(self.values), integers=None if self.integers is None else move(self.integers))


class Graph:
    """The constants and nodes of a GraphProto."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._stored |= {
            node.output[0]: attribute.t
            for node in self.nodes
            for attribute in node.attribute
            if node.op_type == "Constant" and attribute.name == "value"
        }
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._inputs = {value.name for value in graph.input} - set(self._stored)

    def constant(self, name: str) -> _Constant | None:
        """The constant of this name, looking through what only stores it differently."""
        from onnx import numpy_helper

        if name in self._stored:
            return _Constant(name, numpy_helper.to_array(self._stored[name]))
        node = self._producers.get(name)
        if node is None or node.op_type not in _LOOKED_THROUGH:
            return None
        source = self.constant(node.input[0])
        return None if source is None else _LOOKED_THROUGH[node.op_type](self, node, source)

    def producer(self, name: str) -> Any | None:
        """The node that computes a tensor; None for inputs and what is stored."""
        return self._producers.get(name)

    def depends_on_inputs(self, name: str) -> bool:
        """Whether a tensor is something else at every run."""

        def sources(name: str) -> list[str]:
            return list(self._producers[name].input) if name in self._producers else []

        return not self._inputs.isdisjoint(ancestors(name, sources))

    def array(self, node: Any, place: int) -> NDArray[Any] | None:
        """The constant that is an input of `node`; None where it has none."""
        constant = self.constant(node.input[place]) if len(node.input) > place else None
        return None if constant is None else constant.values

    def scale(self, node: Any, place: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point (0 where left out) that are inputs of `node` from `place` on."""
        scale, zero = self.array(node, place), self.array(node, place + 1)
        if scale is None:
            raise ArtifactError(f"the scale of the integers '{node.input[0]}' is not in the file.")
        return scale, np.zeros(1, np.int8) if zero is None else zero

    def scale_of_integers(self, node: Any, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Scale and zero point of integers that `node` reads, but that are dequantized only after it."""
        for reader in self.nodes:
            if reader.op_type == "DequantizeLinear" and reader.input[0] == node.output[0]:
                return self.scale(reader, 1)
        # onnxruntime's dynamic quantizer multiplies the scale in further down; it names both after the weight.
        stem = name.removesuffix("_quantized")
        scale, zero = self.constant(f"{stem}_scale"), self.constant(f"{stem}_zero_point")
        if scale is None or zero is None:
            raise ArtifactError(f"the scale of the integers '{name}' is not in the file.")
        return scale.values, zero.values


def _read(graph: Graph, node: Any) -> StoredWeight | None:
    """The weight that `node` reads; None when it reads none, such as a Gather from a shape."""
    kind, place, scale_place = OPERATORS[node.op_type]
    constant = graph.constant(node.input[place])
    if constant is not None and node.op_type in BLOCKWISE:
        return _read_blocks(graph, node, kind, constant)
    if constant is None and kind != EMBEDDING and not graph.depends_on_inputs(node.input[place]):
        raise ArtifactError(f"can't read the weights of the {node.op_type} '{node.name}': the file computes them.")
    if constant is None or constant.values.ndim < 2 or constant.values.dtype not in _WEIGHT_TYPES:
        return None
    if constant.values.dtype in _INTEGERS:
        scale = graph.scale_of_integers(node, constant.name) if scale_place is None else graph.scale(node, scale_place)
        constant = _dequantized(constant, *scale, axis=constant.values.ndim - 1 if kind == DENSE else 0)
    is_depthwise = kind == CONV and constant.values.shape[1] == 1 and attribute(node, "group", 1) > 1
    constant = constant.moved(lambda array: _inputs_last(array, kind, attribute(node, "transB", 0)))
    values = constant.values.astype(np.float32)
    return StoredWeight(constant.name, DEPTHWISE if is_depthwise else kind, values, constant.integers)


def _read_blocks(graph: Graph, node: Any, kind: str, constant: _Constant) -> StoredWeight:
    """A weight in blocks, which both operators store as (outputs, inputs), unsigned ones two in a byte."""
    scales, zeros = graph.array(node, 2), graph.array(node, 3)
    if scales is None or attribute(node, "bits", 4) != 4:
        raise ArtifactError(
            f"can't read the weights of the {node.op_type} '{node.name}': only INT4 with constant scales."
        )
    outputs = scales.shape[0] if kind == EMBEDDING else attribute(node, "N", 0)
    scales = scales.reshape(outputs, -1)
    packed = constant.values.reshape(outputs, -1)
    inputs = attribute(node, "K", packed.shape[1] * (2 if packed.dtype == np.uint8 else 1))
    integers = _four_bits(packed, inputs)
    middle = np.full(scales.shape, 8 if packed.dtype == np.uint8 else 0, np.int8)
    zeros = middle if zeros is None else _four_bits(zeros.reshape(outputs, -1), scales.shape[1])
    values = dequantize_blocks(integers, scales, attribute(node, "block_size", 128), zeros)
    return StoredWeight(constant.name, kind, values, integers)


def _four_bits(stored: NDArray[Any], count: int) -> NDArray[Any]:
    """Bytes -> 0 to 15; a tensor of one of ONNX's own four-bit types -> its numbers."""
    return unpack_nibbles(stored, count) if stored.dtype == np.uint8 else stored.astype(np.int8)


def _inputs_last(array: NDArray[Any], kind: str, is_transposed: int) -> NDArray[Any]:
    """(outputs, inputs, height, width) or (..., inputs, outputs) -> (outputs, ..., inputs)."""
    if kind == CONV:
        return np.moveaxis(array, 1, -1)
    return array if kind == EMBEDDING or is_transposed else np.moveaxis(array, -1, 0)


def _cast(graph: Graph, node: Any, source: _Constant) -> _Constant:
    from onnx.helper import tensor_dtype_to_np_dtype

    return replace(source, values=source.values.astype(tensor_dtype_to_np_dtype(attribute(node, "to", 1))))


def _quantize(graph: Graph, node: Any, source: _Constant) -> _Constant:
    """What a QuantizeLinear at run time makes of a weight that is stored in float."""
    scale, zero = graph.scale(node, 1)
    axis = attribute(node, "axis", 1) if scale.size > 1 else 0
    return replace(source, values=rounded(source.values, scale, zero, axis, zero.dtype))


def _dequantize(graph: Graph, node: Any, source: _Constant) -> _Constant:
    if source.values.dtype not in _INTEGERS:  # `_quantize` has done both
        return source
    return _dequantized(source, *graph.scale(node, 1), axis=attribute(node, "axis", 1))


def _dequantized(source: _Constant, scale: NDArray[Any], zero: NDArray[Any], axis: int) -> _Constant:
    axis = axis if scale.size > 1 else 0
    return replace(source, values=dequantize(source.values, scale, zero, axis), integers=source.values)


def _transpose(graph: Graph, node: Any, source: _Constant) -> _Constant:
    return source.moved(lambda array: array.transpose(attribute(node, "perm", None)))


def _reshape(graph: Graph, node: Any, source: _Constant) -> _Constant | None:
    shape = graph.array(node, 1)
    return None if shape is None else source.moved(lambda array: array.reshape([int(axis) for axis in shape]))


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node."""
    from onnx.helper import get_attribute_value

    return next((get_attribute_value(a) for a in node.attribute if a.name == name), default)


_INTEGERS = (np.int8, np.uint8)
_WEIGHT_TYPES = (*_INTEGERS, np.float16, np.float32)
_LOOKED_THROUGH: dict[str, Callable[[Graph, Any, _Constant], _Constant | None]] = {
    "Cast": _cast,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Transpose": _transpose,
    "Reshape": _reshape,
}
