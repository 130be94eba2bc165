"""The ONNX operators that multiply by weights or look them up: where their weights are, and how often they multiply.

Covers the operators of ONNX and those that ONNX Runtime's optimizer and quantizer write instead of them
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Protocol

from convert.ledger_parts import INTEGER, Arithmetic

Shape = tuple[int, ...]


class Call(Protocol):
    """One operator with the shapes around it."""

    def shape(self, place: int) -> Shape | None:
        """Shape of an input; None where absent or unknown."""

    def output_shape(self) -> Shape | None:
        """Shape of the first output; None where unknown."""

    def attribute(self, name: str, default: int) -> int:
        """A whole-number attribute."""

    def text(self, name: str) -> str:
        """A text attribute; "" where absent."""


Count = Callable[[Call, "Kernel"], int | None]


@dataclass(frozen=True)
class Kernel:
    """`data` and `weights` are places of inputs; `integer` is set for kernels that only compute so."""

    count: Count
    data: int = 0
    weights: tuple[int, ...] = (1,)
    integer: Arithmetic | None = None
    # Whether ONNX Runtime has an integer kernel that static quantization can turn this operator into.
    is_quantizable: bool = False


def count_conv(call: Call, kernel: Kernel) -> int | None:
    """Outputs x inputs of their group x window; weights are (outputs, inputs of a group, window...) in any layout."""
    output, weight = call.output_shape(), call.shape(kernel.weights[0])
    return prod(output) * prod(weight[1:]) if output and weight else None


def count_transposed_conv(call: Call, kernel: Kernel) -> int | None:
    """Each input is multiplied into every place of the window; weights are (inputs, outputs of a group, window...)."""
    data, weight = call.shape(kernel.data), call.shape(kernel.weights[0])
    return prod(data) * prod(weight[1:]) if data and weight else None


def count_product(call: Call, kernel: Kernel) -> int | None:
    """Outputs x the length of the rows that are multiplied."""
    output, length = call.output_shape(), row_length(call, kernel)
    return prod(output) * length if output and length else None


def row_length(call: Call, kernel: Kernel) -> int | None:
    """The axis that both factors of a product share, from either factor."""
    known = call.attribute("K", 0)  # of a blockwise product
    data, weight = call.shape(kernel.data), call.shape(kernel.weights[0])
    if not known and data:
        known = data[-2 if call.attribute("transA", 0) else -1]
    if not known and weight:
        known = weight[-1 if call.attribute("transB", 0) or len(weight) == 1 else -2]
    return known or None


def count_einsum(call: Call, kernel: Kernel) -> int | None:
    """Of two factors: the product of all axes that the equation names. None with an ellipsis or other factors."""
    letters = call.text("equation").replace(" ", "").split("->")[0].split(",")
    shapes = [call.shape(place) for place in range(len(letters))]
    sizes: dict[str, int] = {}
    for names, shape in zip(letters, shapes, strict=True):
        if shape is None or len(names) != len(shape):
            return None
        sizes |= zip(names, shape, strict=True)
    return prod(sizes.values()) if len(letters) == 2 else None


def count_recurrent(call: Call, kernel: Kernel) -> int | None:
    """Every step multiplies all weights of input and state once; gates' element-wise products are left out."""
    data, *weights = (call.shape(place) for place in (kernel.data, *kernel.weights))
    if not data or not all(weights):
        return None
    return prod(data[:-1]) * sum(prod(weight) for weight in weights if weight)


def count_attention(call: Call, kernel: Kernel) -> int | None:
    """Queries by keys and weights by values, for (batch, length, size) or (batch, heads, length, size); no cache."""
    query, keys, output = call.shape(0), call.shape(1), call.output_shape()
    if not query or not keys or not output or not len(query) == len(keys) == len(output):
        return None
    return (prod(query) + prod(output)) * keys[-2]


