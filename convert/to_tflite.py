"""Exports to TFLite (LiteRT) with the post-training precisions of its converter, or with ranges that were trained."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from convert.calibration import Calibration
from convert.fake_quant import holds_fake_quant, require_static
from convert.graphs import GraphFunction
from convert.half_tflite import store_weights_fp16
from convert.int4_tflite import quantize_weights_int4
from convert.scheme import STATIC, Granularity, Integers, Layout, Precision, Scheme, WeightRange
from convert.tflite_quantization import quantize_calibrated
from convert.to_keras import SIGNATURE, save_signature
from models.errors import CaptionbenchError, ConversionError, UnsupportedError
from models.files import write_bytes_atomic
from models.keras import quiet_native_code, tensorflow

SPECIFICATION = "https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec"


def export_tflite(graph: GraphFunction, scheme: Scheme, calibration: Calibration, folder: Path) -> str:
    """Write `NAME.tflite` with float inputs and outputs under every scheme.

    A graph with FakeQuant takes its ranges from there, not from `calibration`. Raises ConversionError.
    """
    tf = tensorflow()
    _require_tflite(scheme)
    trained = holds_fake_quant(graph)
    if trained:
        require_static(graph, scheme)
    with tempfile.TemporaryDirectory() as saved:
        save_signature(graph, Path(saved))
        converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[SIGNATURE])
        if scheme.precision not in (Precision.FP32, Precision.FP16, Precision.INT4_WEIGHTS):
            _set_precision(converter, scheme)
        if scheme.precision in STATIC and not trained:
            _set_calibration(converter, graph, scheme, calibration)
        try:
            content = _convert(converter)
            if scheme.precision is Precision.INT4_WEIGHTS:
                content = quantize_weights_int4(content)
            if scheme.precision is Precision.FP16:
                content = store_weights_fp16(content)
        except CaptionbenchError:
            raise
        except Exception as error:  # the converter raises many types; all mean that it could not
            raise _explained(error, graph.name, scheme) from error
    write_bytes_atomic(folder / f"{graph.name}.tflite", content)
    return f"{graph.name}.tflite"


def _require_tflite(scheme: Scheme) -> None:
    """Raises UnsupportedError for what its specification leaves no choice of."""
    fixed = {
        "layout": (scheme.layout is not Layout.QDQ, "its integers are always those of integer operators"),
        "integers": (scheme.integers is not Integers.U8S8, "its activations are always signed"),
        "weight_range": (scheme.weight_range is not WeightRange.FULL, "its weights always take -127 to 127"),
    }
    for name, (differs, fact) in fixed.items():
        if differs:
            option = scheme.options[name]
            raise UnsupportedError(f"TFLite has no '{option}': {fact}", thread=SPECIFICATION)


def _explained(error: Exception, name: str, scheme: Scheme) -> ConversionError:
    """A converter's error in plain words, where it is known."""
    if scheme.precision is Precision.INT16X8 and "number of weight maxs and channels" in str(error):
        return UnsupportedError(
            f"TFLite's 16x8 quantizer can't scale a table per channel that '{name}' both looks up and multiplies "
            "by (tied weights)",
            thread="https://github.com/tensorflow/tensorflow/issues/43104",
        )
    return ConversionError(f"TFLite can't convert '{name}' to {scheme}: {error}")


def _convert(converter: Any) -> bytes:
    """The converted model, without the converter's chatter."""
    with warnings.catch_warnings(), quiet_native_code():
        # The converter calibrates with its own, deprecated interpreter; nothing here could use another.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        return bytes(converter.convert())


def _set_precision(converter: Any, scheme: Scheme) -> None:
    tf = tensorflow()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = scheme.granularity is Granularity.PER_TENSOR
    if scheme.precision is Precision.INT16X8:
        ops = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            ops.TFLITE_BUILTINS,  # for what has no 16-bit kernel
        ]


def _set_calibration(converter: Any, graph: GraphFunction, scheme: Scheme, calibration: Calibration) -> None:
    feeds = calibration.feeds(graph.name)
    converter.representative_dataset = lambda: ((SIGNATURE, feed) for feed in feeds)
    if scheme.precision is Precision.INT8_STATIC:
        # The converter's own last stage, which knows min-max only and reverts no layer.
        converter._quantize = lambda model, *_, **__: quantize_calibrated(model, scheme, calibration.feeds(graph.name))
