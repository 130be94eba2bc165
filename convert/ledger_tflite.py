"""The coverage ledger of TFLite files: LiteRT chooses its kernels by the types of the tensors, so these tell them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.ledger_cells import Operator, lstm_form
from convert.ledger_kernels import (
    Kernel,
    Shape,
    integer_pair,
)
from convert.ledger_parts import (
    INTEGER,
    Arithmetic,
    Evidence,
    Ledger,
    Part,
    Reason,
    file_sizes,
    is_weight,
    stored_bytes,
    stored_elements,
)
from convert.ledger_tflite_file import STORED_DIFFERENTLY, TYPES, File, Graph, load_tflite
from convert.ledger_tflite_kernels import KERNELS, LOOKUPS
from convert.ledger_tflite_shapes import run_shapes

# Below this many numbers the converter's dynamic-range quantization leaves a weight in float.
# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/tools/optimize/quantize_weights.cc
SMALL_ELEMENTS = 1024


def tflite_ledger(path: Path) -> Ledger:
    """The ledger of a .tflite file. Raises ArtifactError and MissingPackageError as `ledger_of` says."""
    file = load_tflite(path)
    calls = [Call(graph, operator) for graph in file.graphs for operator in graph.operators]
    shapes, runtime, notes = run_shapes(path, file, {call.output for call in calls if call.kernel})
    weights = file.weights()
    surroundings = _surroundings(file)
    parts = [_part(call.with_shapes(shapes), surroundings) for call in calls]
    quantize, dequantize, pairs = _leftover(calls)
    if any(graph.is_repeated for graph in file.graphs):
        notes = (*notes, "multiply-adds of a loop are those of one pass")
    return Ledger(
        path=str(path),
        evidence=Evidence.OPERATOR_TYPES,
        runtime=runtime,
        weights=stored_elements(weights),
        weight_bytes=stored_bytes(weights),
        parts=tuple(part for part in parts if part),
        leftover_quantize=quantize,
        leftover_dequantize=dequantize,
        leftover_pairs=pairs,
        lstm=lstm_form([call.as_operator() for call in calls]),
        sizes=file_sizes([path], weights),
        notes=notes,
    )


@dataclass(frozen=True)
class Call:
    """One operator where it stands; `shapes` by (graph, tensor) win over the file's."""

    graph: Graph
    operator: Any
    shapes: Mapping[tuple[int, int], Shape] | None = None

    def with_shapes(self, shapes: Mapping[tuple[int, int], Shape]) -> "Call":
        """The same operator, as it ran."""
        return Call(self.graph, self.operator, shapes)

    @property
    def kind(self) -> str:
        """The operator's name."""
        return self.graph.file.kind(self.operator)

    @property
    def kernel(self) -> Kernel | None:
        """How it multiplies; None where it does not, or is not known."""
        return KERNELS.get(self.kind)

    @property
    def output(self) -> tuple[int, int]:
        """Graph and index of the first output."""
        return self.graph.index, int(self.operator.outputs[0]) if len(self.operator.outputs) else -1

    def input(self, place: int) -> int:
        """Index of an input; -1 where it is left out."""
        return int(self.operator.inputs[place]) if place < len(self.operator.inputs) else -1

    def shape(self, place: int) -> Shape | None:
        """Shape of an input; None where absent or unknown."""
        return self._shape(self.input(place))

    def output_shape(self) -> Shape | None:
        """Shape of the first output; None where unknown."""
        return self._shape(self.output[1])

    def attribute(self, name: str, default: int) -> int:
        """The transpositions of a BATCH_MATMUL, by ONNX' names; no operator here has other attributes that count."""
        option = {"transA": "adjX", "transB": "adjY"}.get(name, "")
        return int(getattr(self.operator.builtinOptions, option, default))

    def text(self, name: str) -> str:
        """No operator here has any."""
        return ""

    def as_operator(self) -> Operator:
        """For finding cells; tensors are named by graph."""
        inputs, outputs = (
            tuple(f"{self.graph.index}:{int(index)}" for index in indices)
            for indices in (self.operator.inputs, self.operator.outputs)
        )
        return Operator(self.kind, inputs, outputs, self.graph.is_repeated)

    def _shape(self, index: int) -> Shape | None:
        return (self.shapes or {}).get((self.graph.index, index)) or self.graph.shape(index)


@dataclass(frozen=True)
class Surroundings:
    """What the rest of a file says about a part: whether any tensor is quantized, and any activation."""

    is_quantized: bool
    quantizes_activations: bool


