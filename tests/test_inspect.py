"""`captionbench inspect` tells the truth on files that this project did not make, and on its own.

Every model is made with the plain tools of ONNX, ONNX Runtime and TensorFlow; figures can be worked out by hand.
"""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from bench.inspecting import Inspection, inspect_files
from bench.profiling import Work, hints_of_ledger, profile_of
from bench.resident import resident_bytes
from convert.artifact import Artifact
from convert.ledger import Arithmetic, Evidence, Ledger, LstmForm, Reason, ledger_of, shares
from convert.recipe import Format, Recipe
from convert.saturation import Saturates
from convert.scheme import Precision, Scheme
from models.errors import ArtifactError
from models.keras import keras, quiet_native_code, tensorflow
from reports.ledger_text import inspection_json, render_inspection

ROOT = Path(__file__).parent.parent
INT8, INT4, INT16, FP16, FP32 = (Arithmetic(name) for name in ("int8", "int4", "int16", "fp16", "fp32"))
# 16 filters of 3 x 3 over 3 channels of 8 x 8 pixels, then 16 x 10 dense.
STATIC = Scheme(Precision.INT8_STATIC)
CONV, DENSE = 16 * 36 * 27, 160
WEIGHTS = 16 * 27 + 160
Array = NDArray[Any]
generator = np.random.default_rng(2012)


