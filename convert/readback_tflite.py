"""Reads weights and shapes of TFLite files: weights from the flatbuffer, shapes from one run of LiteRT."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.int4 import dequantize_blocks, signed_nibbles, unpack_nibbles
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
from convert.tflite_file import names, operator_name, schema, shape_of, stored_bytes, unpack
from models.errors import ArtifactError

# Operator -> kind and the input that holds the weight.
OPERATORS: dict[str, tuple[str, int]] = {
    "CONV_2D": (CONV, 1),
    "DEPTHWISE_CONV_2D": (DEPTHWISE, 1),
    "FULLY_CONNECTED": (DENSE, 1),
    "BATCH_MATMUL": (DENSE, 1),
    "GATHER": (EMBEDDING, 0),
    "EMBEDDING_LOOKUP": (EMBEDDING, 1),
}
# They hold weights, or run others an unknown number of times.
REFUSED = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN", "WHILE", "IF", "DENSIFY")


def readers(path: Path) -> list[WeightReader]:
    """The operators that read a constant weight of two or more axes. Raises ArtifactError."""
    model = _load(path)
    found = []
    for subgraph in model.subgraphs:
        graph = _Graph(model, subgraph)
        for operator in subgraph.operators:
            weight = _read(path, graph, operator)
            found += [WeightReader(weight, int(operator.outputs[0]))] if weight else []
    return found


def output_sizes(path: Path) -> Mapping[str | int, int]:
    """How many numbers each tensor holds at batch 1. Raises ArtifactError.

    The file writes 1 for every axis that it does not know, cells of a feature grid too, and computes them from
    others while it runs; so this runs it once, on zeros, and asks the interpreter.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if len(_load(path).subgraphs) > 1:
        raise ArtifactError(f"can't count what {path} multiplies: it holds more than one graph.")
    try:
        # XNNPACK would hide the tensors between the operators that it takes over.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"LiteRT can't run {path}: {error}. Build it again.") from error
    return {tensor["index"]: int(np.prod(tensor["shape"])) for tensor in interpreter.get_tensor_details()}


def _load(path: Path) -> Any:
    """The unpacked flatbuffer."""
    try:
        return unpack(path.read_bytes())
    except Exception as error:  # offsets that lead nowhere raise whatever their reader meets
        raise ArtifactError(f"can't read {path} as a TFLite model: {error}. Build it again.") from error


@dataclass(frozen=True)
class _Constant:
    """A tensor that does not depend on inputs, dequantized."""

    name: str
    values: NDArray[Any]
    integers: NDArray[Any] | None = None

    def transposed(self, axes: tuple[int, ...]) -> "_Constant":
        """The same numbers with the axes in another order."""
        integers = None if self.integers is None else self.integers.transpose(axes)
        return replace(self, values=self.values.transpose(axes), integers=integers)

    def reshaped(self, shape: tuple[int, ...]) -> "_Constant":
        """The same numbers under another shape."""
        integers = None if self.integers is None else self.integers.reshape(shape)
        return replace(self, values=self.values.reshape(shape), integers=integers)

    def without_columns(self, count: int) -> "_Constant":
        """The same numbers but for the last columns."""
        columns = self.values.shape[-1] - count
        integers = None if self.integers is None else self.integers[..., :columns]
        return replace(self, values=self.values[..., :columns], integers=integers)


