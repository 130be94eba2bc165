"""Post-training precisions of ONNX models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convert.calibration import Feed
from convert.recipe import Precision

# Smaller tensors (biases, shapes) stay in float: nothing is gained and constants of operators may need it.
FP16_MINIMUM_ELEMENTS = 256


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


def _preprocess(model: Any, path: Path) -> None:
    """Fold batch norms and infer shapes, as onnxruntime asks before quantizing."""
    import onnx
    from onnxruntime.quantization import quant_pre_process

    raw = path.with_suffix(".raw.onnx")
    onnx.save(model, str(raw))
    # Symbolic shape inference fails on a step with a symbolic batch; plain inference is enough here.
    quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)


def _quantize_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=True)


def _quantize_static(source: Path, target: Path, feeds: Iterator[Feed]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feed | None:
            return next(feeds, None)

    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,  # U8S8 is what VNNI multiplies; S8S8 QOperator was 18 times slower
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
