"""The registry of formats: a new one costs one module, one `Format` member and one line here."""

from collections.abc import Callable
from pathlib import Path

from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.recipe import Format, Precision
from convert.to_keras import export_keras, export_saved_model
from convert.to_onnx import export_onnx
from convert.to_tflite import export_tflite

# Writes one graph at one precision into a folder; returns the name of what it wrote.
Exporter = Callable[[GraphFunction, Precision, Calibration, Path], str]

EXPORTERS: dict[Format, Exporter] = {
    Format.KERAS: export_keras,
    Format.SAVED_MODEL: export_saved_model,
    Format.TFLITE: export_tflite,
    Format.ONNX: export_onnx,
}
