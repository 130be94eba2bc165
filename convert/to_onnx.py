"""Exports to ONNX through tf2onnx, and quantizes with onnxruntime's tools."""

import tempfile
from pathlib import Path
from typing import Any

from convert.artifact import OUTPUT_SUFFIX
from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.quantization import quantize_onnx
from convert.recipe import Precision
from models.errors import ConversionError
from models.files import write_bytes_atomic
from models.keras import tensorflow

# The newest opset that tf2onnx 1.17 writes; per-channel QuantizeLinear needs 13.
OPSET = 18


def export_onnx(graph: GraphFunction, precision: Precision, calibration: Calibration, folder: Path) -> str:
    """Write `NAME.onnx` with float inputs and outputs at every precision. Raises ConversionError."""
    model = convert_to_onnx(graph)
    try:
        with tempfile.TemporaryDirectory() as work:
            content = quantize_onnx(model, precision, calibration.feeds(graph.name), Path(work))
    except Exception as error:  # onnxruntime's tools raise many types; all mean that they could not
        raise ConversionError(f"onnxruntime can't quantize '{graph.name}' to {precision}: {error}") from error
    write_bytes_atomic(folder / f"{graph.name}.onnx", content)
    return f"{graph.name}.onnx"


def convert_to_onnx(graph: GraphFunction) -> Any:
    """The fp32 ONNX model, tensors named as in the contract. Raises ConversionError."""
    import tf2onnx

    tf = tensorflow()

    @tf.function(input_signature=[graph.signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return {_output_name(name, feeds): value for name, value in graph.function(feeds).items()}

    try:
        model, _ = tf2onnx.convert.from_function(call, input_signature=[graph.signature], opset=OPSET)
    except Exception as error:  # tf2onnx raises many types; all mean that it could not
        raise ConversionError(f"tf2onnx can't convert '{graph.name}': {error}") from error
    _name_batch(model)
    return model


def _name_batch(model: Any) -> None:
    """Call the free first axis `batch`: tf2onnx numbers it by how much it has converted before."""
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_param = "batch"


def _output_name(name: str, feeds: Any) -> str:
    return f"{name}{OUTPUT_SUFFIX}" if name in feeds else name
