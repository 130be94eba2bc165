"""Opens ONNX files of any origin without reading what lies outside their folder, and lists the weights they store."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from convert.ledger_parts import Arithmetic, Stored, is_weight
from models.errors import ArtifactError, MissingPackageError

# Type of a constant -> what it counts as, and bits. Other types (INT32, INT64, BOOL, STRING) hold no weights.
TYPES: dict[str, tuple[Arithmetic, int]] = {
    "FLOAT": (Arithmetic.FP32, 32),
    "FLOAT16": (Arithmetic.FP16, 16),
    "INT8": (Arithmetic.INT8, 8),
    "UINT8": (Arithmetic.INT8, 8),
    "INT4": (Arithmetic.INT4, 4),
    "UINT4": (Arithmetic.INT4, 4),
    "INT16": (Arithmetic.INT16, 16),
    "UINT16": (Arithmetic.INT16, 16),
    "DOUBLE": (Arithmetic.OTHER, 64),
    "BFLOAT16": (Arithmetic.OTHER, 16),
    "FLOAT8E4M3FN": (Arithmetic.OTHER, 8),
    "FLOAT8E5M2": (Arithmetic.OTHER, 8),
    "FLOAT4E2M1": (Arithmetic.OTHER, 4),
    "INT2": (Arithmetic.OTHER, 2),
    "UINT2": (Arithmetic.OTHER, 2),
}
BY_BITS = {4: Arithmetic.INT4, 8: Arithmetic.INT8}
# Inputs that hold several weights in a byte when they are UINT8, with the default of the attribute `bits`.
# https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
PACKED = {"MatMulNBits": (1, 4), "GatherBlockQuantized": (0, 4)}
# Inputs of two axes that are scales, zero points, biases or states, not weights.
PARAMETERS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "MatMulNBits": (2, 3, 4, 5),
    "GatherBlockQuantized": (2, 3),
    "LSTM": (3, 5, 6, 7),
    "GRU": (3, 5),
    "RNN": (3, 5),
    "DynamicQuantizeLSTM": (3, 5, 6, 7, 8, 9, 10, 11),
}


def load_onnx(path: Path) -> Any:
    """The model without its external data, whose places are checked first. Raises ArtifactError."""
    onnx = import_onnx()
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf raises its own types, of its C++ or its Python half
        raise ArtifactError(f"can't read {path} as an ONNX model: {error}. Build or copy it again.") from error
    if not model.graph.node:
        raise ArtifactError(f"{path} is not an ONNX model: it holds no operators. Build or copy it again.")
    external_files(path, model)
    return model


def import_onnx() -> Any:
    """The `onnx` package. Raises MissingPackageError."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "inspecting .onnx files needs onnx, which this environment does not hold: pip install onnx."
        ) from error
    return onnx


def external_files(path: Path, model: Any) -> tuple[Path, ...]:
    """Files beside the model that hold its tensors. Raises ArtifactError when one is missing, short or elsewhere."""
    places: dict[Path, None] = {}
    for tensor in _tensors(model):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            file = _beside(path, tensor.name, entries.get("location", ""))
            _check_length(file, tensor.name, entries)
            places[file] = None
    return tuple(places)


def _beside(path: Path, name: str, location: str) -> Path:
    folder = path.parent.resolve()
    file = (folder / location).resolve()  # also follows links out of the folder
    if Path(location).is_absolute() or not file.is_relative_to(folder) or file == folder:
        raise ArtifactError(
            f"refused to read {path}: tensor '{name}' asks for data at '{location}', outside the model's folder. "
            "Only inspect models whose external data lies beside them."
        )
    if not file.is_file():
        raise ArtifactError(f"{path} is incomplete: tensor '{name}' needs '{location}' beside it; copy that file too.")
    return file


def _check_length(file: Path, name: str, entries: dict[str, str]) -> None:
    try:
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
    except ValueError as error:
        raise ArtifactError(f"tensor '{name}' has no place in {file}: {error}. Build the model again.") from error
    size = file.stat().st_size
    if end > size:
        raise ArtifactError(
            f"{file} is truncated: tensor '{name}' ends at byte {end}, the file at {size}. Copy it again."
        )


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and all that its operators run: bodies of loops and branches."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def bodies(node: Any) -> Iterator[Any]:
    """The graphs that an operator runs itself."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else []
        yield from attribute.graphs


def nodes(model: Any) -> Iterator[Any]:
    """Every operator of a model, also in bodies and in the model's own functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for body in bodies(node):
                for graph in graphs(body):
                    yield from graph.node


def constants(node: Any) -> Iterator[Any]:
    """Tensors that an operator carries as attributes, named after its output."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t


def _tensors(model: Any) -> Iterator[Any]:
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in nodes(model):
        yield from constants(node)


def stored_weights(model: Any) -> tuple[Stored, ...]:
    """The constants that count as weights (two or more axes, 64 or more numbers), each once."""
    packed = {node.input[PACKED[node.op_type][0]]: packing(node) for node in nodes(model) if node.op_type in PACKED}
    named = [(tensor.name, tensor) for graph in graphs(model.graph) for tensor in graph.initializer]
    named += [
        (node.output[0], tensor) for node in nodes(model) if node.op_type == "Constant" for tensor in constants(node)
    ]
    skipped = _parameters(model)
    found = [as_stored(name, tensor, packed.get(name)) for name, tensor in named if name not in skipped]
    return tuple(stored for stored in found if stored and is_weight(stored))


def _parameters(model: Any) -> set[str]:
    """Names of constants that are scales, zero points, biases or states, whatever their shape."""
    return {
        node.input[place]
        for node in nodes(model)
        for place in PARAMETERS.get(node.op_type, ())
        if place < len(node.input)
    }


@dataclass(frozen=True)
class Packing:
    """How many weights of how many bits a UINT8 tensor holds; `elements` is 0 where it holds no padding."""

    bits: int
    elements: int


def packing(node: Any) -> Packing | None:
    """The packing of an operator's weights; None where a UINT8 is a weight."""
    if node.op_type not in PACKED:
        return None
    numbers = {attribute.name: attribute.i for attribute in node.attribute}
    # The last block of a row is filled up.
    elements = numbers.get("K", 0) * numbers.get("N", 0)
    return Packing(numbers.get("bits", PACKED[node.op_type][1]), elements)


def as_stored(name: str, tensor: Any, packed: Packing | None = None) -> Stored | None:
    """A tensor of numbers as it is stored; None for indices and the like."""
    kind = type_name(tensor.data_type)
    if kind not in TYPES:
        return None
    elements, axes = prod(tensor.dims), len(tensor.dims)
    arithmetic, width = TYPES[kind]
    size = (elements * width + 7) // 8
    if packed and kind == "UINT8":
        held = packed.elements or elements * 8 // packed.bits
        return Stored(name, BY_BITS.get(packed.bits, Arithmetic.OTHER), axes, held, size)
    return Stored(name, arithmetic, axes, elements, size)


def type_name(data_type: int) -> str:
    """FLOAT, INT8, ...; UNDEFINED for what this version of onnx does not know."""
    known = import_onnx().TensorProto.DataType
    return str(known.Name(data_type)) if data_type in known.values() else "UNDEFINED"
