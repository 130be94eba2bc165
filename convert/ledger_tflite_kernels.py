"""The TFLite operators that multiply by weights or look them up: where their weights are, how often they multiply.

Layouts are those of the kernels, https://www.tensorflow.org/mlir/tfl_ops.
"""

from math import prod

from convert.ledger_kernels import Call, Kernel, count_conv, count_nothing, count_product

LOOKUPS = ("GATHER", "EMBEDDING_LOOKUP")


def _count_depthwise(call: Call, kernel: Kernel) -> int | None:
    """Outputs x window; weights are (1, height, width, outputs)."""
    output, weight = call.output_shape(), call.shape(1)
    return prod(output) * prod(weight[1:-1]) if output and weight else None


def _count_dense(call: Call, kernel: Kernel) -> int | None:
    """Outputs x inputs; weights are (outputs, inputs)."""
    output, weight = call.output_shape(), call.shape(1)
    return prod(output) * weight[-1] if output and weight else None


def _count_transposed_conv(call: Call, kernel: Kernel) -> int | None:
    """Each input is multiplied into every place of the window; weights are (outputs, height, width, inputs)."""
    data, weight = call.shape(2), call.shape(1)
    return prod(data) * prod(weight[:-1]) if data and weight else None


def _count_conv_3d(call: Call, kernel: Kernel) -> int | None:
    """Weights are (depth, height, width, inputs, outputs)."""
    output, weight = call.output_shape(), call.shape(1)
    return prod(output) * prod(weight[:-1]) if output and weight else None


def _count_recurrent(call: Call, kernel: Kernel) -> int | None:
    """Every step multiplies each matrix of weights once; gates' element-wise products are left out."""
    data = call.shape(0)
    matrices = [shape for shape in map(call.shape, kernel.weights) if shape and len(shape) > 1]
    return prod(data[:-1]) * sum(map(prod, matrices)) if data and matrices else None


def _recurrent(*weights: int) -> Kernel:
    return Kernel(_count_recurrent, weights=weights)


_LSTM = (1, 2, 3, 4, 5, 6, 7, 8, 16)  # four matrices of input, four of state, the projection
KERNELS: dict[str, Kernel] = {
    "CONV_2D": Kernel(count_conv),
    "DEPTHWISE_CONV_2D": Kernel(_count_depthwise),
    "CONV_3D": Kernel(_count_conv_3d),
    "TRANSPOSE_CONV": Kernel(_count_transposed_conv, data=2),
    "FULLY_CONNECTED": Kernel(_count_dense),
    "BATCH_MATMUL": Kernel(count_product),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*_LSTM),
    "LSTM": _recurrent(*_LSTM),
    "BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*_LSTM, *range(18, 26), 33),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2),
    "RNN": _recurrent(1, 2),
    "BIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2, 5, 6),
    "SVDF": _recurrent(1, 2),
    "GATHER": Kernel(count_nothing, data=1, weights=(0,)),
    "EMBEDDING_LOOKUP": Kernel(count_nothing, data=0, weights=(1,)),
}