def _surroundings(file: File) -> Surroundings:
    found = {
        not _is_constant(graph, index)
        for graph in file.graphs
        for index, tensor in enumerate(graph.tensors)
        if tensor.quantization is not None
        and tensor.quantization.scale is not None
        and len(tensor.quantization.scale)
        and TYPES.get(graph.type(index), (None, 0))[0] in INTEGER
    }
    return Surroundings(bool(found), True in found)


def _is_constant(graph: Graph, index: int) -> bool:
    """Whether a tensor is stored, or consists of rows of a stored table."""
    producer = graph.producer(index)
    while producer is not None and graph.file.kind(producer) in (*STORED_DIFFERENTLY, *LOOKUPS):
        kernel = KERNELS.get(graph.file.kind(producer))
        index = int(producer.inputs[kernel.weights[0] if kernel else 0])
        producer = graph.producer(index)
    return graph.constant(index) is not None


def _leftover(calls: list[Call]) -> tuple[int, int, int]:
    """Operators that quantize, that dequantize, and how many of the latter undo the former at once."""
    dequantize = [call for call in calls if call.kind == "DEQUANTIZE"]
    sources = [(call.graph.file, call.graph.producer(call.input(0))) for call in dequantize]
    pairs = [operator for file, operator in sources if operator is not None and file.kind(operator) == "QUANTIZE"]
    return sum(call.kind == "QUANTIZE" for call in calls), len(dequantize), len(pairs)


def _part(call: Call, around: Surroundings) -> Part | None:
    """The line of the ledger for one operator; None when it multiplies by nothing."""
    kernel = call.kernel
    places = kernel.weights if kernel else range(len(call.operator.inputs))
    found = [stored for stored in (call.graph.stored(call.input(place)) for place in places) if stored]
    matrices = [stored for stored in found if stored.axes > 1]
    name, elements = call.graph.name(call.output[1]), sum(stored.elements for stored in matrices)
    stored = matrices[0].arithmetic if matrices else None
    if kernel is None:
        is_custom = call.kind not in call.graph.file.operator_names.values()
        if not is_custom or not any(map(is_weight, found)):
            return None
        return Part(name, call.kind, None, elements, stored, Arithmetic.OTHER, Reason.NO_INTEGER_KERNEL)
    if call.kind in LOOKUPS and not any(map(is_weight, matrices)):
        return None
    arithmetic = _arithmetic(call, kernel)
    smallest = min((matrix.elements for matrix in matrices), default=0)
    reason = None if arithmetic in INTEGER else _reason(call, kernel, stored, smallest, around)
    return Part(name, call.kind, kernel.count(call, kernel), elements, stored, arithmetic, reason)


def _arithmetic(call: Call, kernel: Kernel) -> Arithmetic:
    """Integers by integers, or a float activation that the kernel itself quantizes for integer weights (hybrid)."""
    data, weight = (_number(call, place) for place in (kernel.data, _first_weight(call, kernel)))
    if call.kind in LOOKUPS:
        return weight
    return integer_pair(Arithmetic.INT8 if data not in INTEGER else data, weight) or data


def _first_weight(call: Call, kernel: Kernel) -> int:
    """The first weight that is not left out: an LSTM with coupled gates has none for the input gate."""
    return next((place for place in kernel.weights if call.input(place) >= 0), kernel.weights[0])


def _number(call: Call, place: int) -> Arithmetic:
    return TYPES.get(call.graph.type(call.input(place)), (Arithmetic.OTHER, 0))[0]


def _reason(call: Call, kernel: Kernel, stored: Arithmetic | None, smallest: int, around: Surroundings) -> Reason:
    """Why this is not computed in integers; rules in the order of `Reason`."""
    producer = call.graph.producer(call.input(kernel.data))
    is_dequantized = producer is not None and call.graph.file.kind(producer) == "DEQUANTIZE"
    if not around.is_quantized and stored is not Arithmetic.FP16:
        return Reason.CHOSEN
    if stored is Arithmetic.FP16 or (stored in INTEGER and not around.quantizes_activations):
        return Reason.WEIGHT_ONLY
    if is_dequantized:
        return Reason.NO_INTEGER_KERNEL
    if stored in INTEGER:
        return Reason.ACTIVATION_NOT_QUANTIZED
    if stored is None:
        return Reason.BOTH_INPUTS_VARY
    is_small = smallest < SMALL_ELEMENTS and not around.quantizes_activations
    return Reason.SMALL if is_small else Reason.LEFT_OUT
