"""Runs cut graphs: `python -m bench.parity.boundary_worker JOB`, in their runtime's environment, without TensorFlow.

The job names files, all run on the same feeds. Feeds and outputs are .npz files; a feed's name is its tensor and the
number of the case behind an @. Integer tensors of TFLite go in and come out as what they stand for.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.result_file import from_json
from models.files import write_atomic, write_text_atomic

Array = NDArray[Any]


@dataclass(frozen=True)
class PartsJob:
    """`files`: graphs to run; `outputs`: where each one's output goes; `cases`: how many feeds of each input."""

    files: tuple[str, ...]
    outputs: tuple[str, ...]
    feeds: str
    cases: int
    threads: int

    def write(self, path: Path) -> Path:
        """Write as JSON; returns `path`."""
        write_text_atomic(path, json.dumps(asdict(self)))
        return path


def run_part(path: Path, feeds: Mapping[str, Array], threads: int) -> Array:
    """The one output of a cut graph, as float32. Feeds that it does not take are left aside."""
    return (_run_onnx if path.suffix == ".onnx" else _run_tflite)(path, feeds, threads).astype(np.float32)


def _run_onnx(path: Path, feeds: Mapping[str, Array], threads: int) -> Array:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {value.name: feeds[value.name] for value in session.get_inputs()}
    output: Array = session.run(None, given)[0]
    return output


def _run_tflite(path: Path, feeds: Mapping[str, Array], threads: int) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    for detail in interpreter.get_input_details():
        value = feeds[str(detail["index"])]
        if tuple(detail["shape"]) != value.shape:
            interpreter.resize_tensor_input(detail["index"], value.shape)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], _quantized(feeds[str(detail["index"])], detail))
    interpreter.invoke()
    detail = interpreter.get_output_details()[0]
    return _dequantized(interpreter.get_tensor(detail["index"]), detail)


def _quantized(value: Array, detail: Mapping[str, Any]) -> Array:
    """In the tensor's own type: scale and zero point of the TFLite quantization specification."""
    kind, (scale, zero) = detail["dtype"], detail["quantization"]
    if not scale or not np.issubdtype(kind, np.integer) or np.issubdtype(value.dtype, np.integer):
        return value.astype(kind)
    limits = np.iinfo(kind)
    stored: Array = np.clip(np.round(value / scale) + zero, limits.min, limits.max).astype(kind)
    return stored


def _dequantized(value: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    number: Array = (value.astype(np.float32) - zero) * scale if scale else value
    return number


def main(arguments: list[str]) -> int:
    """Run one job."""
    job: PartsJob = from_json(PartsJob, json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    with np.load(job.feeds) as file:
        stored = {name: file[name] for name in file.files}
    cases = [
        {name.rsplit("@", 1)[0]: value for name, value in stored.items() if name.endswith(f"@{case}")}
        for case in range(job.cases)
    ]
    for path, out in zip(job.files, job.outputs, strict=True):
        values = {str(i): run_part(Path(path), feeds, job.threads) for i, feeds in enumerate(cases)}
        write_atomic(Path(out), lambda file, values=values: np.savez(file, **values))  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