def numbers(*shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


def save(path: Path, nodes: list[Any], constants: Mapping[str, Any], inputs: dict[str, list[Any]], **more: Any) -> Path:
    """An ONNX file of float inputs and one float output `y`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = more.get("kind", TensorProto.FLOAT)
    values = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(
        nodes,
        "graph",
        values,
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()] + more.get("tensors", []),
    )
    opsets = [helper.make_opsetid("", more.get("opset", 21)), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    nodes = [
        node("Conv", "x w b", "c", name="conv", kernel_shape=[3, 3]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f v", "y", name="dense"),
    ]
    constants = {"w": numbers(16, 3, 3, 3), "b": numbers(16), "v": numbers(16, 10)}
    return save(tmp_path / "cnn.onnx", nodes, constants, {"x": ["batch", 3, 8, 8]})


@pytest.fixture
def lstm(tmp_path: Path) -> Path:
    nodes = [
        node("LSTM", "x w r b", "all last", name="lstm", hidden_size=16),
        node("Squeeze", "last axis", "s"),
        node("MatMul", "s v", "y", name="dense"),
    ]
    constants = {
        "w": numbers(1, 64, 8),
        "r": numbers(1, 64, 16),
        "b": numbers(1, 128),
        "v": numbers(16, 32),
        "axis": np.array([0]),
    }
    return save(tmp_path / "lstm.onnx", nodes, constants, {"x": [5, "batch", 8]})


@pytest.fixture(autouse=True)
def quiet_tools() -> Iterator[None]:
    """The quantizers advise through warnings and logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def quantize_static(source: Path, shape: tuple[int, ...], **options: Any) -> Path:
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter([{"x": numbers(*shape)} for _ in range(4)])

        def get_next(self) -> dict[str, Array] | None:
            return next(self.feeds, None)

    target = source.with_suffix(".static.onnx")
    quantize(str(source), str(target), Reader(), **options)
    return target


def quantize_dynamic(source: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic as quantize

    target = source.with_suffix(".dynamic.onnx")
    quantize(str(source), str(target))
    return target


def reasons(ledger: Ledger) -> dict[str, Reason | None]:
    return {part.name: part.reason for part in ledger.parts}


def test_float_file_is_all_float_because_nobody_chose_otherwise(cnn: Path) -> None:
    ledger = ledger_of(cnn)
    assert ledger.weights == {FP32: WEIGHTS}
    assert ledger.weight_bytes == {FP32: 4 * WEIGHTS}
    assert ledger.multiply_adds == {FP32: CONV + DENSE}
    assert set(reasons(ledger).values()) == {Reason.CHOSEN}
    assert (ledger.evidence, ledger.lstm) == (Evidence.OPTIMIZED_GRAPH, LstmForm.NONE)


@pytest.mark.parametrize("quant_format", ["QDQ", "QOperator"])
def test_static_quantization_is_integer_once_the_runtime_has_fused_it(cnn: Path, quant_format: str) -> None:
    from onnxruntime.quantization import QuantFormat

    ledger = ledger_of(quantize_static(cnn, (1, 3, 8, 8), quant_format=QuantFormat[quant_format]))
    assert ledger.weights == {INT8: WEIGHTS}
    assert ledger.multiply_adds == {INT8: CONV + DENSE}
    assert [part.operator for part in ledger.parts] == ["QLinearConv", "QLinearMatMul"]
    assert (ledger.leftover_quantize, ledger.leftover_dequantize, ledger.leftover_pairs) == (1, 1, 0)


def test_layer_that_a_quantizer_left_out_is_float(cnn: Path) -> None:
    ledger = ledger_of(quantize_static(cnn, (1, 3, 8, 8), nodes_to_exclude=["dense"]))
    assert ledger.multiply_adds == {INT8: CONV, FP32: DENSE}
    assert shares(ledger.weights)[FP32] == pytest.approx(160 / WEIGHTS)
    assert reasons(ledger) == {"conv": None, "dense": Reason.LEFT_OUT}


def test_convolution_whose_output_is_not_quantized_stays_float(tmp_path: Path) -> None:
    constants = {"w": np.ones((16, 3, 3, 3), np.int8), "s": np.float32(0.1), "z": np.int8(0), "zx": np.uint8(0)}
    nodes = [
        node("QuantizeLinear", "x s zx", "q"),
        node("DequantizeLinear", "q s zx", "xq"),
        node("DequantizeLinear", "w s z", "wq"),
        node("Conv", "xq wq", "y", name="conv"),
    ]
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    ledger = ledger_of(save(tmp_path / "half.onnx", nodes, arrays, {"x": ["N", 3, 8, 8]}))
    assert ledger.multiply_adds == {FP32: CONV}
    assert ledger.weights == {INT8: 432}
    assert reasons(ledger) == {"conv": Reason.OUTPUT_NOT_QUANTIZED}
    assert ledger.leftover_pairs == 1


def test_weight_only_convolution_is_stored_in_integers_and_computed_in_float(tmp_path: Path) -> None:
    constants = {"w": np.ones((16, 3, 3, 3), np.int8), "s": np.array(0.1, np.float32)}
    nodes = [node("DequantizeLinear", "w s", "wq"), node("Conv", "x wq", "y", name="conv")]
    ledger = ledger_of(save(tmp_path / "stored.onnx", nodes, constants, {"x": ["N", 3, 8, 8]}))
    assert shares(ledger.weights) == {INT8: 1}
    assert shares(ledger.multiply_adds) == {FP32: 1}
    assert reasons(ledger) == {"conv": Reason.WEIGHT_ONLY}


def test_gemm_with_a_computed_bias_stays_float(tmp_path: Path) -> None:
    constants = {"w": np.ones((8, 16), np.int8), "s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "xq"),
        node("DequantizeLinear", "w s", "wq"),
        node("Gemm", "xq wq c", "g", name="gemm"),
        node("QuantizeLinear", "g s z", "gq"),
        node("DequantizeLinear", "gq s z", "y"),
    ]
    path = save(tmp_path / "gemm.onnx", nodes, constants, {"x": ["N", 8], "c": ["N", 16]})
    ledger = ledger_of(path)
    assert ledger.multiply_adds == {FP32: 8 * 16}
    assert reasons(ledger) == {"gemm": Reason.BIAS_NOT_CONSTANT}


def test_attention_product_is_told_from_a_layer(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "q", name="dense"), node("MatMul", "q k", "y", name="product")]
    path = save(tmp_path / "product.onnx", nodes, {"w": numbers(8, 8)}, {"x": ["N", 4, 8], "k": ["N", 8, 4]})
    ledger = ledger_of(quantize_dynamic(path))
    assert ledger.multiply_adds == {INT8: 4 * 8 * 8, FP32: 4 * 8 * 4}
    assert reasons(ledger)["product"] is Reason.BOTH_INPUTS_VARY


def test_lstm_operator_is_counted_in_float_and_dynamic_int8(lstm: Path) -> None:
    weights = 64 * 8 + 64 * 16
    plain, dynamic = ledger_of(lstm), ledger_of(quantize_dynamic(lstm))
    assert plain.lstm is dynamic.lstm is LstmForm.OPERATOR
    assert plain.weights == {FP32: weights + 512}
    assert plain.multiply_adds == {FP32: 5 * weights + 512}
    assert dynamic.weights == {INT8: weights + 512}
    assert dynamic.multiply_adds == {INT8: 5 * weights + 512}
    assert {part.operator for part in dynamic.parts} == {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}


def test_lstm_operator_in_static_quantization_has_no_integer_kernel(lstm: Path) -> None:
    ledger = ledger_of(quantize_static(lstm, (5, 1, 8)))
    assert reasons(ledger)["lstm"] is Reason.NO_INTEGER_KERNEL
    assert ledger.multiply_adds[FP32] == 5 * (64 * 8 + 64 * 16)


def test_padding_of_the_last_block_is_no_weight(tmp_path: Path) -> None:
    multiply = node("MatMulNBits", "x w s", "y", domain="com.microsoft", K=40, N=8, bits=4, block_size=32)
    constants = {"w": np.zeros((8, 2, 16), np.uint8), "s": numbers(16)}
    ledger = ledger_of(save(tmp_path / "padded.onnx", [multiply], constants, {"x": ["N", 40]}))
    assert ledger.weights == {INT4: 40 * 8}
    assert ledger.parts[0].weights == ledger.parts[0].multiply_adds == 40 * 8


@pytest.mark.parametrize(("level", "arithmetic"), [(0, FP32), (4, INT4)])
def test_four_bit_weights_are_integers_only_at_the_integer_accuracy_level(
    tmp_path: Path, level: int, arithmetic: Arithmetic
) -> None:
    packed = generator.integers(0, 256, (48, 2, 16), dtype=np.uint8)
    multiply = node(
        "MatMulNBits", "x w s", "y", name="dense", domain="com.microsoft",
        K=64, N=48, bits=4, block_size=32, accuracy_level=level,
    )  # fmt: skip
    path = save(tmp_path / "nbits.onnx", [multiply], {"w": packed, "s": numbers(96)}, {"x": ["N", 64]})
    ledger = ledger_of(path)
    assert ledger.weights == {INT4: 64 * 48}
    assert ledger.weight_bytes == {INT4: 64 * 48 // 2}
    assert ledger.multiply_adds == {arithmetic: 64 * 48}
    assert reasons(ledger)["dense"] is (Reason.WEIGHT_ONLY if level == 0 else None)


def test_blockwise_four_bit_table_is_a_look_up(tmp_path: Path) -> None:
    packed = generator.integers(0, 256, (32, 16), dtype=np.uint8)
    nodes = [
        node("Cast", "x", "ids", to=7),
        node("GatherBlockQuantized", "t ids s", "y", name="table", domain="com.microsoft", bits=4, block_size=32),
    ]
    ledger = ledger_of(save(tmp_path / "table.onnx", nodes, {"t": packed, "s": numbers(32, 1)}, {"x": ["N"]}))
    assert ledger.weights == {INT4: 32 * 32}
    assert ledger.multiply_adds == {}
    assert [(part.operator, part.arithmetic) for part in ledger.parts] == [("GatherBlockQuantized", INT4)]


def test_half_precision_is_storage_only_where_the_processor_widens_it(tmp_path: Path) -> None:
    from onnx import TensorProto

    half = numbers(16, 16).astype(np.float16)
    cast = [node("Cast", "h", "w", to=TensorProto.FLOAT), node("MatMul", "x w", "y", name="dense")]
    stored = ledger_of(save(tmp_path / "cast.onnx", cast, {"h": half}, {"x": ["N", 16]}))
    native = [node("MatMul", "x h", "y", name="dense")]
    whole = ledger_of(save(tmp_path / "half.onnx", native, {"h": half}, {"x": ["N", 16]}, kind=TensorProto.FLOAT16))
    for ledger in (stored, whole):
        assert shares(ledger.weight_bytes) == {FP16: 1}
        assert ledger.parts[0].stored is FP16
    assert stored.multiply_adds == {FP32: 256}
    assert reasons(stored) == {"dense": Reason.WEIGHT_ONLY}
    # ONNX Runtime has FP16 products on some processors; elsewhere it puts casts around them.
    assert whole.multiply_adds in ({FP32: 256}, {FP16: 256})


def loop_model(path: Path, body_nodes: list[Any]) -> Path:
    """Five passes over a state `h` of (1, 8) numbers; the weights `w` of (8, 8) lie outside the loop."""
    from onnx import TensorProto, helper

    values = {
        name: helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in [
            ("i", TensorProto.INT64, []),
            ("go", TensorProto.BOOL, []),
            ("h", TensorProto.FLOAT, [1, 8]),
            ("go_out", TensorProto.BOOL, []),
            ("h_out", TensorProto.FLOAT, [1, 8]),
        ]
    }
    nodes = [node("Identity", "go", "go_out"), *body_nodes]
    body = helper.make_graph(
        nodes, "body", [values[n] for n in ("i", "go", "h")], [values[n] for n in ("go_out", "h_out")]
    )
    constants = {"w": numbers(8, 8), "passes": np.array(5), "start": np.array(True)}
    return save(path, [node("Loop", "passes start x", "y", body=body)], constants, {"x": [1, 8]})


def test_loops_are_read_inside_and_counted_once(tmp_path: Path) -> None:
    ledger = ledger_of(loop_model(tmp_path / "loop.onnx", [node("MatMul", "h w", "h_out", name="inner")]))
    assert ledger.multiply_adds == {FP32: 64}
    assert [(part.name, part.weights) for part in ledger.parts] == [("inner", 64)]
    assert any("one pass" in note for note in ledger.notes)
    assert ledger.lstm is LstmForm.NONE


def test_cell_inside_a_loop_is_a_loop(tmp_path: Path) -> None:
    cell = [
        node("MatMul", "h w", "z"),
        node("Sigmoid", "z", "gate"),
        node("Tanh", "z", "new"),
        node("Mul", "gate h", "kept"),
        node("Mul", "gate new", "added"),
        node("Add", "kept added", "c"),
        node("Tanh", "c", "t"),
        node("Mul", "gate t", "h_out"),
    ]
    assert ledger_of(loop_model(tmp_path / "cell.onnx", cell)).lstm is LstmForm.LOOP


def test_branches_are_read_inside(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    output = [helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)]
    then = helper.make_graph([node("MatMul", "x w", "branch", name="inner")], "then", [], output)
    other = helper.make_graph([node("Relu", "x", "branch")], "else", [], output)
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Cast", "sum", "condition", to=TensorProto.BOOL),
        node("If", "condition", "y", then_branch=then, else_branch=other),
    ]
    ledger = ledger_of(save(tmp_path / "if.onnx", nodes, {"w": numbers(16, 16)}, {"x": ["N", 16]}))
    assert ledger.multiply_adds == {FP32: 256}
    assert any("branches" in note for note in ledger.notes)


def test_operator_that_the_runtime_lacks_is_listed_and_not_counted(tmp_path: Path) -> None:
    import onnx

    path = save(
        tmp_path / "foreign.onnx", [node("Magic", "x w", "y", domain="acme")], {"w": numbers(8, 8)}, {"x": [1, 8]}
    )
    model = onnx.load(str(path))
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(model, str(path))
    ledger = ledger_of(path)
    assert ledger.evidence is Evidence.FILE_PATTERN
    assert [(part.operator, part.weights) for part in ledger.uncounted] == [("Magic", 64)]
    assert any("can't load" in note for note in ledger.notes)


def test_free_axes_other_than_the_batch_are_reported_as_not_counted(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y", name="dense")]
    ledger = ledger_of(save(tmp_path / "free.onnx", nodes, {"w": numbers(8, 8)}, {"x": ["N", "length", 8]}))
    assert [part.name for part in ledger.uncounted] == ["dense"]
    assert ledger.multiply_adds == {}
    assert ledger.weights == {FP32: 64}


def test_without_a_runtime_the_pattern_is_believed_and_said_so(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quantize_static(cnn, (1, 3, 8, 8))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ledger = ledger_of(path)
    assert ledger.evidence is Evidence.FILE_PATTERN
    assert any("not installed" in note for note in ledger.notes)
    assert ledger.multiply_adds == {INT8: CONV + DENSE}


def keras_model() -> Any:
    """15,552 multiply-adds in 432 weights, 2,304 in 144, 2,560 in 2,560."""
    layers = keras().layers
    image = layers.Input((8, 8, 3), batch_size=1)
    grid = layers.DepthwiseConv2D(3)(layers.Conv2D(16, 3)(image))
    return keras().Model(image, layers.Dense(10)(layers.Flatten()(grid)))


def convert(model: Any, path: Path, **options: Any) -> Path:
    tf = tensorflow()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if options:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    for name in ("supported_types", "supported_ops"):
        if name in options:
            setattr(converter.target_spec, name, options[name])
    if "feeds" in options:
        converter.representative_dataset = options["feeds"]
    with quiet_native_code():
        path.write_bytes(converter.convert())
    return path


def images() -> Iterator[list[Array]]:
    for _ in range(3):
        yield [numbers(1, 8, 8, 3)]


def test_tflite_float_and_half_compute_in_float(tmp_path: Path) -> None:
    tf, model = tensorflow(), keras_model()
    plain = ledger_of(convert(model, tmp_path / "fp32.tflite"))
    half = ledger_of(convert(model, tmp_path / "fp16.tflite", supported_types=[tf.float16]))
    assert plain.weights == {FP32: 3136}
    assert plain.multiply_adds == half.multiply_adds == {FP32: 20416}
    assert set(reasons(plain).values()) == {Reason.CHOSEN}
    assert half.weights == {FP16: 3136}
    assert half.leftover_dequantize >= 3  # one in front of every weight
    assert set(reasons(half).values()) == {Reason.WEIGHT_ONLY}


def test_tflite_dynamic_range_leaves_small_weights_in_float(tmp_path: Path) -> None:
    ledger = ledger_of(convert(keras_model(), tmp_path / "dynamic.tflite", dynamic=True))
    assert ledger.weights == {INT8: 2560, FP32: 576}
    assert ledger.multiply_adds == {INT8: 2560, FP32: 17856}
    assert list(reasons(ledger).values()) == [Reason.SMALL, Reason.SMALL, None]


def test_tflite_full_int8_and_int16_activations(tmp_path: Path) -> None:
    tf, model = tensorflow(), keras_model()
    narrow = ledger_of(convert(model, tmp_path / "int8.tflite", feeds=images))
    wide_ops = [tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    wide = ledger_of(convert(model, tmp_path / "wide.tflite", feeds=images, supported_ops=wide_ops))
    assert narrow.weights == wide.weights == {INT8: 3136}
    assert narrow.multiply_adds == {INT8: 20416}
    assert wide.multiply_adds == {INT16: 20416}
    assert (narrow.leftover_quantize, narrow.leftover_dequantize) == (1, 1)


def test_tflite_fused_lstm_is_an_operator(tmp_path: Path) -> None:
    layers = keras().layers
    sequence = layers.Input((5, 8), batch_size=1)
    model = keras().Model(sequence, layers.Dense(40)(layers.LSTM(32)(sequence)))
    ledger = ledger_of(convert(model, tmp_path / "lstm.tflite"))
    weights = 4 * (8 * 32 + 32 * 32)
    assert ledger.lstm is LstmForm.OPERATOR
    assert ledger.weights == {FP32: weights + 32 * 40}
    assert ledger.multiply_adds == {FP32: 5 * weights + 32 * 40}


def test_tflite_while_is_a_loop(tmp_path: Path) -> None:
    tf = tensorflow()
    kernel = numbers(24, 64)

    @tf.function(input_signature=[tf.TensorSpec([1, 8], tf.float32)])  # type: ignore[untyped-decorator]
    def run(x: Any) -> Any:
        weights = tf.constant(kernel)

        def step(i: Any, h: Any, c: Any) -> Any:
            a, b, g, o = tf.split(tf.matmul(tf.concat([x, h], 1), weights), 4, 1)
            c = tf.sigmoid(b) * c + tf.sigmoid(a) * tf.tanh(g)
            return i + 1, tf.sigmoid(o) * tf.tanh(c), c

        return tf.while_loop(lambda i, h, c: i < 5, step, [0, tf.zeros([1, 16]), tf.zeros([1, 16])])[1]

    with quiet_native_code():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
        (tmp_path / "while.tflite").write_bytes(converter.convert())
    ledger = ledger_of(tmp_path / "while.tflite")
    assert ledger.lstm is LstmForm.LOOP
    assert ledger.multiply_adds == {FP32: 24 * 64}


Build = Callable[[Recipe], Artifact]


@pytest.mark.parametrize("format_", [Format.ONNX, Format.TFLITE])
def test_our_static_step_has_no_float_product(build: Build, format_: Format) -> None:
    artifact = build(Recipe("tiny-attention", format_, STATIC, STATIC))
    for inspection in inspect_files(artifact.path, threads=1):
        ledger = inspection.ledger
        assert shares(ledger.multiply_adds) == {INT8: 1}, reasons(ledger)
        assert shares(ledger.weights) == {INT8: 1}
        assert not ledger.uncounted
        is_step = Path(ledger.path).stem == "step"
        assert ledger.lstm is (LstmForm.EXPLICIT_STEP if is_step else LstmForm.NONE)


def test_profile_shares_sum_to_one(cnn: Path) -> None:
    path = quantize_static(cnn, (1, 3, 8, 8))
    profile = profile_of(path, hints_of_ledger(ledger_of(path)), threads=1)
    assert profile.shares is not None
    assert sum(profile.shares.values()) == pytest.approx(1)
    assert profile.shares[Work.INT8] > 0
    assert Work.FP32 not in profile.shares
    assert 0 < len(profile.top) <= 5
    assert "QLinearConv" in dict(profile.top)


def test_tflite_file_is_profiled_by_the_library_behind_the_package(tmp_path: Path) -> None:
    path = convert(keras_model(), tmp_path / "fp32.tflite")
    profile = profile_of(path, hints_of_ledger(ledger_of(path)), threads=1)
    # LiteRT's clock counts microseconds, and the model is tiny: there may be no time at all.
    assert profile.shares is None or set(profile.shares) <= {Work.FP32, Work.OTHER, Work.DATA_MOVEMENT}
    assert profile.shares or "no time" in profile.reason


def test_resident_memory_holds_the_weights(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "y", name="dense")]
    path = save(tmp_path / "large.onnx", nodes, {"w": numbers(2048, 2048)}, {"x": ["N", 2048]})
    assert resident_bytes(path, threads=1) > 4 * 2048 * 2048


def external(tmp_path: Path) -> tuple[Path, Any]:
    """A model whose weights of 1 kB lie beside it."""
    import onnx

    path = save(tmp_path / "model.onnx", [node("MatMul", "x w", "y")], {"w": numbers(16, 16)}, {"x": ["N", 16]})
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=64)
    return path, onnx.load(str(path), load_external_data=False)


def test_external_data_counts_as_part_of_the_file(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    ledger = ledger_of(path)
    assert ledger.sizes.file == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert ledger.sizes.weights == 1024
    assert ledger.evidence is Evidence.OPTIMIZED_GRAPH


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(2048))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    path, model = external(folder)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=f"refused to read .* at '{location}', outside the model's folder"):
        ledger_of(path)


def test_external_data_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    with pytest.raises(ArtifactError, match=r"weights\.bin is truncated: tensor 'w' ends at byte 1024"):
        ledger_of(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match=r"is incomplete: tensor 'w' needs 'weights\.bin'"):
        ledger_of(path)


def test_newer_opset_is_named_with_the_newest_supported(tmp_path: Path) -> None:
    path = save(tmp_path / "new.onnx", [node("Relu", "x", "y")], {}, {"x": ["N", 16]}, opset=99)
    with pytest.raises(ArtifactError, match=r"too new .* it has opset 99 of ai\.onnx, the newest supported is \d+\."):
        ledger_of(path)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_files_that_are_no_models_are_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    with pytest.raises(ArtifactError, match="no such file"):
        ledger_of(path)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="it has 0 bytes"):
        ledger_of(path)
    path.write_bytes(b"\x89PNG, certainly not a model" * 20)
    with pytest.raises(ArtifactError, match=r"can't read .* as a|is not an ONNX model"):
        ledger_of(path)


