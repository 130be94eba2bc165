"""What a coverage ledger is made of: closed lists of arithmetic, reasons and LSTM forms, and the values they key."""

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path

# Smaller constants are scales, zero points, biases and shapes; so are those of one axis, whatever their size.
MINIMUM_ELEMENTS = 64
MINIMUM_AXES = 2


class Arithmetic(StrEnum):
    """The numbers of a multiplication, or of a stored weight.

    An integer kernel is named after the operand that sets it apart: INT8 multiplies 8 by 8 bits, INT4 8-bit activations
    by 4-bit weights, INT16 16-bit activations by 8-bit weights.
    """

    INT8 = "int8"
    INT4 = "int4"
    INT16 = "int16"
    FP16 = "fp16"
    FP32 = "fp32"
    OTHER = "other"  # FP64, BF16, FP8, 2 bits


INTEGER = frozenset({Arithmetic.INT8, Arithmetic.INT4, Arithmetic.INT16})


class Evidence(StrEnum):
    """How the arithmetic of the parts is known."""

    OPTIMIZED_GRAPH = "optimized_graph"  # read from the graph that ONNX Runtime's optimizer wrote
    FILE_PATTERN = "file_pattern"  # ONNX without a runtime that loads it: Q and DQ around an operator are believed
    OPERATOR_TYPES = "operator_types"  # TFLite: its kernels are chosen by the types of their tensors


class LstmForm(StrEnum):
    """How a file holds an LSTM. Where several do, the one furthest down this list."""

    NONE = "none"
    EXPLICIT_STEP = "explicit_step"  # dense layers, sigmoids and tanh written out
    OPERATOR = "operator"  # ONNX LSTM, DynamicQuantizeLSTM; TFLite (UNI|BI)DIRECTIONAL_SEQUENCE_LSTM, LSTM
    LOOP = "loop"  # either of these inside an ONNX Loop or Scan, or a TFLite WHILE


class Reason(StrEnum):
    """Why a part computes in floating point; the first that holds."""

    # Nothing in the file is quantized: nobody asked for integers.
    CHOSEN = "chosen"
    # Stored in fewer bits (integers, FP16) and widened before float arithmetic; the file quantizes no activation.
    WEIGHT_ONLY = "weight_only"
    # Integer weights, and other activations are quantized, but not the one that this part multiplies.
    ACTIVATION_NOT_QUANTIZED = "activation_not_quantized"
    # A Gemm between Q and DQ whose bias is computed: integer kernels want it constant.
    BIAS_NOT_CONSTANT = "bias_not_constant"
    # Inputs are dequantized, but the output is not quantized, which this operator's integer kernel needs.
    OUTPUT_NOT_QUANTIZED = "output_not_quantized"
    # Input and output are quantized to different types (INT8 and UINT8), for which no kernel is fused.
    TYPES_DIFFER = "types_differ"
    # The runtime has no integer kernel for this operator in this kind of quantization, or did not take it.
    NO_INTEGER_KERNEL = "no_integer_kernel"
    # A product of two activations (attention) in a file that quantizes other parts.
    BOTH_INPUTS_VARY = "both_inputs_vary"
    # Fewer weights than TFLite's dynamic-range quantization takes (1024).
    SMALL = "small"
    # Float weights in a file that quantizes others: the quantizer was told to leave this one out.
    LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class Stored:
    """A constant as the file holds it."""

    name: str
    arithmetic: Arithmetic
    axes: int
    elements: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """An operator that multiplies, or looks up, as it runs."""

    name: str
    operator: str
    multiply_adds: int | None  # of one run at batch 1, of one pass of a loop; None where a shape is unknown
    weights: int  # elements
    stored: Arithmetic | None  # of the weights; None where it has none
    arithmetic: Arithmetic
    reason: Reason | None  # None for integers


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a model, counted apart. `resident` is the growth of a process that loads it; None unless measured."""

    file: int  # external data included
    deflated: int  # in one zip archive, level 6
    weights: int  # of the constants that count as weights
    resident: int | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one file stores and computes. Mappings hold what occurs, in elements, bytes or multiply-adds."""

    path: str
    evidence: Evidence
    runtime: str  # whose kernels these are, with version
    weights: Mapping[Arithmetic, int]
    weight_bytes: Mapping[Arithmetic, int]
    parts: tuple[Part, ...]
    leftover_quantize: int  # QuantizeLinear that still runs, QUANTIZE of a .tflite
    leftover_dequantize: int
    leftover_pairs: int  # a quantize whose output is dequantized again
    lstm: LstmForm
    sizes: Sizes
    notes: tuple[str, ...] = ()

    @property
    def multiply_adds(self) -> Mapping[Arithmetic, int]:
        """By arithmetic, of the parts whose shapes are known."""
        return sums((part.arithmetic, part.multiply_adds or 0) for part in self.parts)

    @property
    def uncounted(self) -> tuple[Part, ...]:
        """Parts whose multiply-adds could not be counted."""
        return tuple(part for part in self.parts if part.multiply_adds is None)


def sums(pairs: Iterable[tuple[Arithmetic, int]]) -> dict[Arithmetic, int]:
    """Amounts added up by arithmetic, in the order of `Arithmetic`, without zeros."""
    total: Counter[Arithmetic] = Counter()
    for arithmetic, amount in pairs:
        total[arithmetic] += amount
    return {arithmetic: total[arithmetic] for arithmetic in Arithmetic if total[arithmetic]}


def shares(amounts: Mapping[Arithmetic, int]) -> dict[Arithmetic, float]:
    """Amounts as shares 0..1 that sum to 1; empty where nothing was counted."""
    total = sum(amounts.values())
    return {arithmetic: amount / total for arithmetic, amount in amounts.items()} if total else {}


def stored_elements(weights: Iterable[Stored]) -> dict[Arithmetic, int]:
    """Elements by the numbers they are stored in."""
    return sums((weight.arithmetic, weight.elements) for weight in weights)


def stored_bytes(weights: Iterable[Stored]) -> dict[Arithmetic, int]:
    """Bytes by the numbers they are stored in."""
    return sums((weight.arithmetic, weight.bytes) for weight in weights)


def is_weight(stored: Stored) -> bool:
    """Whether a constant is a weight, rather than a bias or a scale."""
    return stored.axes >= MINIMUM_AXES and stored.elements >= MINIMUM_ELEMENTS


def file_sizes(files: Sequence[Path], weights: Iterable[Stored]) -> Sizes:
    """Sizes of a model that consists of `files`."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in files:
            archive.write(file, file.name)
    return Sizes(
        sum(file.stat().st_size for file in files), buffer.getbuffer().nbytes, sum(weight.bytes for weight in weights)
    )
