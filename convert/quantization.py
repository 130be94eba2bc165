"""Post-training precisions of ONNX models."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration import Feed
from convert.layers import nodes_of_layers
from convert.onnx_ranges import record_ranges, save_ranges
from convert.ranges import Range
from convert.scheme import Granularity, Integers, Layout, Precision, Scheme, WeightRange

# Smaller tensors (biases, shapes) stay in float: nothing is gained and constants of operators may need it.
FP16_MINIMUM_ELEMENTS = 256


# What is worth integers: the multiply-adds, and what stands between two convolutions, so that tensors stay INT8
# from one to the next. Gather is done by `quantize_embeddings`; LSTM gates stay in float.
STATIC_OPERATORS = (
    "Conv",
    "MatMul",
    "Gemm",
    "Add",
    "Clip",
    "Relu",
    "GlobalAveragePool",
    "AveragePool",
    "MaxPool",
    "Concat",
)


def quantize_onnx(model: Any, scheme: Scheme, feeds: Iterator[Feed], work: Path) -> Any:
    """The model under `scheme`, an integer one; `work` is a scratch folder."""
    import onnx

    source, target = work / "fp32.onnx", work / "int8.onnx"
    prepare_to_quantize(model, source)
    if scheme.precision is Precision.INT8_DYNAMIC:
        _quantize_dynamic(source, target, scheme)
    else:
        _quantize_static(source, target, scheme, feeds)
    return onnx.load(str(target))


def store_weights_fp16(model: Any) -> Any:
    """Store large weights as float16 behind a Cast, so that the arithmetic stays fp32.

    Depthwise kernels and vectors stay in fp32: `convert.half_tflite` says why.
    CPUs have no fast fp16 kernels in ONNX Runtime; its constant folding undoes the Cast once, at load.
    """
    import onnx
    from onnx import numpy_helper

    casts = []
    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < FP16_MINIMUM_ELEMENTS:
            continue
        if len(tensor.dims) < 2 or (tensor.name in kernels and tensor.dims[1] == 1):
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}__fp16")
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(half)
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


def quantize_embeddings(model: Any, excluded: Container[str] = ()) -> Any:
    """Store float tables that only Gather reads as INT8, and dequantize the rows that were gathered.

    onnxruntime's own tool dequantizes the whole table at every call: 1 ms of a 0.1 ms step at 2540 words.
    Symmetric, one scale a table. `excluded`: names of nodes to leave.
    """
    import onnx
    from onnx import numpy_helper

    tables = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    readers = [node for node in model.graph.node for name in node.input if name in tables]
    for node in [node for node in readers if node.op_type == "Gather" and node.name not in excluded]:
        tensor = tables[node.input[0]]
        if sum(tensor.name in reader.input for reader in readers) > 1:
            continue
        values = numpy_helper.to_array(tensor)
        scale = np.float32(max(float(np.abs(values).max()), 1e-12) / 127)
        name, rows = tensor.name, f"{node.output[0]}__int8"
        tensor.CopyFrom(numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}__int8"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(scale), f"{name}__scale"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}__zero"))
        dequantize = onnx.helper.make_node(
            "DequantizeLinear", [rows, f"{name}__scale", f"{name}__zero"], [node.output[0]], f"{node.name}__dequantize"
        )
        node.input[0], node.output[0] = tensor.name, rows
        model.graph.node.insert(list(model.graph.node).index(node) + 1, dequantize)
    return model


def prepare_to_quantize(model: Any, path: Path) -> None:
    """Write the model to `path`, constants and batch norms folded and shapes inferred, as onnxruntime asks for.

    Its own `quant_pre_process` also fuses the LSTM's MatMul and Add into a Gemm that has no integer kernel
    (its bias is no constant), which then dequantizes the weights at every call; so that fusion is left out here.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    raw = path.with_suffix(".raw.onnx")
    onnx.save(model, str(raw))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(str(raw), options, providers=providers, disabled_optimizers=["MatMulAddFusion"])
    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    add_pre_process_metadata(inferred)  # or the quantizer advises to do what was just done
    onnx.save(inferred, str(path))


def _quantize_dynamic(source: Path, target: Path, scheme: Scheme) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=scheme.granularity is Granularity.PER_CHANNEL,
        reduce_range=scheme.weight_range is WeightRange.REDUCED,
    )


def _quantize_static(source: Path, target: Path, scheme: Scheme, feeds: Iterator[Feed]) -> None:
    recorder = record_ranges(source, STATIC_OPERATORS, feeds, target.parent)
    quantize_with_ranges(source, target, scheme, recorder.ranges(scheme.calibrator))


def quantize_with_ranges(source: Path, target: Path, scheme: Scheme, ranges: dict[str, Range]) -> None:
    """Write the static INT8 model of a prepared float one to `target`. Raises ConfigError for an absent layer."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    cache = target.with_suffix(".ranges.json")
    save_ranges(ranges, cache)
    excluded = nodes_of_layers(onnx.load(str(source)), scheme.float_layers)
    quantize_static(
        str(source),
        str(target),
        calibration_cache_path=cache,
        op_types_to_quantize=list(STATIC_OPERATORS),
        nodes_to_exclude=excluded,
        quant_format=QuantFormat.QDQ if scheme.layout is Layout.QDQ else QuantFormat.QOperator,
        activation_type=QuantType.QUInt8 if scheme.integers is Integers.U8S8 else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=scheme.granularity is Granularity.PER_CHANNEL,
        reduce_range=scheme.weight_range is WeightRange.REDUCED,
    )
    # Afterwards, because the tool leaves out a MatMul whose input it finds dequantized already.
    onnx.save(quantize_embeddings(onnx.load(str(target)), excluded), str(target))
