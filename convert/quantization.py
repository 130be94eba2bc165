"""Post-training precisions of ONNX models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration import Feed
from convert.recipe import Precision

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


def quantize_onnx(model: Any, precision: Precision, feeds: Iterator[Feed], work: Path) -> bytes:
    """The serialized model at `precision`; `work` is a scratch folder."""
    if precision is Precision.FP32:
        return bytes(model.SerializeToString())
    if precision is Precision.FP16:
        return bytes(store_weights_fp16(model).SerializeToString())
    source, target = work / "fp32.onnx", work / "int8.onnx"
    _preprocess(model, source)
    if precision is Precision.INT8_DYNAMIC:
        _quantize_dynamic(source, target)
    else:
        _quantize_static(source, target, feeds)
    return target.read_bytes()


def store_weights_fp16(model: Any) -> Any:
    """Store large float initializers as float16 behind a Cast, so that the arithmetic stays fp32.

    CPUs have no fast fp16 kernels in ONNX Runtime; its constant folding undoes the Cast once, at load.
    """
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < FP16_MINIMUM_ELEMENTS:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}__fp16")
        casts.append(onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(half)
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


def quantize_embeddings(model: Any) -> Any:
    """Store float tables that only Gather reads as INT8, and dequantize the rows that were gathered.

    onnxruntime's own tool dequantizes the whole table at every call: 1 ms of a 0.1 ms step at 2540 words.
    Symmetric, one scale a table.
    """
    import onnx
    from onnx import numpy_helper

    tables = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    readers = [node for node in model.graph.node for name in node.input if name in tables]
    for node in [node for node in readers if node.op_type == "Gather"]:
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


def _preprocess(model: Any, path: Path) -> None:
    """Fold constants and batch norms and infer shapes, as onnxruntime asks before quantizing.

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


def _quantize_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=True)


def _quantize_static(source: Path, target: Path, feeds: Iterator[Feed]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feed | None:
            return next(feeds, None)

    quantize_static(
        str(source),
        str(target),
        Reader(),
        op_types_to_quantize=list(STATIC_OPERATORS),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,  # U8S8 is what VNNI multiplies; S8S8 QOperator was 18 times slower
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    # Afterwards, because the tool leaves out a MatMul whose input it finds dequantized already.
    onnx.save(quantize_embeddings(onnx.load(str(target))), str(target))
