"""Saturation of INT8 products is found where a simulation of the instruction finds it, and told of real files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert.calibration import Calibration
from convert.graphs import deployable_graphs
from convert.recipe import Graph
from convert.saturation import (
    HIGHEST,
    LOWEST,
    LayerSaturation,
    Saturates,
    overflow_risk,
    saturation_errors,
    saturation_of,
    worst_pair,
    worst_pair_any_order,
)
from convert.saturation_layers import Kernel
from convert.scheme import Precision, Scheme
from convert.to_onnx import export_onnx
from models.captioner import Captioner
from models.errors import ArtifactError
from reports.saturation_text import render_saturation

Array = NDArray[Any]


def multiply_with_pairs(activations: Array, weights: Array) -> tuple[Array, Array]:
    """(sums, saturated pairs) of unsigned times signed bytes, pair by pair as VPMADDUBSW and VPMADDWD do."""
    sums = np.zeros((len(activations), len(weights)), np.int64)
    saturated = np.zeros_like(sums)
    for row, numbers in enumerate(activations.tolist()):
        for output, factors in enumerate(weights.tolist()):
            for start in range(0, len(numbers), 2):
                pair = sum(a * w for a, w in zip(numbers[start : start + 2], factors[start : start + 2], strict=True))
                sums[row, output] += min(max(pair, LOWEST), HIGHEST)
                saturated[row, output] += not LOWEST <= pair <= HIGHEST
    return sums, saturated


def large_bytes(rows: int, outputs: int, inputs: int, seed: int) -> tuple[Array, Array]:
    """Activations and weights that often saturate: many are at the ends of their types."""
    rng = np.random.default_rng(seed)
    activations = rng.choice([0, 100, 200, 254, 255], (rows, inputs)).astype(np.uint8)
    weights = rng.choice([-128, -127, -90, 0, 1, 64, 65, 127], (outputs, inputs)).astype(np.int8)
    return activations, weights


sizes = st.integers(1, 7)
products = st.builds(large_bytes, sizes, sizes, sizes, st.integers(0, 2**32 - 1))


@given(products)
def test_errors_are_those_of_the_instruction(given: tuple[Array, Array]) -> None:
    activations, weights = given
    errors, saturated = saturation_errors(activations, weights)
    simulated, pairs = multiply_with_pairs(activations, weights)
    exact = activations.astype(np.int64) @ weights.astype(np.int64).T
    np.testing.assert_array_equal(exact + errors, simulated)
    np.testing.assert_array_equal(saturated, pairs)


@given(products)
def test_no_activation_sums_to_more_than_the_worst_pair(given: tuple[Array, Array]) -> None:
    activations, weights = given
    even = np.pad(weights.astype(int), ((0, 0), (0, weights.shape[1] % 2)))
    pairs = even.reshape(len(weights), -1, 2)
    by_hand = max(abs(255 * (a * x + b * y)) for x, y in pairs.reshape(-1, 2) for a in (0, 1) for b in (0, 1))
    assert worst_pair(weights) == by_hand
    assert worst_pair(weights) <= worst_pair_any_order(weights)
    for order in (np.random.default_rng(seed).permutation(weights.shape[1]) for seed in range(5)):
        assert worst_pair(weights[:, order]) <= worst_pair_any_order(weights)
    if worst_pair(weights) <= HIGHEST:
        assert not saturation_errors(activations, weights)[1].any()


def dense_file(path: Path, weights: Array, *, form: str, zero: int = 0) -> Path:
    """x (batch, inputs) -> y, with 8-bit weights (inputs, outputs) and activations of steps of 1/255 from 0 to 1."""
    from onnx import TensorProto, helper, numpy_helper, save

    is_signed = form.endswith("s8s8")
    kind, offset = (np.int8, -128) if is_signed else (np.uint8, 0)
    constants = {
        "x_scale": np.float32(1 / 255),
        "x_zero": np.array(offset + zero, kind),
        "w": weights,
        "w_scale": np.full(weights.shape[1], 0.5, np.float32),
        "w_zero": np.zeros(weights.shape[1], weights.dtype),
        "y_scale": np.float32(10),
        "y_zero": np.array(offset, kind),
    }
    quantize = helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"])
    if form == "dynamic":
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["x_q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["x_q", "w_quantized", "zero", "w_zero_point"], ["sum"], "dense"),
            helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
        ]
        constants["w_quantized"], constants["w_zero_point"] = constants.pop("w"), constants.pop("w_zero")
    elif form.startswith("qdq"):
        nodes = [
            quantize,
            helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_f"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_f"], axis=1),
            helper.make_node("MatMul", ["x_f", "w_f"], ["y"], "dense"),
        ]
    else:
        scales = ["x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
        nodes = [
            quantize,
            helper.make_node("QLinearMatMul", ["x_q", *scales], ["y_q"], "dense"),
            helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["y"]),
        ]
    read = {name for node in nodes for name in node.input} | {"w_scale"}
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


def one_layer(path: Path, feeds: Iterable[dict[str, Array]]) -> LayerSaturation:
    (layer,) = saturation_of(path, feeds)
    return layer


ONES = [{"x": np.ones((2, 6), np.float32)}]
FORMS = ["qdq", "qdq_s8s8", "qlinear", "dynamic"]


@pytest.mark.parametrize("form", FORMS)
def test_full_weights_saturate(form: str, tmp_path: Path) -> None:
    layer = one_layer(dense_file(tmp_path / "m.onnx", np.full((6, 4), 127, np.int8), form=form), ONES)
    assert (layer.name, layer.kernel, layer.saturates) == ("dense", Kernel.PAIRS, Saturates.OBSERVED)
    assert layer.worst_pair == layer.worst_pair_any_order == 255 * 254
    assert (layer.share_pairs, layer.share_outputs) == (1, 1)
    # Three pairs lose 255 * 254 - 32767 each, in steps of 1/255 times 1/2.
    assert layer.max_error == pytest.approx(3 * (255 * 254 - 32767) / 255 / 2, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_seven_bits_never_saturate(form: str, tmp_path: Path) -> None:
    layer = one_layer(dense_file(tmp_path / "m.onnx", np.full((6, 4), 64, np.int8), form=form), ONES)
    assert (layer.saturates, layer.worst_pair) == (Saturates.NEVER, 255 * 128)
    assert layer.share_pairs is layer.max_error is None
    assert overflow_risk([layer]).worst_layer is None


@pytest.mark.parametrize(("form", "dtype"), [("qlinear_s8s8", np.int8), ("qdq", np.uint8), ("qlinear", np.uint8)])
def test_kernels_that_widen_never_saturate(form: str, dtype: Any, tmp_path: Path) -> None:
    layer = one_layer(dense_file(tmp_path / "m.onnx", np.full((6, 4), 127, dtype), form=form), ONES)
    assert (layer.kernel, layer.saturates) == (Kernel.WIDE, Saturates.NEVER)


def test_large_weights_apart_are_possible_and_small_activations_fit(tmp_path: Path) -> None:
    weights = np.zeros((6, 1), np.int8)
    weights[[0, 2]] = 127  # of different pairs: only another order could add them
    layer = one_layer(dense_file(tmp_path / "apart.onnx", weights, form="qdq"), ONES)
    assert (layer.saturates, layer.worst_pair, layer.worst_pair_any_order) == (
        Saturates.POSSIBLE,
        255 * 127,
        255 * 254,
    )
    assert (layer.share_pairs, layer.max_error) == (0, 0)

    path = dense_file(tmp_path / "full.onnx", np.full((6, 4), 127, np.int8), form="qdq")
    small = one_layer(path, [{"x": np.full((2, 6), 0.5, np.float32)}])
    assert (small.saturates, small.share_outputs) == (Saturates.POSSIBLE, 0)
    assert one_layer(path, []).share_outputs is None
    assert one_layer(path, []).saturates is Saturates.POSSIBLE


def test_memory_does_not_depend_on_how_many_feeds_there_are(tmp_path: Path) -> None:
    path = dense_file(tmp_path / "m.onnx", np.full((6, 4), 127, np.int8), form="qdq")
    few = one_layer(path, ONES * 2)
    assert one_layer(path, iter(ONES * 50)) == few  # an iterator, read once
    wide = [{"x": np.ones((5000, 6), np.float32)}]
    assert one_layer(path, wide) == few


def conv_file(path: Path, weights: Array, *, groups: int, pads: list[int] | None, strides: list[int]) -> Path:
    """x (batch, channels, 5, 6) -> QLinearConv with activations of zero point 7 and steps of 1."""
    from onnx import TensorProto, helper, numpy_helper, save

    constants = {
        "one": np.float32(1),
        "x_zero": np.uint8(7),
        "w": weights,
        "w_scale": np.ones(len(weights), np.float32),
        "w_zero": np.zeros(len(weights), np.int8),
        "y_scale": np.float32(500),
    }
    inputs = ["x_q", "one", "x_zero", "w", "w_scale", "w_zero", "y_scale", "x_zero"]
    padding = {"auto_pad": "SAME_UPPER"} if pads is None else {"pads": pads}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "x_zero"], ["x_q"]),
        helper.make_node("QLinearConv", inputs, ["y"], "conv", group=groups, strides=strides, **padding),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weights.shape[1] * groups, 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


def simulated_conv(image: Array, weights: Array, groups: int, pads: list[int], strides: list[int]) -> tuple[int, int]:
    """(saturated pairs, largest error) of a convolution, one window after the other."""
    padded = np.pad(image, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=7)
    height, width = weights.shape[2:]
    kernels = weights.transpose(0, 2, 3, 1).reshape(groups, len(weights) // groups, -1)
    saturated = largest = 0
    for y in range(0, padded.shape[1] - height + 1, strides[0]):
        for x in range(0, padded.shape[2] - width + 1, strides[1]):
            window = padded[:, y : y + height, x : x + width]
            for group, channels in enumerate(np.split(window, groups)):
                row = channels.transpose(1, 2, 0).reshape(1, -1)
                sums, pairs = multiply_with_pairs(row, kernels[group])
                saturated += int(pairs.sum())
                exact = row.astype(np.int64) @ kernels[group].astype(np.int64).T
                largest = max(largest, int(np.abs(sums - exact).max()))
    return saturated, largest


@pytest.mark.parametrize(
    ("groups", "pads", "strides"), [(1, [1, 0, 2, 1], [1, 1]), (1, None, [2, 2]), (2, [0, 0, 0, 0], [1, 2])]
)
def test_convolutions_are_cut_into_the_windows_that_they_multiply(
    groups: int, pads: list[int] | None, strides: list[int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    weights = rng.choice([-127, -100, 0, 100, 127], (4, 3, 3, 3)).astype(np.int8)
    image = rng.choice([0, 7, 200, 255], (3 * groups, 5, 6)).astype(np.uint8)
    path = conv_file(tmp_path / "conv.onnx", weights, groups=groups, pads=pads, strides=strides)
    layer = one_layer(path, [{"x": (image.astype(np.float32) - 7)[None]}])
    # SAME_UPPER at stride 2: 3 x 3 windows of 5 x 6 take 7 x 7.
    effective = [1, 0, 1, 1] if pads is None else pads
    saturated, largest = simulated_conv(image, weights, groups, effective, strides)
    assert saturated > 0
    positions = ((5 + effective[0] + effective[2] - 3) // strides[0] + 1) * (
        (6 + effective[1] + effective[3] - 3) // strides[1] + 1
    )
    assert layer.share_pairs == pytest.approx(saturated / (positions * 4 * 14))
    assert layer.max_error == pytest.approx(largest)


def test_depthwise_convolutions_add_no_pairs(tmp_path: Path) -> None:
    weights = np.full((3, 1, 3, 3), 127, np.int8)
    path = conv_file(tmp_path / "conv.onnx", weights, groups=3, pads=[0, 0, 0, 0], strides=[1, 1])
    layer = one_layer(path, [{"x": np.full((1, 3, 5, 6), 200, np.float32)}])
    assert (layer.kernel, layer.saturates) == (Kernel.DEPTHWISE, Saturates.NEVER)


def test_a_captioner_is_judged_layer_by_layer(captioner: Callable[[str], Captioner], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    counts = {}
    for graph in deployable_graphs(captioner("attention"), Graph.STEP):
        feeds = [
            {
                name: rng.integers(0, 5, 1).astype(np.int32)
                if name == "token"
                else rng.uniform(0, 1, (1, *spec.shape[1:])).astype(np.float32)
                for name, spec in graph.signature.items()
            }
            for _ in range(4)
        ]
        export_onnx(graph, Scheme(Precision.INT8_STATIC), Calibration({graph.name: feeds}), tmp_path)
        layers = saturation_of(tmp_path / f"{graph.name}.onnx", feeds)
        counts[graph.name] = [layer.operator for layer in layers]
        for layer in layers:
            assert layer.worst_pair_any_order >= layer.worst_pair > 0
            assert (layer.saturates is Saturates.NEVER) == (layer.worst_pair_any_order <= HIGHEST)
            assert (layer.saturates is Saturates.OBSERVED) == bool(layer.share_pairs)
            assert bool(layer.share_pairs) == bool(layer.max_error)
        risk = overflow_risk(layers)
        assert (risk.saturates, risk.layers) == (
            max((layer.saturates for layer in layers), key=list(Saturates).index),
            len(layers),
        )
        assert risk.observed <= risk.possible <= risk.layers
        assert saturation_of(tmp_path / f"{graph.name}.onnx", feeds) == layers
    assert counts == {"encoder": ["Conv"] * 5 + ["MatMul"] * 4, "step": ["MatMul"] * 6}


def test_a_layer_is_shown_with_what_mends_it(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=120, record=True)
    layers = saturation_of(dense_file(tmp_path / "m.onnx", np.full((6, 4), 127, np.int8), form="qdq"), ONES)
    console.print(render_saturation(layers))
    text = console.export_text()
    assert "dense" in text
    assert "observed" in text
    assert "100 %" in text
    assert "reduce_range" in text


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="Build it again"):
        saturation_of(tmp_path / "m.onnx", [])


def test_a_float_file_has_no_layers(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32]) for name in "xy"]
    weights = [numpy_helper.from_array(np.ones((32, 32), np.float32), "w")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(tmp_path / "m.onnx"))
    assert saturation_of(tmp_path / "m.onnx", []) == ()
    assert overflow_risk(()).saturates is Saturates.NEVER
