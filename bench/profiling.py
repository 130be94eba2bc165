"""Where a model's time goes: the runtime's own profiler, its operators sorted by the numbers they compute in."""

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.litert_kernels import kernel_work, plain_name
from bench.litert_library import ProfilerError
from bench.litert_profiler import operator_times
from bench.profile_kinds import Work
from convert.coverage import GraphCoverage
from convert.ledger import Arithmetic, Ledger
from convert.ledger_kernels import kernel_of
from models.decoding import Tensors

__all__ = ["Hints", "Profile", "Work", "hints_of_coverage", "hints_of_ledger", "profile_of"]

WARM_UP = 3
RUNS = 30
TOP = 5
SEED = 2012


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares 0..1 of the time in operators; None, with a reason, where the runtime tells no times."""

    shares: Mapping[Work, float] | None
    top: tuple[tuple[str, float], ...]  # operators that take most, with their shares
    runs: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a ledger knows and a profiler does not tell: the arithmetic of parts whose operator has several."""

    named: Mapping[str, str] = field(default_factory=dict)  # part -> arithmetic
    blockwise: str = ""  # of MatMulNBits that are not named
    sole: str = ""  # of the whole graph; "" where there are several


def hints_of_ledger(ledger: Ledger) -> Hints:
    """From a file that was read just now."""
    return Hints({part.name: part.arithmetic for part in ledger.parts}, sole=_sole(ledger.multiply_adds))


def hints_of_coverage(coverage: GraphCoverage) -> Hints:
    """From an artifact's manifest, so that the packages that read models are not needed."""
    blockwise = next((kind for kind in (Arithmetic.INT4, Arithmetic.INT8) if kind in coverage.multiply_adds), "")
    return Hints(dict.fromkeys(coverage.floats, Arithmetic.FP32), blockwise, _sole(coverage.multiply_adds))


def _sole(multiply_adds: Mapping[Any, int]) -> str:
    return str(next(iter(multiply_adds))) if len(multiply_adds) == 1 else ""


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


def profile_of(path: Path, hints: Hints, *, threads: int, feeds: Tensors | None = None) -> Profile:
    """Time by kind of work over `RUNS` runs on `feeds`, after a warm-up.

    Without feeds every free axis is 1, and the numbers are random (zeros for integers). A model that can't be run so
    has no shares, and a reason. .onnx is profiled in this process, .tflite in one of its own.
    """
    if path.suffix == ".onnx":
        return _profile_onnx(path, hints, threads, feeds)
    if path.suffix == ".tflite":
        return _profile_tflite(path, hints, threads, feeds)
    return unknown("only ONNX Runtime and LiteRT have a profiler that is read here")


def unknown(reason: str) -> Profile:
    """No times, and why."""
    return Profile(None, (), 0, reason)


def _profile_tflite(path: Path, hints: Hints, threads: int, feeds: Tensors | None) -> Profile:
    try:
        times = operator_times(path, feeds or {}, threads=threads, warm_up=WARM_UP, runs=RUNS)
    except ProfilerError as error:
        return unknown(str(error))
    return _summarize((plain_name(name), kernel_work(name, hints.sole), spent) for name, spent in times)


def _profile_onnx(path: Path, hints: Hints, threads: int, feeds: Tensors | None) -> Profile:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return unknown("onnxruntime is not installed")
    try:
        events = _run(onnxruntime, path, threads, feeds)
    except Exception as error:  # onnxruntime's own exceptions share no public base class
        return unknown(f"onnxruntime can't profile it: {str(error).strip().splitlines()[0]}")
    return _summarize(_kernel_times(events, hints))


def _run(onnxruntime: Any, path: Path, threads: int, feeds: Tensors | None) -> list[dict[str, Any]]:
    """The profiler's events of the runs after the warm-up, under the options of `bench.runtimes.onnx_runtime`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # errors are exceptions
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as work:
        options.profile_file_prefix = str(Path(work) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        try:
            given = dict(_random_feeds(session)) if feeds is None else dict(feeds)
            for _ in range(WARM_UP + RUNS):
                session.run(None, given)
        finally:
            written = session.end_profiling()
        events: list[dict[str, Any]] = json.loads(Path(written).read_text(encoding="utf-8"))
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    return [event for event in events if event["cat"] == "Node" and event["ts"] >= starts[WARM_UP]]


def _random_feeds(session: Any) -> Iterator[tuple[str, Any]]:
    """Random numbers between 0 and 1 where a model takes fractions, zeros elsewhere: indices must stay in range."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    for value in session.get_inputs():
        kind = {"float": "float32", "double": "float64"}.get(name := value.type[7:-1], name)
        shape = [axis if isinstance(axis, int) and axis > 0 else 1 for axis in value.shape]
        yield value.name, (generator.random(shape) if "float" in kind else np.zeros(shape)).astype(kind)


def _kernel_times(events: list[dict[str, Any]], hints: Hints) -> Iterator[tuple[str, Work, float]]:
    """Each node's typical time, as often as it ran."""
    nodes: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time") and event["args"].get("op_name", "") not in CONTAINERS:
            nodes.setdefault(event["name"], []).append(event)
    for runs in nodes.values():
        operator = runs[0]["args"].get("op_name", "")
        yield operator, _work(runs[0], operator, hints), _typical([event["dur"] for event in runs]) * len(runs)


def _typical(times: list[float]) -> float:
    """The mean of the middle half: one run that the system held up for milliseconds would outweigh all others."""
    quarter = len(times) // 4
    return statistics.fmean(sorted(times)[quarter : len(times) - quarter])


def _summarize(times: Iterable[tuple[str, Work | None, float]]) -> Profile:
    """Shares of (operator, work, time); operators without work contain others."""
    work: Counter[Work] = Counter()
    operators: Counter[str] = Counter()
    for operator, kind, spent in times:
        if kind is not None:
            work[kind] += spent  # type: ignore[assignment]  # Counter also counts fractions
            operators[operator] += spent  # type: ignore[assignment]
    total = sum(work.values())
    if not total:
        return unknown("the profiler's clock shows no time: the model is too small")
    top = tuple((name, spent / total) for name, spent in operators.most_common(TOP))
    return Profile({kind: work[kind] / total for kind in Work if work[kind]}, top, RUNS)


def _work(event: dict[str, Any], operator: str, hints: Hints) -> Work:
    """By operator where that tells, else by the numbers that come out; whole numbers are shapes and indices."""
    if operator in MOVES:
        return Work.DATA_MOVEMENT
    kernel = kernel_of(operator, "")
    if kernel and kernel.integer:
        return Work(kernel.integer)
    name = event["name"].removesuffix("_kernel_time")
    known = hints.named.get(name, hints.blockwise)
    if operator == "MatMulNBits" and known:
        return Work(known)
    outputs = event["args"].get("output_type_shape") or [{}]
    return _NUMBERS.get(next(iter(outputs[0]), ""), Work.DATA_MOVEMENT)
