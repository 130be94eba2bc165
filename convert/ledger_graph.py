"""ONNX graphs as the ledger walks them: bodies inside operators, constants behind what stores them differently."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convert.ledger_kernels import QUANTIZED, Shape
from convert.ledger_onnx_file import PACKED, TYPES, as_stored, bodies, constants, import_onnx, packing, type_name
from convert.ledger_parts import Arithmetic, Stored

LOOPS = ("Loop", "Scan")
# Operators that give a constant out as it came in, but for its numbers' type or their order.
STORED_DIFFERENTLY = frozenset(
    {"Cast", "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze"}
)
QUANTIZES = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
# What ONNX Runtime calls an FP16 constant that it widens for a processor without FP16 kernels.
RENAMED = re.compile(r"^(FusedBack_|InsertedPrecisionFreeCast_)")
NUMBERED = re.compile(r"_token_\d+$")
Tensors = Mapping[str, tuple[str, Shape | None]]
# Types as onnxruntime calls them, where that isn't ONNX' own name in small letters.
NAMES = {"float": "FLOAT", "double": "DOUBLE"}


class Scope:
    """One graph: that of the model, or a body that an operator of `outer` runs."""

    def __init__(
        self,
        graph: Any,
        tensors: Tensors,
        outer: "Scope | None",
        *,
        is_repeated: bool,
        file: "File",
        carried: Mapping[str, str],
    ) -> None:
        self.nodes = list(graph.node)
        self.outer, self.is_repeated, self.file = outer, is_repeated, file
        self._carried = carried  # input of a body -> the tensor of `outer` that it is at every pass
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._constants |= {n.output[0]: t for n in self.nodes if n.op_type == "Constant" for t in constants(n)}
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._tensors = dict(tensors) | {
            value.name: _described(value)
            for value in (*graph.value_info, *graph.input, *graph.output)
            if value.name not in tensors and value.type.HasField("tensor_type")
        }

    def tensor(self, name: str) -> Any | None:
        """The constant of this name, here or further out."""
        return self._constants.get(name) or (self.outer.tensor(name) if self.outer else None)

    def producer(self, name: str) -> Any | None:
        """The operator that computes this tensor, here or further out."""
        return self._producers.get(name) or (self.outer.producer(name) if self.outer else None)

    def readers(self, name: str) -> list[Any]:
        """The operators of this graph that read a tensor."""
        return self._readers.get(name, [])

    def described(self, name: str) -> tuple[str, Shape | None]:
        """Type (FLOAT, INT8, ...) and shape; "" and None where unknown."""
        constant = self.tensor(name)
        if constant is not None:
            return type_name(constant.data_type), tuple(constant.dims)
        if name in self._tensors:
            kind, shape = self._tensors[name]
            return NAMES.get(kind, kind.upper()), shape
        return self.outer.described(name) if self.outer else ("", None)

    def root(self, name: str) -> str | None:
        """The constant that a tensor is made of, behind what stores it differently; None where it varies."""
        while self.tensor(name) is None:
            if self.outer and name in self._carried:
                return self.outer.root(self._carried[name])
            node = self.producer(name)
            if node is None or node.op_type not in STORED_DIFFERENTLY:
                return None
            name = node.input[0]
        return name


@dataclass(frozen=True)
class File:
    """The graphs of a file as it is, before any optimizer; what is stored, and whether it is quantized."""

    scopes: tuple[Scope, ...]
    is_quantized: bool
    quantizes_activations: bool

    @staticmethod
    def of(model: Any) -> "File":
        """Read a file's graphs."""
        read = tuple(scopes(model, {}, None))
        nodes = [(scope, node) for scope in read for node in scope.nodes]
        activations = any(
            node.op_type in QUANTIZES or (node.op_type == "QuantizeLinear" and scope.root(node.input[0]) is None)
            for scope, node in nodes
        )
        return File(read, any(node.op_type in QUANTIZED for _, node in nodes), activations)

    def stored(self, name: str) -> Any | None:
        """The constant of the file that a tensor of this name is made of; None where the file has no such name."""
        for scope in self.scopes:
            root = scope.root(name)
            if root is not None:
                return scope.tensor(root)
        return None


# (model, operator, body, where the operator stands) -> tensors of the body
BodyTensors = Callable[[Any, Any, Any, Scope], Tensors]


def scopes(
    model: Any, tensors: Tensors, file: File | None, body_tensors: BodyTensors = lambda *_: {}
) -> Iterator[Scope]:
    """The model's graph and all bodies in it. `tensors` and `body_tensors` tell more than onnx can infer."""
    onnx = import_onnx()
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # operators of vendors, or tensors that contradict each other: then fewer shapes are known
        inferred = model
    nobody = file or File((), False, False)
    main = Scope(inferred.graph, tensors, None, is_repeated=False, file=nobody, carried={})
    yield from _with_bodies(main, lambda node, body, scope: body_tensors(model, node, body, scope))


