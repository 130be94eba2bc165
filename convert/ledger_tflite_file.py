"""Opens TFLite files of any origin: the flatbuffer through the schema that LiteRT or TensorFlow brings, no runtime."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

from convert.ledger_kernels import Shape
from convert.ledger_parts import Arithmetic, Stored, is_weight
from models.errors import ArtifactError, MissingPackageError
from models.keras import quiet_native_code

# Type of a tensor -> what it counts as, and bits; INT32, INT64, BOOL and the like hold no weights.
TYPES: dict[str, tuple[Arithmetic, int]] = {
    "FLOAT32": (Arithmetic.FP32, 32),
    "FLOAT16": (Arithmetic.FP16, 16),
    "INT8": (Arithmetic.INT8, 8),
    "UINT8": (Arithmetic.INT8, 8),
    "INT4": (Arithmetic.INT4, 4),
    "UINT4": (Arithmetic.INT4, 4),
    "INT16": (Arithmetic.INT16, 16),
    "UINT16": (Arithmetic.INT16, 16),
    "FLOAT64": (Arithmetic.OTHER, 64),
    "BFLOAT16": (Arithmetic.OTHER, 16),
    "FLOAT8_E4M3FN": (Arithmetic.OTHER, 8),
    "FLOAT8_E5M2": (Arithmetic.OTHER, 8),
    "INT2": (Arithmetic.OTHER, 2),
}
# The same generated module; LiteRT's is newer, and there where TensorFlow is not.
SCHEMAS = ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated")
STORED_DIFFERENTLY = ("DEQUANTIZE", "QUANTIZE", "TRANSPOSE", "RESHAPE", "CAST")


def load_tflite(path: Path) -> "File":
    """The unpacked file. Raises ArtifactError, and MissingPackageError where no schema is installed."""
    schema = _schema()
    try:
        content = path.read_bytes()
        if not schema.Model.ModelBufferHasIdentifier(content, 0):
            raise ValueError("the identifier TFL3 is missing")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        operators = [operator for graph in model.subgraphs for operator in graph.operators]
    except Exception as error:  # offsets that lead nowhere raise whatever their reader meets
        raise ArtifactError(f"can't read {path} as a TFLite model: {error}. Build or copy it again.") from error
    if not operators:
        raise ArtifactError(f"{path} is a TFLite model without operators. Build or copy it again.")
    return File(model, _names(schema.BuiltinOperator), _names(schema.TensorType))


def _schema() -> Any:
    for name in SCHEMAS:
        try:
            with quiet_native_code():
                return import_module(name)
        except ModuleNotFoundError:
            continue
    raise MissingPackageError(
        "inspecting .tflite files needs ai-edge-litert, which is not installed here: pip install ai-edge-litert."
    )


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


@dataclass(frozen=True)
class File:
    """A TFLite model: `model` as the schema unpacks it, with the names of operators and types."""

    model: Any
    operator_names: Mapping[int, str]
    type_names: Mapping[int, str]

    @cached_property
    def graphs(self) -> "tuple[Graph, ...]":
        """The graphs of signatures, and those that operators run."""
        repeated = set(_closure(self._bodies(("WHILE", "STABLEHLO_WHILE")), self._callees()))
        return tuple(
            Graph(self, index, graph, is_repeated=index in repeated) for index, graph in enumerate(self.model.subgraphs)
        )

    def kind(self, operator: Any) -> str:
        """The operator's name in the schema, or its own where it is custom."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Files hold the code twice: the older field is a byte, and stops at 127.
        name = self.operator_names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
        return code.customCode.decode() if name == "CUSTOM" and code.customCode else name

    def weights(self) -> tuple[Stored, ...]:
        """The constants that count as weights (two or more axes, 64 or more numbers), each once."""
        found: dict[int, Stored] = {}
        for graph in self.graphs:
            for index, tensor in enumerate(graph.tensors):
                stored = graph.constant(index)
                if stored and is_weight(stored):
                    found.setdefault(tensor.buffer, stored)
        return tuple(found.values())

    def _callees(self) -> dict[int, set[int]]:
        """Graph -> the graphs that its operators run."""
        return {
            index: {callee for operator in graph.operators for callee in _called(operator)}
            for index, graph in enumerate(self.model.subgraphs)
        }

    def _bodies(self, kinds: Sequence[str]) -> set[int]:
        operators = [operator for graph in self.model.subgraphs for operator in graph.operators]
        return {callee for operator in operators if self.kind(operator) in kinds for callee in _called(operator)}


def _called(operator: Any) -> Iterator[int]:
    """The graphs that an operator runs: every option that is named after one."""
    for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None)):
        for name, value in vars(options).items() if options is not None else ():
            if name.lower().endswith("subgraphindex") and isinstance(value, int) and value >= 0:
                yield value


def _closure(start: set[int], callees: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(start)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += callees.get(index, ())
    return found


class Graph:
    """One graph of a file; tensors by index."""

    def __init__(self, file: File, index: int, graph: Any, *, is_repeated: bool) -> None:
        self.file, self.index, self.is_repeated = file, index, is_repeated
        self.tensors, self.operators = graph.tensors, graph.operators
        self._producers = {int(output): operator for operator in graph.operators for output in operator.outputs}

    def type(self, index: int) -> str:
        """FLOAT32, INT8, ...; "" for an input that is left out."""
        return self.file.type_names.get(self.tensors[index].type, "") if index >= 0 else ""

    def name(self, index: int) -> str:
        """The first of the names that a fused tensor carries."""
        name = self.tensors[index].name
        return name.decode(errors="replace").split(";")[0] if name else f"tensor {index}"

    def shape(self, index: int) -> Shape | None:
        """The shape in the file at batch 1; None where other axes are free."""
        if index < 0:
            return None
        tensor = self.tensors[index]
        shape = () if tensor.shape is None else tuple(int(axis) for axis in tensor.shape)
        signature = () if tensor.shapeSignature is None else tuple(int(axis) for axis in tensor.shapeSignature)
        return None if -1 in signature[1:] or -1 in shape else shape

    def is_free(self, index: int) -> bool:
        """Whether the file leaves an axis open, the batch too: it then writes 1 for axes that it computes from it."""
        signature = self.tensors[index].shapeSignature
        return signature is not None and -1 in [int(axis) for axis in signature]

    def producer(self, index: int) -> Any | None:
        """The operator that computes a tensor."""
        return self._producers.get(index)

    def constant(self, index: int) -> Stored | None:
        """A tensor that the file stores; None where it varies or holds indices."""
        if index < 0 or self.type(index) not in TYPES:
            return None
        tensor = self.tensors[index]
        data = self.file.model.buffers[tensor.buffer].data
        if data is None or not len(data):
            return None
        arithmetic, width = TYPES[self.type(index)]
        axes = () if tensor.shape is None else tuple(int(axis) for axis in tensor.shape)
        # A sparse tensor stores fewer numbers than its shape has; four bits share bytes.
        size = len(data) if tensor.sparsity is not None else (prod(axes) * width + 7) // 8
        return Stored(self.name(index), arithmetic, len(axes), prod(axes), size)

    def stored(self, index: int) -> Stored | None:
        """The constant that a tensor is made of, behind what stores it differently."""
        while index >= 0 and self.constant(index) is None:
            operator = self.producer(index)
            if operator is None or self.file.kind(operator) not in (*STORED_DIFFERENTLY, "DENSIFY"):
                return None
            index = int(operator.inputs[0])
        return self.constant(index)
