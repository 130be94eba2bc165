"""Many static INT8 forms of one graph, cheaply: it is converted and calibrated once, and only quantized anew.

A search over layers asks for one form a layer. What it settles on is built whole by `convert.build`.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convert import onnx_ranges, quantization, tflite_quantization
from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.layers import quantizable_layers
from convert.ranges import Range, RangeRecorder
from convert.recipe import Format
from convert.scheme import Scheme
from convert.to_onnx import convert_to_onnx, serialize
from convert.to_tflite import export_tflite
from models.errors import CaptionbenchError, ConversionError
from models.files import content_key
from models.keras import quiet_native_code


@dataclass(frozen=True)
class Variants:
    """The forms of one graph; their files lie in a scratch folder that the caller removes."""

    format: Format
    graph: GraphFunction
    calibration: Calibration
    work: Path

    @functools.cached_property
    def layers(self) -> list[str]:
        """Names of the layers that a scheme can leave in float, in the order of the graph."""
        return quantizable_layers(self.graph.model)

    def quantize(self, scheme: Scheme) -> Path:
        """The file of the graph under a static scheme. Raises ConversionError when the quantizer fails."""
        target = self.work / f"{self.graph.name}-{content_key(str(scheme))}{self._float.suffix}"
        if not target.is_file():
            ranges = self._recorder.ranges(scheme.calibrator)
            try:
                _QUANTIZERS[self.format](self._float, target, scheme, ranges)
            except CaptionbenchError:
                raise
            except Exception as error:  # the tools raise many types; all mean that they could not
                raise ConversionError(f"can't quantize '{self.graph.name}' to {scheme}: {error}") from error
        return target

    @functools.cached_property
    def _float(self) -> Path:
        """The float graph, ready to be quantized."""
        if self.format is Format.TFLITE:
            return self.work / export_tflite(self.graph, Scheme(), Calibration(), self.work)
        path = self.work / f"{self.graph.name}.onnx"
        quantization.prepare_to_quantize(convert_to_onnx(self.graph), path)
        return path

    @functools.cached_property
    def _recorder(self) -> RangeRecorder:
        feeds = self.calibration.feeds(self.graph.name)
        if self.format is Format.ONNX:
            return onnx_ranges.record_ranges(self._float, quantization.STATIC_OPERATORS, feeds, self.work)
        with warnings.catch_warnings(), quiet_native_code():
            # TensorFlow's interpreter is deprecated, but no other keeps every tensor under the quantizer's name.
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
            return tflite_quantization.record_ranges(self._float.read_bytes(), feeds)


def _quantize_onnx(source: Path, target: Path, scheme: Scheme, ranges: dict[str, Range]) -> None:
    import onnx

    quantization.quantize_with_ranges(source, target, scheme, ranges)
    target.write_bytes(serialize(onnx.load(str(target))))  # as short as an artifact's


def _quantize_tflite(source: Path, target: Path, scheme: Scheme, ranges: dict[str, Range]) -> None:
    with quiet_native_code():
        target.write_bytes(tflite_quantization.quantize_with_ranges(source.read_bytes(), scheme, ranges))


_QUANTIZERS: dict[Format, Callable[[Path, Path, Scheme, dict[str, Range]], None]] = {
    Format.ONNX: _quantize_onnx,
    Format.TFLITE: _quantize_tflite,
}
# Formats whose layers can be told apart after conversion, so that some of them can stay in float.
LAYERED_FORMATS = tuple(_QUANTIZERS)