def test_truncated_files_are_told(cnn: Path, tmp_path: Path) -> None:
    whole = convert(keras_model(), tmp_path / "whole.tflite")
    for path in (cnn, whole):
        cut = tmp_path / f"cut{path.suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ArtifactError, match="can't read"):
            ledger_of(cut)


def test_other_suffix_and_other_folder_are_told(build: Build, tmp_path: Path) -> None:
    (tmp_path / "model.pb").write_bytes(b"model")
    with pytest.raises(ArtifactError, match=r"it ends in '\.pb'"):
        ledger_of(tmp_path / "model.pb")
    with pytest.raises(ArtifactError, match="only ONNX and TFLite"):
        list(inspect_files(build(Recipe("tiny-merge", Format.SAVED_MODEL)).path, threads=1))
    with pytest.raises(ArtifactError, match="not an artifact"):
        list(inspect_files(tmp_path, threads=1))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "captionbench.py"), "inspect", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, timeout=120, check=False
    )


def test_command_prints_the_table_and_goes_on_after_a_bad_file(cnn: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "absent.onnx", quantize_static(cnn, (1, 3, 8, 8)))
    assert done.returncode == 2
    assert done.stderr.startswith("error: can't inspect")
    assert "QLinearConv" in done.stdout
    assert "100 %" in done.stdout


