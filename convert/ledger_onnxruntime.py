"""Asks ONNX Runtime what it makes of a model: the graph that its optimizer leaves for the CPU, and its shapes."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.ledger_onnx_file import graphs
from models.errors import ArtifactError
from models.keras import quiet_native_code

# It rewrites convolutions for blocks of channels, which changes neither arithmetic nor count but hides shapes.
LAYOUT_ONLY = ("NchwcTransformer",)
_OPSET = re.compile(r"Opset (\d+) is under development.*official support for domain (\S+) is till opset (\d+)", re.S)
# What exporters call a batch that is not the first axis, such as that of an LSTM's sequence.
_BATCH = re.compile(r"(?i)batch|n$|bs?$")
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")


# Name -> type as onnxruntime writes it ("float", "uint8") and shape; None where unknown.
Tensors = Mapping[str, tuple[str, tuple[int, ...] | None]]


@dataclass(frozen=True)
class Optimized:
    """The optimized model without large weights, and of its main graph's tensors the type and known shape."""

    model: Any
    tensors: Tensors
    version: str


def optimize(path: Path, model: Any) -> Optimized | str:
    """What runs, or why that can't be known. `model` has batch 1 and no external data loaded.

    Raises ArtifactError when the file needs a newer ONNX Runtime.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return "onnxruntime is not installed"
    with tempfile.TemporaryDirectory() as work, quiet_native_code():
        try:
            return _optimize(onnxruntime, path, model, Path(work))
        except Exception as error:  # onnxruntime's own exceptions share no public base class
            _raise_if_newer(path, str(error))
            return f"onnxruntime {onnxruntime.__version__} can't load the file: {first_line(str(error))}"


def _optimize(onnxruntime: Any, path: Path, model: Any, work: Path) -> Optimized:
    import onnx

    options = _options(onnxruntime)
    options.optimized_model_filepath = str(work / "optimized.onnx")
    for key, value in {
        "model_external_initializers_file_folder_path": str(path.parent.resolve()),
        "optimized_model_external_initializers_file_name": "weights",
        "optimized_model_external_initializers_min_size_in_bytes": "4096",
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=list(LAYOUT_ONLY),
    )
    optimized = onnx.load(str(work / "optimized.onnx"), load_external_data=False)
    return Optimized(optimized, _tensors(onnxruntime, optimized, work), onnxruntime.__version__)


def _tensors(onnxruntime: Any, model: Any, work: Path) -> Tensors:
    """Types and shapes of a model's tensors. Its large weights lie in `work`."""
    import onnx

    onnx.save(with_all_outputs(model), str(work / "probe.onnx"))
    return _infer(onnxruntime, str(work / "probe.onnx"))


def infer_tensors(model: Any) -> Tensors:
    """Types and shapes of a small model's tensors, as ONNX Runtime infers them; none where it can't load it."""
    import onnxruntime

    with quiet_native_code():
        try:
            return _infer(onnxruntime, with_all_outputs(model).SerializeToString())
        except Exception:  # it has no public base class; then shapes stay unknown, and the ledger says so
            return {}


def with_all_outputs(model: Any) -> Any:
    """A copy that gives out every tensor: of outputs only does ONNX Runtime tell type and shape."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name and name not in known]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return probe


def _infer(onnxruntime: Any, source: str | bytes) -> Tensors:
    options = _options(onnxruntime)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return {
        value.name: (value.type.removeprefix("tensor(").removesuffix(")"), _shape(value.shape))
        for value in (*session.get_inputs(), *session.get_outputs())
    }


def _options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # errors are exceptions
    return options


def _shape(axes: Any) -> tuple[int, ...] | None:
    """None where an axis, or their number, is unknown; a scalar looks like the latter, and is no product here."""
    return tuple(axes) if axes and all(isinstance(axis, int) for axis in axes) else None


def with_batch_of_one(model: Any) -> Any:
    """A copy whose inputs have 1 as free first axis, and wherever else that axis' name stands."""
    copied = type(model)()
    copied.CopyFrom(model)
    shapes = [value.type.tensor_type.shape for value in copied.graph.input]
    names = {shape.dim[0].dim_param for shape in shapes if shape.dim} - {""}
    names |= {axis.dim_param for shape in shapes for axis in shape.dim if _BATCH.match(axis.dim_param)}
    for shape in shapes:
        for place, axis in enumerate(shape.dim):
            is_free = not axis.HasField("dim_value") or axis.dim_value < 1
            if is_free and (place == 0 or axis.dim_param in names):
                axis.dim_value = 1
    # What the file says of other tensors was inferred for a free batch.
    for graph in graphs(copied.graph):
        del graph.value_info[:]
    for value in copied.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return copied


def _raise_if_newer(path: Path, message: str) -> None:
    opset, ir = _OPSET.search(message), _IR.search(message)
    if opset:
        received, domain, newest = opset.groups()
        raise ArtifactError(
            f"{path} is too new for the installed onnxruntime: it has opset {received} of {domain}, the newest "
            f"supported is {newest.rstrip('.')}. Update onnxruntime, or export with that opset."
        )
    if ir:
        raise ArtifactError(
            f"{path} is too new for the installed onnxruntime: it has IR version {ir[1]}, the newest supported is "
            f"{ir[2]}. Update onnxruntime, or export with an older onnx."
        )


def first_line(message: str) -> str:
    """What a message of native code says first."""
    return message.strip().splitlines()[0] if message.strip() else "no message"
