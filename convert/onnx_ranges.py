"""Ranges of an ONNX model's activations, seen by onnxruntime while it runs feeds one at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration import Feed
from convert.ranges import Range, RangeRecorder


def record_ranges(path: Path, operators: Sequence[str], feeds: Iterator[Feed], work: Path) -> RangeRecorder:
    """What every float tensor that enters or leaves one of `operators` was seen to be; `work` is a scratch folder."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    names = _observed(model, operators)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    observed = work / "observed.onnx"
    onnx.save(model, str(observed))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(observed), options, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()}
    computed = [value.name for value in session.get_outputs() if value.name in names and "float" in value.type]
    recorder = RangeRecorder()
    for feed in feeds:
        run = dict(zip(computed, session.run(computed, {k: v for k, v in feed.items() if k in given}), strict=True))
        recorder.record(run | {k: v for k, v in feed.items() if k in names and v.dtype == np.float32})
    return recorder


def save_ranges(ranges: dict[str, Range], path: Path) -> None:
    """Write ranges as the calibration cache that onnxruntime's `quantize_static` reads."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData, save_tensors_data

    pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, pairs), path)


def _observed(model: Any, operators: Sequence[str]) -> set[str]:
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in operators]
    return {name for node in nodes for name in (*node.input, *node.output) if name and name not in constants}
