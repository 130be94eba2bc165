"""The registry of formats: a new one costs one module, one `Format` member and one line here."""

from collections.abc import Callable
from pathlib import Path

from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.recipe import Format
from convert.scheme import Scheme
from convert.to_keras import export_keras, export_saved_model
from convert.to_onnx import export_onnx
from convert.to_tflite import export_tflite

# Writes one graph under one scheme into a folder; returns the name of what it wrote.
Exporter = Callable[[GraphFunction, Scheme, Calibration, Path], str]

# What writes each format; an artifact's manifest names it.
ROUTES: dict[Format, str] = {
    Format.KERAS: "tf_keras Model.save",
    Format.SAVED_MODEL: "tf.saved_model.save",
    Format.TFLITE: "tf.lite.TFLiteConverter from a SavedModel",
    Format.ONNX: "tf2onnx from a tf.function",
}

EXPORTERS: dict[Format, Exporter] = {
    Format.KERAS: export_keras,
    Format.SAVED_MODEL: export_saved_model,
    Format.TFLITE: export_tflite,
    Format.ONNX: export_onnx,
}
