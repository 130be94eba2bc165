"""TFLite models taken apart and put together: operators are copied from one file into the graphs of another."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.tflite_file import as_buffer, builtin_code, pack, schema, stored_bytes

# Stands for an input that an operator goes without.
ABSENT = -1
# Where the older field of an operator's number stops.
LARGEST_NARROW_CODE = 127


class Source:
    """A model (ModelT) of one graph that operators are copied from; its signature names tensors."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        signature = model.signatureDefs[0]
        self.inputs = _by_name(signature.inputs)
        self.outputs = _by_name(signature.outputs)

    def is_constant(self, index: int) -> bool:
        """Whether a tensor holds its values in the file."""
        return bool(stored_bytes(self.model, self.graph.tensors[index]))

    def kind(self, operator: Any) -> int:
        """The BuiltinOperator of an operator."""
        return builtin_code(self.model.operatorCodes[operator.opcodeIndex])


class ModelWriter:
    """A model in the making: its graphs share operator codes and buffers."""

    def __init__(self) -> None:
        # Buffer 0 is empty by convention: what is computed names it.
        self.model = schema().ModelT(3, [], [], "", [schema().BufferT()], signatureDefs=[])
        self._codes: dict[tuple[int, int, object], int] = {}
        self._buffers: dict[int, int] = {}

    def add_graph(self, name: str) -> "GraphWriter":
        """A new, empty graph."""
        graph = schema().SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=name)
        self.model.subgraphs.append(graph)
        return GraphWriter(self, graph, len(self.model.subgraphs) - 1)

    def add_code(self, code: Any) -> int:
        """The index of an operator code (OperatorCodeT), added if it is new."""
        key = (builtin_code(code), int(code.version), code.customCode)
        if key not in self._codes:
            self._codes[key] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        return self._codes[key]

    def add_buffer(self, buffer: Any) -> int:
        """The index of a buffer (BufferT), added once however many tensors name it."""
        if buffer.data is None or not len(buffer.data):
            return 0
        if id(buffer) not in self._buffers:
            self._buffers[id(buffer)] = len(self.model.buffers)
            self.model.buffers.append(buffer)
        return self._buffers[id(buffer)]

    def content(self) -> bytes:
        """The file."""
        return pack(self.model)


class GraphWriter:
    """One graph of a model in the making; its tensors are known by their index."""

    def __init__(self, model: ModelWriter, graph: Any, index: int) -> None:
        self.model = model
        self.graph = graph
        self.index = index

    def tensor(self, name: str, dtype: int, shape: Sequence[int]) -> int:
        """A new tensor of a TensorType."""
        return self._append(schema().TensorT(shape=list(shape), type=dtype, name=name, hasRank=True))

    def constant(self, name: str, values: NDArray[Any]) -> int:
        """A new constant of int32 or float32."""
        dtype = schema().TensorType.INT32 if values.dtype == np.int32 else schema().TensorType.FLOAT32
        index = self.tensor(name, dtype, values.shape)
        self.graph.tensors[index].buffer = self.model.add_buffer(as_buffer(values))
        return index

    def like(self, tensor: Any, name: str) -> int:
        """A new tensor of the type, shape and scale of one (TensorT) in any graph."""
        fresh = copy.copy(tensor)
        fresh.name, fresh.buffer = name, 0
        return self._append(fresh)

    def add(self, kind: str, inputs: Iterable[int], outputs: Iterable[int], options: Any = None) -> None:
        """A new operator in its first version: a name of BuiltinOperator, and its object of BuiltinOptions."""
        number = getattr(schema().BuiltinOperator, kind)
        code = schema().OperatorCodeT(min(number, LARGEST_NARROW_CODE), None, 1, number)
        operator = schema().OperatorT(self.model.add_code(code), list(inputs), list(outputs))
        if options is not None:
            operator.builtinOptionsType = getattr(schema().BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self.graph.operators.append(operator)

    def copy(self, source: Source, operators: Iterable[Any], known: Mapping[int, int]) -> dict[int, int]:
        """Copies of a file's operators and their tensors; `known` maps tensors there to what stands for them here.

        Returns that map, with all that was copied.
        """
        mapped = {**known, ABSENT: ABSENT}
        for operator in operators:
            fresh = copy.copy(operator)
            fresh.opcodeIndex = self.model.add_code(source.model.operatorCodes[operator.opcodeIndex])
            fresh.debugMetadataIndex = ABSENT
            for field in ("inputs", "outputs"):
                indices = [int(index) for index in getattr(operator, field)]
                for index in indices:
                    if index not in mapped:
                        mapped[index] = self._copy_tensor(source, index)
                setattr(fresh, field, [mapped[index] for index in indices])
            self.graph.operators.append(fresh)
        return mapped

    def _copy_tensor(self, source: Source, index: int) -> int:
        fresh = copy.copy(source.graph.tensors[index])
        fresh.buffer = self.model.add_buffer(source.model.buffers[fresh.buffer])
        if fresh.quantization is not None and fresh.quantization.detailsType == _blockwise():
            fresh.quantization = copy.deepcopy(fresh.quantization)
            # The scales of blocks are a tensor of their own, named by its index; there are no zero points.
            fresh.quantization.details.scales = self._copy_tensor(source, fresh.quantization.details.scales)
        return self._append(fresh)

    def _append(self, tensor: Any) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1


def _blockwise() -> int:
    return int(schema().QuantizationDetails.BlockwiseQuantization)


def _by_name(maps: Iterable[Any]) -> dict[str, int]:
    return {entry.name.decode(): int(entry.tensorIndex) for entry in maps}
