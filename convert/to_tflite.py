"""Exports to TFLite (LiteRT) with the post-training precisions of its converter, or with ranges that were trained."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.calibration import Calibration, Feed
from convert.fake_quant import holds_fake_quant, require_static
from convert.graphs import GraphFunction
from convert.recipe import Precision
from convert.to_keras import SIGNATURE, save_signature
from models.errors import ConversionError
from models.files import write_bytes_atomic
from models.keras import quiet_native_code, tensorflow


def export_tflite(graph: GraphFunction, precision: Precision, calibration: Calibration, folder: Path) -> str:
    """Write `NAME.tflite` with float inputs and outputs at every precision.

    A graph with FakeQuant takes its ranges from there, not from `calibration`. Raises ConversionError.
    """
    tf = tensorflow()
    trained = holds_fake_quant(graph)
    if trained:
        require_static(graph, precision)
    with tempfile.TemporaryDirectory() as saved:
        save_signature(graph, Path(saved))
        converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[SIGNATURE])
        calibrated = precision is Precision.INT8_STATIC and not trained
        _set_precision(converter, precision, calibration.feeds(graph.name) if calibrated else None)
        try:
            content = _convert(converter)
        except Exception as error:  # the converter raises many types; all mean that it could not
            raise ConversionError(f"TFLite can't convert '{graph.name}' to {precision}: {error}") from error
    write_bytes_atomic(folder / f"{graph.name}.tflite", content)
    return f"{graph.name}.tflite"


def _convert(converter: Any) -> bytes:
    """The converted model, without the converter's chatter."""
    with warnings.catch_warnings(), quiet_native_code():
        # The converter calibrates with its own, deprecated interpreter; nothing here could use another.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        return bytes(converter.convert())


def _set_precision(converter: Any, precision: Precision, feeds: Iterator[Feed] | None) -> None:
    """`feeds` are for the ranges of INT8_STATIC; None where the graph brings them, or needs none."""
    tf = tensorflow()
    if precision is Precision.FP32:
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision is Precision.FP16:
        converter.target_spec.supported_types = [tf.float16]
    if feeds is not None:
        converter.representative_dataset = lambda: ((SIGNATURE, feed) for feed in feeds)