def _with_bodies(scope: Scope, body_tensors: Callable[[Any, Any, Scope], Tensors]) -> Iterator[Scope]:
    yield scope
    for node in scope.nodes:
        for body in bodies(node):
            is_repeated = scope.is_repeated or node.op_type in LOOPS
            carried = dict(_carried(node, body)) if node.op_type in LOOPS else {}
            tensors = body_tensors(node, body, scope)
            inner = Scope(body, tensors, scope, is_repeated=is_repeated, file=scope.file, carried=carried)
            yield from _with_bodies(inner, body_tensors)


def _carried(node: Any, body: Any) -> Iterator[tuple[str, str]]:
    """Inputs of a loop's body that every pass hands on as they are: converters put weights there."""
    copies = {inner.output[0]: inner.input[0] for inner in body.node if inner.op_type == "Identity"}
    handed_on = [copies.get(output.name, output.name) for output in body.output]
    # A Loop's body takes the number of the pass first, which it does not hand on.
    skipped = 1 if node.op_type == "Loop" else 0
    for place, value in enumerate(body.input[skipped:]):
        if place < len(handed_on) and handed_on[place] == value.name and place + skipped < len(node.input):
            yield value.name, node.input[place + skipped]


def _described(value: Any) -> tuple[str, Shape | None]:
    tensor = value.type.tensor_type
    axes = tensor.shape.dim
    known = tensor.HasField("shape") and all(axis.HasField("dim_value") for axis in axes)
    return type_name(tensor.elem_type), tuple(axis.dim_value for axis in axes) if known else None


@dataclass(frozen=True)
class Call:
    """One operator where it stands."""

    scope: Scope
    node: Any

    @property
    def name(self) -> str:
        """The operator's name without the optimizer's numbers; where it has none, its output's."""
        return NUMBERED.sub("", str(self.node.name)) or next(name for name in self.node.output if name)

    def shape(self, place: int) -> Shape | None:
        """Shape of an input; None where absent or unknown."""
        return self.scope.described(self._input(place))[1]

    def output_shape(self) -> Shape | None:
        """Shape of the first output that is used; None where unknown."""
        return self.scope.described(next((name for name in self.node.output if name), ""))[1]

    def number(self, place: int) -> Arithmetic | None:
        """The numbers of an input."""
        return TYPES.get(self.scope.described(self._input(place))[0], (None, 0))[0]

    def attribute(self, name: str, default: int) -> int:
        """A whole-number attribute."""
        return int(next((a.i for a in self.node.attribute if a.name == name), default))

    def text(self, name: str) -> str:
        """A text attribute; "" where absent."""
        return next((a.s.decode() for a in self.node.attribute if a.name == name), "")

    def varies(self, place: int) -> bool:
        """Whether an input is computed anew at every run."""
        return bool(self._input(place)) and self.scope.root(self._input(place)) is None

    def stored(self, place: int) -> Stored | None:
        """The constant at an input as the file stores it; None where the input varies."""
        root = self.scope.root(self._input(place))
        if root is None:
            return None
        tensor = self.scope.file.stored(RENAMED.sub("", root)) or self.scope.tensor(root)
        is_packed = place == PACKED.get(self.node.op_type, (-1, 0))[0]
        return as_stored(root, tensor, packing(self.node) if is_packed else None)

    def quantized(self, place: int) -> tuple[Arithmetic, str] | None:
        """Numbers and type that an input was dequantized from just before; None where it was not."""
        source = self.scope.producer(self._input(place))
        while source is not None and source.op_type in ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity"):
            source = self.scope.producer(source.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            return None
        return self._integers(source.input[0])

    def output_quantized(self) -> tuple[Arithmetic, str] | None:
        """Numbers and type that the output is quantized to at once; None where anything reads it as it is."""
        names, found = [self.node.output[0]], None
        while names:
            readers = self.scope.readers(names.pop())
            for reader in readers or [None]:
                if reader is not None and reader.op_type in ("Relu", "Clip"):
                    names += reader.output
                elif reader is None or reader.op_type != "QuantizeLinear":
                    return None
                else:
                    found = self._integers(reader.output[0])
        return found

    def _integers(self, name: str) -> tuple[Arithmetic, str] | None:
        kind = self.scope.described(name)[0]
        return (TYPES[kind][0], kind) if kind in TYPES else None

    def _input(self, place: int) -> str:
        return str(self.node.input[place]) if place < len(self.node.input) else ""
