"""Exports to ONNX through tf2onnx, and quantizes with onnxruntime's tools or with ranges that were trained."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.artifact import OUTPUT_SUFFIX
from convert.calibration import Calibration, Feed
from convert.compact import compact
from convert.fake_quant import holds_fake_quant, require_static
from convert.graphs import GraphFunction
from convert.int4_onnx import quantize_weights_int4
from convert.qdq import convert_fake_quant
from convert.quantization import quantize_onnx, store_weights_fp16
from convert.scheme import INTEGER, STATIC, Precision, Scheme
from convert.shared_tables import share_transposed_tables
from models.errors import CaptionbenchError, ConversionError, UnsupportedError
from models.files import write_bytes_atomic
from models.keras import tensorflow

# The newest opset that tf2onnx 1.17 writes; per-channel QuantizeLinear needs 13.
OPSET = 18


def export_onnx(graph: GraphFunction, scheme: Scheme, calibration: Calibration, folder: Path) -> str:
    """Write `NAME.onnx` with float inputs and outputs under every scheme.

    A graph with FakeQuant takes its ranges from there, not from `calibration`. Raises ConversionError.
    """
    if holds_fake_quant(graph):
        require_static(graph, scheme)
        content = serialize(convert_to_onnx(graph, fake_quant=True))
    else:
        content = _quantize(graph, scheme, calibration)
    write_bytes_atomic(folder / f"{graph.name}.onnx", content)
    return f"{graph.name}.onnx"


def _quantize(graph: GraphFunction, scheme: Scheme, calibration: Calibration) -> bytes:
    """The post-training precisions."""
    if scheme.precision is Precision.INT16X8:
        raise UnsupportedError(
            "onnxruntime's CPU kernels multiply 8-bit activations only; 16-bit ones would run in float",
            thread="https://github.com/microsoft/onnxruntime/pull/17015",
        )
    feeds = calibration.feeds(graph.name) if scheme.precision in STATIC else iter(())
    model = convert_to_onnx(graph)
    if scheme.precision in (Precision.FP32, Precision.FP16):  # as integers the two have scales of their own
        model = share_transposed_tables(model)
    try:
        return _apply(model, scheme, feeds)
    except CaptionbenchError:
        raise
    except Exception as error:  # onnxruntime's tools raise many types; all mean that they could not
        raise ConversionError(f"onnxruntime can't quantize '{graph.name}' to {scheme}: {error}") from error


def _apply(model: Any, scheme: Scheme, feeds: Iterator[Feed]) -> bytes:
    """The serialized model under a post-training scheme."""
    if scheme.precision in INTEGER:
        with tempfile.TemporaryDirectory() as work:
            model = quantize_onnx(model, scheme, feeds, Path(work))
    if scheme.precision is Precision.FP16:
        model = store_weights_fp16(model)
    if scheme.precision is Precision.INT4_WEIGHTS:
        model = quantize_weights_int4(model)
    return serialize(model)


def serialize(model: Any) -> bytes:
    """The bytes of a finished model, its names made short."""
    return bytes(compact(model).SerializeToString())


def convert_to_onnx(graph: GraphFunction, *, fake_quant: bool = False) -> Any:
    """The ONNX model, tensors named as in the contract: fp32, or with QDQ for a graph with FakeQuant.

    Raises ConversionError.
    """
    import tf2onnx

    tf = tensorflow()

    @tf.function(input_signature=[graph.signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return {_output_name(name, feeds): value for name, value in graph.function(feeds).items()}

    try:
        if fake_quant:
            model = convert_fake_quant(call, OPSET)
        else:
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
