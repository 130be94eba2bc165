"""The golden results' rows by name, and edits of them, for the tests of reports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.measurement import Latency, Phase
from bench.parity.record import Cause
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


def with_gallery(results: Results, rows: int, images: int, *, differing: int = 3) -> Results:
    """As many rows and captioned images as asked for; every third image has `differing` other captions."""
    names = [f"{n:04}.jpg" for n in range(images)]
    base = next(row for row in results.rows if row_name(row) == results.baseline)
    alike = [row for row in results.rows if row.quality and row is not base] or [base]
    copies = [replace(alike[n % len(alike)], recipe=f"flickr8k.tflite.variant{n}") for n in range(rows - 1)]
    captioned = [
        _with_captions(row, names, 0 if row is base else n, differing) for n, row in enumerate([base, *copies])
    ]
    return replace(results, rows=tuple(captioned), examples=())


def _with_captions(row: Result, names: list[str], number: int, differing: int) -> Result:
    said = {}
    for index, name in enumerate(names):
        other = number % (differing + 1) if index % 3 == 0 else 0
        words = f"a dog number {index} runs through the tall green grass near some people"
        said[name] = words.replace("dog", f"cat{other}") if other else words
    causes = {name: list(Cause)[i // 3 % 3] for i, name in enumerate(names) if "cat" in said[name]}
    parity = replace(row.parity, causes=causes) if row.parity else None
    return replace(row, captions=said, parity=parity)