class _Graph:
    def __init__(self, model: Any, subgraph: Any) -> None:
        self._model, self._tensors = model, subgraph.tensors
        self._types = names(schema().TensorType)
        self._inputs = {int(index) for index in subgraph.inputs}
        self._producers = {int(output): operator for operator in subgraph.operators for output in operator.outputs}

    def kind(self, operator: Any) -> str:
        """The operator's name in the schema."""
        return operator_name(self._model, operator)

    def padding(self, operator: Any) -> int:
        """How many zeros a PAD puts after the last axis of what an operator reads first."""
        producer = self._producers.get(int(operator.inputs[0]))
        if producer is None or self.kind(producer) != "PAD":
            return 0
        amounts = self.constant(int(producer.inputs[1]))
        return 0 if amounts is None else int(amounts.values[-1, 1])

    def constant(self, index: int) -> _Constant | None:
        """The constant of this index, looking through what only stores it differently."""
        tensor = self._tensors[index]
        data = stored_bytes(self._model, tensor)
        if data:
            return self._stored(tensor, data)
        producer = self._producers.get(index)
        return None if producer is None else self._looked_through(producer, tensor)

    def depends_on_inputs(self, index: int) -> bool:
        """Whether a tensor is something else at every run."""

        def sources(index: int) -> list[int]:
            producer = self._producers.get(index)
            return [] if producer is None else [int(source) for source in producer.inputs]

        return not self._inputs.isdisjoint(ancestors(index, sources))

    def _looked_through(self, producer: Any, tensor: Any) -> _Constant | None:
        """What `producer` makes of a constant; None when it computes something new."""
        kind = self.kind(producer)
        source = self.constant(int(producer.inputs[0])) if kind in _LOOKED_THROUGH else None
        if source is None or kind == "DEQUANTIZE":  # constants are dequantized as they are read
            return source
        if kind == "QUANTIZE":
            values = rounded(source.values, *_scale(tensor), _TYPES[self._types[tensor.type]])
            return replace(source, values=values)
        if kind == "RESHAPE":
            return source.reshaped(shape_of(tensor))
        order = self.constant(int(producer.inputs[1]))
        return None if order is None else source.transposed(tuple(int(axis) for axis in order.values))

    def _stored(self, tensor: Any, data: bytes) -> _Constant | None:
        kind, shape = self._types[tensor.type], shape_of(tensor)
        if kind not in _TYPES:
            return None
        numbers = np.frombuffer(data, _TYPES[kind])
        if kind == "INT4":
            numbers = signed_nibbles(unpack_nibbles(numbers, int(np.prod(shape))))
        constant = _Constant(tensor.name.decode(), numbers.reshape(shape))
        if kind not in ("INT4", "INT8", "UINT8"):
            return constant
        return replace(constant, values=self._dequantized(tensor, constant.values), integers=constant.values)

    def _dequantized(self, tensor: Any, integers: NDArray[Any]) -> NDArray[np.float32]:
        """Integers of a tensor times its scales, which are another tensor where there is one for each block."""
        quantization = tensor.quantization
        if quantization.detailsType != schema().QuantizationDetails.BlockwiseQuantization:
            return dequantize(integers, *_scale(tensor))
        scales = self.constant(quantization.details.scales)
        if scales is None:
            raise ArtifactError(f"the scales of the blocks of '{tensor.name.decode()}' are not in the file.")
        return dequantize_blocks(integers, scales.values, quantization.details.blockSize)


_LOOKED_THROUGH = ("DEQUANTIZE", "QUANTIZE", "TRANSPOSE", "RESHAPE")
_TYPES: dict[str, Any] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "INT4": np.uint8,  # two in each
    "UINT8": np.uint8,
    "INT32": np.int32,
}


def _scale(tensor: Any) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Scales, zero points, and the axis along which there is one each."""
    quantization = tensor.quantization
    scale = np.array(quantization.scale, np.float32)
    return scale, np.array(quantization.zeroPoint), quantization.quantizedDimension if scale.size > 1 else 0


def _read(path: Path, graph: _Graph, operator: Any) -> StoredWeight | None:
    """The weight that `operator` reads; None when it reads none, such as a GATHER from a shape."""
    name = graph.kind(operator)
    if name in REFUSED:
        raise ArtifactError(f"can't read the weights of {path}: it holds the operator {name}.")
    kind, place = OPERATORS.get(name, ("", 0))
    if not kind:
        return None
    index = int(operator.inputs[place])
    constant = graph.constant(index)
    if constant is None and kind != EMBEDDING and not graph.depends_on_inputs(index):
        raise ArtifactError(f"can't read the weights of a {name} of {path}: the file computes them.")
    if constant is None or constant.values.ndim < 2 or constant.values.dtype == np.int32:
        return None
    if name == "FULLY_CONNECTED":
        constant = constant.without_columns(graph.padding(operator))
    axes = tuple(range(constant.values.ndim))
    if kind == DEPTHWISE:  # (1, height, width, outputs)
        constant = constant.transposed((3, 1, 2, 0))
    elif name == "BATCH_MATMUL" and not operator.builtinOptions.adjY:  # (..., inputs, outputs)
        constant = constant.transposed((axes[-1], *axes[:-1]))
    return StoredWeight(constant.name, kind, constant.values.astype(np.float32), constant.integers)
