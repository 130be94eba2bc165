"""The coverage ledger of an artifact: how much of it really is INT8."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Smaller constants are scales, zero points, biases and shapes, not weights.
MINIMUM_ELEMENTS = 64


def weights_int8(graphs: Sequence[Path]) -> float | None:
    """Share (0..1) of the weights of these files that are stored as 8-bit integers; None where unknown."""
    counts = [_count_weights(path) for path in graphs]
    known = [count for count in counts if count is not None]
    total = sum(total for _, total in known)
    if len(known) < len(counts) or not total:
        return None
    return sum(int8 for int8, _ in known) / total


def _count_weights(path: Path) -> tuple[int, int] | None:
    """(8-bit weights, all weights) of one file."""
    if path.suffix == ".onnx":
        return _count_onnx(path)
    if path.suffix == ".tflite":
        return _count_tflite(path)
    return (0, 1) if path.suffix in ("", ".keras") else None  # SavedModel and Keras files hold fp32 only


def _count_onnx(path: Path) -> tuple[int, int]:
    import onnx

    integer = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    int8 = total = 0
    for tensor in onnx.load(str(path)).graph.initializer:
        elements = int(np.prod(tensor.dims))
        if elements >= MINIMUM_ELEMENTS and tensor.data_type in integer + floating:
            total += elements
            int8 += elements * (tensor.data_type in integer)
    return int8, total


def _count_tflite(path: Path) -> tuple[int, int]:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    int8 = total = 0
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        is_constant = model.Buffers(tensor.Buffer()).DataLength() > 0
        elements = int(np.prod(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else 1
        kinds = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8)
        if is_constant and elements >= MINIMUM_ELEMENTS and tensor.Type() in kinds:
            total += elements
            int8 += elements * (tensor.Type() == schema.TensorType.INT8)
    return int8, total
