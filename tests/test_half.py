"""Half precision: what is stored in it, what is not, and that the arithmetic stays fp32 on numbers rounded once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.half_tflite import store_weights_fp16
from convert.quantization import store_weights_fp16 as store_onnx_weights_fp16
from convert.tflite_file import schema, stored_bytes, unpack
from models.keras import keras

WIDE = 2.0**-11  # what rounding to half precision may cost a number


@pytest.fixture(scope="module")
def model() -> Any:
    """A convolution, a depthwise one, and a dense layer that is called twice."""
    layers = keras().layers
    image = layers.Input((8, 8, 3), batch_size=1, name="image")
    dense = layers.Dense(32, name="dense")
    grid = layers.DepthwiseConv2D(3, name="depthwise")(
        layers.Conv2D(32, 3, name="conv", bias_initializer="ones")(image)
    )
    return keras().Model(image, dense(dense(layers.Flatten()(layers.GlobalAveragePooling2D()(grid)))))


@pytest.fixture(scope="module")
def tflite(model: Any) -> bytes:
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def constants(content: bytes) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the numbers that a file stores, by type."""
    found = unpack(content)
    names = {value: name for name, value in vars(schema().TensorType).items() if isinstance(value, int)}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for tensor in found.subgraphs[0].tensors:
        if stored_bytes(found, tensor):
            shapes.setdefault(names[tensor.type], []).append(tuple(tensor.shape))
    return shapes


def test_tflite_kernels_are_halved_and_depthwise_ones_and_offsets_are_not(tflite: bytes) -> None:
    half = constants(store_weights_fp16(tflite))
    assert sorted(half["FLOAT16"]) == [(32, 3, 3, 3), (32, 32)]
    assert (1, 3, 3, 32) in half["FLOAT32"]
    assert all(len(shape) < 2 or shape[0] == 1 for shape in half["FLOAT32"])


def test_tflite_outputs_are_those_of_rounded_weights(model: Any, tflite: bytes, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    def run(content: bytes) -> Any:
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    image = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    half = store_weights_fp16(tflite)
    assert len(half) < 0.75 * len(tflite)
    exact, rounded = run(tflite), run(half)
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=20 * WIDE * np.abs(exact).max())


def test_onnx_kernels_are_halved_and_depthwise_ones_and_offsets_are_not() -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "conv": rng.standard_normal((32, 3, 3, 3)),
        "depthwise": rng.standard_normal((32, 1, 3, 3)),
        "offset": rng.standard_normal(512),
        "dense": rng.standard_normal((32, 32)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"]),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], group=32),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "dense"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    half = store_onnx_weights_fp16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert stored == {
        "conv__fp16": TensorProto.FLOAT16,
        "depthwise": TensorProto.FLOAT,
        "offset": TensorProto.FLOAT,
        "dense__fp16": TensorProto.FLOAT16,
    }
    onnx.checker.check_model(half)
