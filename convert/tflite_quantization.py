"""Static INT8 of a float TFLite model with ranges of our own finding, and with layers that stay in float.

The converter's quantizer (MLIR) reads a range for each activation from the model's own `min` and `max` fields, where
its calibrator would have left them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from convert.calibration import Feed
from convert.layers import belongs_to
from convert.ranges import Range, RangeRecorder
from convert.scheme import Granularity, Scheme
from convert.to_keras import SIGNATURE
from models.errors import ConfigError
from models.keras import tensorflow

# `TensorType.FLOAT32` of TFLite's schema.
FLOAT32 = 0


def quantize_calibrated(content: bytes, scheme: Scheme, feeds: Iterator[Feed]) -> bytes:
    """The INT8 model of a float one. Raises ConfigError when a float layer has no operator in it."""
    return quantize_with_ranges(content, scheme, record_ranges(content, feeds).ranges(scheme.calibrator))


def quantize_with_ranges(content: bytes, scheme: Scheme, ranges: dict[str, Range]) -> bytes:
    """`quantize_calibrated` with ranges that were recorded before."""
    from tensorflow.lite.python.convert import mlir_quantize

    calibrated = _write_ranges(content, ranges)
    per_tensor = scheme.granularity is Granularity.PER_TENSOR
    return bytes(
        mlir_quantize(
            calibrated,
            disable_per_channel=per_tensor,
            disable_per_channel_for_dense_layers=per_tensor,
            denylisted_nodes=_operators_of(content, scheme.float_layers) or None,
        )
    )


def record_ranges(content: bytes, feeds: Iterator[Feed]) -> RangeRecorder:
    """What every float activation was seen to be, by tensor name."""
    tf = tensorflow()
    interpreter = tf.lite.Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        # Delegates fuse operators, and what is between them is never seen.
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner = interpreter.get_signature_runner(SIGNATURE)
    activations = _activations(content)
    recorder = RangeRecorder()
    for feed in feeds:
        runner(**feed)
        recorder.record({name: interpreter.get_tensor(index) for name, index in activations.items()})
    return recorder


def _activations(content: bytes) -> dict[str, int]:
    """Float tensors that the graph takes or computes, by name; what kernels keep for themselves holds anything."""
    graph = _unpacked(content).subgraphs[0]
    computed = {*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)}
    return {graph.tensors[i].name.decode(): int(i) for i in sorted(computed) if graph.tensors[i].type == FLOAT32}


def _write_ranges(content: bytes, ranges: dict[str, Range]) -> bytes:
    """The model with `min` and `max` of these tensors."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = _unpacked(content)
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        if name in ranges:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.min, tensor.quantization.max = ([value] for value in ranges[name])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _operators_of(content: bytes, layers: Sequence[str]) -> list[str]:
    """What the quantizer calls the operators of these layers: the names of the tensors that they write."""
    model = _unpacked(content)
    tensors, constants = model.subgraphs[0].tensors, _constants(content)
    # An operator that writes an output of the graph bears the output's name, so its constants tell the layer too.
    operators = [
        (
            tensors[operator.outputs[0]].name.decode(),
            {name for i in operator.inputs if i >= 0 and (name := tensors[i].name.decode()) in constants},
        )
        for operator in model.subgraphs[0].operators
    ]
    chosen: list[str] = []
    for layer in layers:
        found = [name for name, read in operators if any(belongs_to(path, [layer]) for path in (name, *read))]
        if not found:
            raise ConfigError(f"no operator of the TFLite graph comes from the layer '{layer}'.")
        chosen += found
    return chosen


def _constants(content: bytes) -> set[str]:
    model = _unpacked(content)
    return {
        tensor.name.decode() for tensor in model.subgraphs[0].tensors if model.buffers[tensor.buffer].data is not None
    }


def _unpacked(content: bytes) -> Any:
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(content))
