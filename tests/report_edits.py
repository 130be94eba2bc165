"""The golden results' rows by name, and edits of them, for the tests of reports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.measurement import Latency, Phase
from bench.result import Result, Results, row_name

GOLDEN = Path(__file__).parent / "golden"
BASELINE = "flickr8k.saved_model.fp32 @ tensorflow"
INT8_TFLITE = "flickr8k.tflite.int8_static @ tflite"
INT8_ONNX = "flickr8k.onnx.int8_static @ onnxruntime"
FP32_TFLITE = "flickr8k.tflite.fp32 @ tflite"
FP32_ONNX = "flickr8k.onnx.fp32 @ onnxruntime"


def change(results: Results, name: str, edit: Callable[[Result], Result]) -> Results:
    """`results` with one row edited."""
    return replace(results, rows=tuple(edit(row) if row_name(row) == name else row for row in results.rows))


def keep(results: Results, *names: str) -> Results:
    """`results` with these rows only."""
    return replace(results, rows=tuple(row for row in results.rows if row_name(row) in names))


def with_quality(row: Result, **values: object) -> Result:
    assert row.quality is not None
    return replace(row, quality=replace(row.quality, **values))  # type: ignore[arg-type]


def with_caption(row: Result, seconds: float) -> Result:
    latency = Latency(seconds, (seconds * 0.99, seconds * 1.01), 1, (seconds,))
    return replace(row, latency_seconds={**row.latency_seconds, Phase.CAPTION: latency}, versus_baseline=None)


def with_bytes(row: Result, total: int) -> Result:
    assert row.size_bytes is not None
    return replace(row, size_bytes=replace(row.size_bytes, total=total))