def count_projected_attention(call: Call, kernel: Kernel) -> int | None:
    """ONNX Runtime's Attention: the projections to queries, keys and values (equally wide), then as above."""
    data, weight = call.shape(0), call.shape(1)
    if not data or not weight or len(data) != 3:
        return None
    batch, length, _ = data
    return batch * length * prod(weight) + 2 * batch * length * length * (weight[1] // 3)


def count_nothing(call: Call, kernel: Kernel) -> int | None:
    """A look-up multiplies nothing."""
    return 0


_CONV = Kernel(count_conv, is_quantizable=True)
_DENSE = Kernel(count_product, is_quantizable=True)
_RECURRENT = Kernel(count_recurrent, weights=(1, 2))
_LOOKUP = Kernel(count_nothing, weights=(0,), data=1)
KERNELS: dict[str, Kernel] = {
    "Conv": _CONV,
    "FusedConv": _CONV,
    "NhwcConv": _CONV,
    "NhwcFusedConv": _CONV,
    "ConvInteger": Kernel(count_conv, integer=Arithmetic.INT8),
    "QLinearConv": Kernel(count_conv, weights=(3,), integer=Arithmetic.INT8),
    "ConvTranspose": Kernel(count_transposed_conv),
    "DeformConv": Kernel(count_conv),
    "MatMul": _DENSE,
    "Gemm": _DENSE,
    "FusedMatMul": _DENSE,
    "FusedGemm": _DENSE,
    "FusedMatMulActivation": _DENSE,
    "MatMulInteger": Kernel(count_product, integer=Arithmetic.INT8),
    "MatMulInteger16": Kernel(count_product, integer=Arithmetic.INT16),
    "MatMulIntegerToFloat": Kernel(count_product, integer=Arithmetic.INT8),
    "DynamicQuantizeMatMul": Kernel(count_product, integer=Arithmetic.INT8),
    "QLinearMatMul": Kernel(count_product, weights=(3,), integer=Arithmetic.INT8),
    "QGemm": Kernel(count_product, weights=(3,), integer=Arithmetic.INT8),
    "MatMulNBits": Kernel(count_product),
    "MatMulBnb4": Kernel(count_product),
    "Einsum": Kernel(count_einsum),
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "DynamicQuantizeLSTM": Kernel(count_recurrent, weights=(1, 2), integer=Arithmetic.INT8),
    "com.microsoft.Attention": Kernel(count_projected_attention),
    "QAttention": Kernel(count_projected_attention, integer=Arithmetic.INT8),
    "Attention": Kernel(count_attention),
    "MultiHeadAttention": Kernel(count_attention),
    "Gather": _LOOKUP,
    "GatherBlockQuantized": _LOOKUP,
}
# What a file that is quantized in any way holds.
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits", "MatMulBnb4"}) | {
    name for name, kernel in KERNELS.items() if kernel.integer
}
# MatMulNBits at this accuracy level rounds its activations to INT8 by block, and at the others widens its weights. On a
# processor for which it has no such kernel it widens them at every level, which the graph doesn't tell.
# https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/contrib_ops/cpu/quantization/matmul_nbits.cc
INTEGER_ACCURACY = 4


def kernel_of(kind: str, domain: str) -> Kernel | None:
    """The kernel of an operator; None where it has no weights to multiply by, or is not known."""
    return KERNELS.get(f"{domain}.{kind}") or KERNELS.get(kind)


def blockwise_arithmetic(accuracy_level: int, bits: int) -> Arithmetic | None:
    """What MatMulNBits multiplies in; None for the numbers of its activations."""
    by_bits = {4: Arithmetic.INT4, 8: Arithmetic.INT8}
    return by_bits.get(bits) if accuracy_level == INTEGER_ACCURACY else None


def integer_pair(activation: Arithmetic, weight: Arithmetic) -> Arithmetic | None:
    """What an integer kernel of these two is named after; None where either is no integer."""
    if not {activation, weight} <= INTEGER:
        return None
    widest_first = (Arithmetic.INT16, Arithmetic.INT4, Arithmetic.INT8)
    return next(arithmetic for arithmetic in widest_first if arithmetic in (activation, weight))
