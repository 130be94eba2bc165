"""Reads weights and shapes of TFLite files: weights from the flatbuffer, shapes from one run of LiteRT."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from models.keras import tensorflow

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
    schema = _schema()
    try:
        content = path.read_bytes()
        if not schema.Model.ModelBufferHasIdentifier(content, 0):
            raise ValueError("its identifier is missing")
        return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    except Exception as error:  # offsets that lead nowhere raise whatever their reader meets
        raise ArtifactError(f"can't read {path} as a TFLite model: {error}. Build it again.") from error


def _schema() -> Any:
    tensorflow()  # or importing a part of it would miss what is set up there
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


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


class _Graph:
    def __init__(self, model: Any, subgraph: Any) -> None:
        self._model, self._tensors = model, subgraph.tensors
        self._operators = _names(_schema().BuiltinOperator)
        self._types = _names(_schema().TensorType)
        self._inputs = {int(index) for index in subgraph.inputs}
        self._producers = {int(output): operator for operator in subgraph.operators for output in operator.outputs}

    def kind(self, operator: Any) -> str:
        """The operator's name in the schema."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        # Files hold the code twice: the older field is a byte, and stops at 127.
        return self._operators[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def constant(self, index: int) -> _Constant | None:
        """The constant of this index, looking through what only stores it differently."""
        tensor = self._tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is not None and len(data):
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
            return source.reshaped(_shape(tensor))
        order = self.constant(int(producer.inputs[1]))
        return None if order is None else source.transposed(tuple(int(axis) for axis in order.values))

    def _stored(self, tensor: Any, data: Any) -> _Constant | None:
        kind = self._types[tensor.type]
        if kind not in _TYPES:
            return None
        constant = _Constant(tensor.name.decode(), np.frombuffer(data, _TYPES[kind]).reshape(_shape(tensor)))
        if kind not in ("INT8", "UINT8"):
            return constant
        return replace(constant, values=dequantize(constant.values, *_scale(tensor)), integers=constant.values)


_LOOKED_THROUGH = ("DEQUANTIZE", "QUANTIZE", "TRANSPOSE", "RESHAPE")
_TYPES: dict[str, Any] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
}


def _scale(tensor: Any) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Scales, zero points, and the axis along which there is one each."""
    quantization = tensor.quantization
    scale = np.array(quantization.scale, np.float32)
    return scale, np.array(quantization.zeroPoint), quantization.quantizedDimension if scale.size > 1 else 0


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(axis) for axis in tensor.shape)


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


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
    axes = tuple(range(constant.values.ndim))
    if kind == DEPTHWISE:  # (1, height, width, outputs)
        constant = constant.transposed((3, 1, 2, 0))
    elif name == "BATCH_MATMUL" and not operator.builtinOptions.adjY:  # (..., inputs, outputs)
        constant = constant.transposed((axes[-1], *axes[:-1]))
    return StoredWeight(constant.name, kind, constant.values.astype(np.float32), constant.integers)