def test_command_writes_json(cnn: Path) -> None:
    done = run(cnn, "--json", "--resident", "--threads", "1")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["shares"]["multiply_adds"] == {"fp32": 1.0}
    assert found["sizes"]["file"] == cnn.stat().st_size
    assert found["sizes"]["resident"] > 0
    assert found["lstm"] == "none"


def test_json_holds_reasons_and_no_profile_unless_asked(cnn: Path) -> None:
    (found,) = json.loads(inspection_json([Inspection(ledger_of(cnn))]))
    assert {part["reason"] for part in found["parts"]} == {"chosen"}
    assert found["profile"] is None


def test_overflow_on_other_cpus_is_told_from_the_weights(build: Callable[[Recipe], Artifact]) -> None:
    scheme = Scheme(Precision.INT8_STATIC)
    step = build(Recipe("tiny-merge", Format.ONNX, scheme, scheme)).graphs["step"]
    (inspection,) = inspect_files(step, threads=1, with_saturation=True)
    assert {layer.saturates for layer in inspection.saturation} >= {Saturates.POSSIBLE}
    console = Console(width=200, record=True)
    console.print(render_inspection(inspection))
    assert "could overflow int16 on x86 CPUs without VNNI" in console.export_text()
    (plain,) = inspect_files(step, threads=1)
    assert plain.saturation == ()
