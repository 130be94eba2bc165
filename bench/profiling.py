"""Where a model's time goes: the runtime's own profiler, its operators sorted by the numbers they compute in."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from convert.ledger import Arithmetic, Ledger
from convert.ledger_kernels import kernel_of

WARM_UP = 3
RUNS = 30
TOP = 5
SEED = 2012


class Work(StrEnum):
    """What an operator spends its time on: an arithmetic, or moving and converting numbers."""

    INT8 = "int8"
    INT4 = "int4"
    INT16 = "int16"
    FP16 = "fp16"
    FP32 = "fp32"
    OTHER = "other"
    DATA_MOVEMENT = "data_movement"  # layouts, shapes, look-ups, and conversions between numbers


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares 0..1 of the time in operators; None, with a reason, where the runtime tells no times."""

    shares: Mapping[Work, float] | None
    top: tuple[tuple[str, float], ...]  # operators that take most, with their shares
    runs: int
    reason: str = ""


MOVES = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "Reshape", "Flatten"}
    | {"Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "ScatterND"}
    | {"Expand", "Tile", "Pad", "Identity", "Shape", "Size", "Constant", "ConstantOfShape", "Range"}
    | {"ReorderInput", "ReorderOutput", "DepthToSpace", "SpaceToDepth", "QLinearConcat", "GatherBlockQuantized"}
)
# Their time is that of the operators inside, which are listed too.
CONTAINERS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_NUMBERS = {
    "float": Work.FP32,
    "float16": Work.FP16,
    "int8": Work.INT8,
    "uint8": Work.INT8,
    "int16": Work.INT16,
    "uint16": Work.INT16,
    "double": Work.OTHER,
    "bfloat16": Work.OTHER,
}


def profile_of(path: Path, ledger: Ledger, *, threads: int) -> Profile:
    """Time by kind of work over `RUNS` runs at batch 1 on random numbers (zeros for integers), after a warm-up.

    Every free axis is 1. A model that can't be run so has no shares, and a reason.
    """
    if path.suffix != ".onnx":
        return _unknown("LiteRT's Python package brings no profiler")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return _unknown("onnxruntime is not installed")
    try:
        events = _run(onnxruntime, path, threads)
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        return _unknown(f"onnxruntime can't run it on random inputs: {str(error).strip().splitlines()[0]}")
    return _summarize(events, {part.name: part.arithmetic for part in ledger.parts})


def _unknown(reason: str) -> Profile:
    return Profile(None, (), 0, reason)


def _run(onnxruntime: Any, path: Path, threads: int) -> list[dict[str, Any]]:
    """The profiler's events of the runs after the warm-up."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are exceptions
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as work:
        options.profile_file_prefix = str(Path(work) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        try:
            feeds = dict(_feeds(session))
            for _ in range(WARM_UP + RUNS):
                session.run(None, feeds)
        finally:
            written = session.end_profiling()
        events: list[dict[str, Any]] = json.loads(Path(written).read_text(encoding="utf-8"))
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    return [event for event in events if event["cat"] == "Node" and event["ts"] >= starts[WARM_UP]]


def _feeds(session: Any) -> Iterator[tuple[str, Any]]:
    """Random numbers between 0 and 1 where a model takes fractions, zeros elsewhere: indices must stay in range."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    for value in session.get_inputs():
        kind = {"float": "float32", "double": "float64"}.get(name := value.type[7:-1], name)
        shape = [axis if isinstance(axis, int) and axis > 0 else 1 for axis in value.shape]
        yield value.name, (generator.random(shape) if "float" in kind else np.zeros(shape)).astype(kind)


def _summarize(events: list[dict[str, Any]], known: Mapping[str, Arithmetic]) -> Profile:
    work: Counter[Work] = Counter()
    operators: Counter[str] = Counter()
    for event in events:
        operator = event["args"].get("op_name", "")
        if event["name"].endswith("_kernel_time") and operator not in CONTAINERS:
            work[_work(event, operator, known)] += event["dur"]
            operators[operator] += event["dur"]
    total = sum(work.values())
    if not total:
        return _unknown("the profiler's clock shows no time: the model is too small")
    top = tuple((name, spent / total) for name, spent in operators.most_common(TOP))
    return Profile({kind: work[kind] / total for kind in Work if work[kind]}, top, RUNS)


def _work(event: dict[str, Any], operator: str, known: Mapping[str, Arithmetic]) -> Work:
    """By operator where that tells, else by the numbers that come out; whole numbers are shapes and indices."""
    if operator in MOVES:
        return Work.DATA_MOVEMENT
    kernel = kernel_of(operator, "")
    if kernel and kernel.integer:
        return Work(kernel.integer)
    name = event["name"].removesuffix("_kernel_time")
    if operator == "MatMulNBits" and name in known:
        return Work(known[name])
    outputs = event["args"].get("output_type_shape") or [{}]
    return _NUMBERS.get(next(iter(outputs[0]), ""), Work.DATA_MOVEMENT)
