"""What files hold is what Keras held: real converters at every precision, with planted zeros, clusters and patterns."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convert.artifact import Artifact
from convert.calibration import Calibration
from convert.exporters import EXPORTERS
from convert.graphs import GraphFunction
from convert.readback import (
    StoredWeight,
    distinct_values,
    follows_two_of_four,
    multiply_adds,
    read_weights,
    sparsity,
    whole_sparsity,
)
from convert.recipe import Format, Recipe
from convert.scheme import Precision, Scheme
from models.captioner import Captioner
from models.errors import ArtifactError
from models.keras import keras, tensorflow

Array = NDArray[Any]
DEPLOYED = [Format.TFLITE, Format.ONNX]
INTEGER = (Precision.INT8_DYNAMIC, Precision.INT8_STATIC)
# Share of the largest weight of a tensor: half a step of 11 and of 8 bits, and room for an uneven range.
ROUNDING = {
    Precision.FP32: 0.0,
    Precision.FP16: 2**-11,
    Precision.INT8_DYNAMIC: 1 / 127,
    Precision.INT8_STATIC: 1 / 127,
}
DENSE_LAYERS = {
    "encoder": ["grid_projection", "key", "initial_h", "initial_c"],
    "step": ["question", "hidden", "words"],
}
SHARE_OF_ZEROS = 0.8
CLUSTERS = 16


def layer_weights(captioner: Captioner, graph: str) -> dict[str, Array]:
    """The kernels that a graph of the tiny captioner must hold, as (outputs, inputs)."""
    step, prepare = captioner.decoder.step, captioner.decoder.prepare
    model = prepare if graph == "encoder" else captioner.decoder.sequence
    found = {name: model.get_layer(name).kernel.numpy().T for name in DENSE_LAYERS[graph]}
    if graph == "step":
        cell = captioner.decoder.sequence.get_layer("lstm").cell
        found |= {"lstm": cell.kernel.numpy().T, "recurrent": cell.recurrent_kernel.numpy().T}
        found["embedding"] = step.get_layer("embedding").embeddings.numpy()
    return found


def nearest(weights: Iterable[StoredWeight], kernel: Array) -> tuple[StoredWeight, Array]:
    """The weight of this shape that is most like `kernel`, and the distances of its numbers."""
    alike = [weight for weight in weights if weight.values.shape == kernel.shape]
    best = min(alike, key=lambda weight: float(np.abs(weight.values - kernel).sum()))
    return best, np.abs(best.values - kernel)


@pytest.mark.parametrize("graph", ["encoder", "step"])
@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_every_kernel_of_a_captioner_is_in_its_file(
    build: Callable[[Recipe], Artifact],
    captioner: Callable[[str], Captioner],
    format_: Format,
    precision: Precision,
    graph: str,
) -> None:
    weights = read_weights(build(Recipe("tiny-attention", format_, Scheme(precision), Scheme(precision))).graphs[graph])
    kernels = layer_weights(captioner("attention"), graph)
    convolutions = 5 if graph == "encoder" else 0
    assert len(weights) == len(kernels) + convolutions
    for name, kernel in kernels.items():
        weight, distances = nearest(weights, kernel)
        assert weight.operator == ("embedding" if name == "embedding" else "dense")
        if name == "embedding" and (format_, precision) == (Format.TFLITE, Precision.INT8_STATIC):
            # TFLite rounds the table to the range of the words that calibration looked up, and clips all others.
            distances = np.abs(weight.values - kernel.clip(weight.values.min(), weight.values.max()))
        assert distances.max() <= ROUNDING[precision] * np.abs(kernel).max(), name


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_multiply_adds_of_a_captioner_are_the_ones_of_its_layers(
    build: Callable[[Recipe], Artifact], captioner: Callable[[str], Captioner], format_: Format, precision: Precision
) -> None:
    graphs = build(Recipe("tiny-attention", format_, Scheme(precision), Scheme(precision))).graphs
    # 64 x 64 x 3 -> 24, 48, 64, 96 filters at half the size each, then 96 at the same size: 4 x 4 cells
    convolutions = 32**2 * 24 * 27 + 16**2 * 48 * 216 + 8**2 * 64 * 432 + 4**2 * 96 * 576 + 4**2 * 96 * 864
    # each cell to 32 units and to a key of 16; the mean cell to both states
    assert multiply_adds(graphs["encoder"]) == convolutions + 16 * (96 * 32 + 32 * 16) + 2 * 32 * 32
    words = len(captioner("attention").vocabulary)
    lstm, question, energy, hidden = (16 + 32) * 4 * 32, 32 * 16, 16 * 16, 64 * 32
    assert multiply_adds(graphs["step"]) == lstm + question + energy + hidden + 32 * words


def planted(shape: tuple[int, ...], *, zeros: float = SHARE_OF_ZEROS, seed: int = 0) -> Array:
    """Weights (outputs, ..., inputs) of 16 values, one of them zero, with 2:4 and `zeros` zeros.

    Every output holds the largest value, so that each has the same scale; no value is near a rounded neighbour.
    """
    random = np.random.default_rng(seed)
    values = np.linspace(0.3, 1, CLUSTERS - 1, dtype=np.float32)
    kernel = random.choice(values, shape)
    flat = kernel.reshape(shape[0], -1)
    flat[:, 0] = values[-1]
    # The second half of each group of four inputs, then others until there are enough; never an output's first.
    forced = np.zeros(shape, bool)
    forced[..., 2::4] = forced[..., 3::4] = True
    order = np.argsort(
        random.random(kernel.size) - 2.0 * forced.ravel() + 4.0 * (np.arange(kernel.size) % flat[0].size == 0)
    )
    kernel.ravel()[order[: round(zeros * kernel.size)]] = 0
    return kernel.astype(np.float32)


# Large enough for TFLite's dynamic quantization, which leaves anything below 1024 numbers in float.
PLANTED = {
    "convolution": planted((128, 3, 3, 8), seed=1),
    "depthwise": planted((128, 3, 3, 1), seed=2),
    "projection": planted((48, 128), seed=3),
    "table": planted((60, 32), seed=4),
    "words": np.random.default_rng(5).normal(size=(40, 48)).astype(np.float32),  # not compressed
}
OPERATOR = {"convolution": "conv", "depthwise": "depthwise", "table": "embedding"}


def planted_graph() -> GraphFunction:
    """image (batch, 12, 12, 8) and token -> logits, with the planted weights."""
    layers, tf = keras().layers, tensorflow()
    inputs = {"image": layers.Input((12, 12, 8), name="image"), "token": layers.Input((), dtype="int32", name="token")}
    x = layers.Conv2D(128, 3, 2, "same", activation="relu", name="convolution")(inputs["image"])
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Dense(48, name="projection")(layers.GlobalAveragePooling2D()(x))
    looked_up = layers.Dense(48, use_bias=False, name="small")(layers.Embedding(60, 32, name="table")(inputs["token"]))
    logits = layers.Dense(40, name="words")(layers.Activation("tanh")(layers.Add()([x, looked_up])))
    model = keras().Model(inputs, {"logits": logits}, name="planted")
    for name, kernel in PLANTED.items():
        variable = model.get_layer(name).weights[0]
        variable.assign(as_keras(name, kernel))
    signature = {
        key: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name=key) for key, tensor in inputs.items()
    }
    call = tf.function(lambda feeds: model(feeds, training=False), input_signature=[signature])
    return GraphFunction("planted", model, call, signature)


def as_keras(name: str, kernel: Array) -> Array:
    """(outputs, ..., inputs) -> as the Keras layer holds it."""
    if name in ("convolution", "depthwise"):
        return np.transpose(kernel, (1, 2, 3, 0) if name == "convolution" else (1, 2, 0, 3))
    return kernel if name == "table" else kernel.T


@pytest.fixture(scope="session")
def planted_files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Format, Precision], Path]:
    """The planted graph in every deployed format at every precision."""
    graph, random = planted_graph(), np.random.default_rng(6)
    feeds = [
        {"image": random.normal(size=(1, 12, 12, 8)).astype(np.float32), "token": np.array([word], np.int32)}
        for word in range(60)
    ]
    files = {}
    for format_ in DEPLOYED:
        for precision in ROUNDING:
            folder = tmp_path_factory.mktemp(f"{format_}-{precision}")
            name = EXPORTERS[format_](graph, Scheme(precision), Calibration({"planted": feeds}), folder)
            files[format_, precision] = folder / name
    return files


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_planted_zeros_clusters_and_pattern_are_read_back(
    planted_files: dict[tuple[Format, Precision], Path], format_: Format, precision: Precision
) -> None:
    weights = read_weights(planted_files[format_, precision])
    assert len(weights) == len(PLANTED) + 1  # the `small` layer
    for name, kernel in PLANTED.items():
        weight, distances = nearest(weights, kernel)
        assert weight.operator == OPERATOR.get(name, "dense")
        assert distances.max() <= ROUNDING[precision] * np.abs(kernel).max()
        if name == "words":
            assert not follows_two_of_four(weight)
            continue
        assert np.array_equal(weight.values == 0, kernel == 0), name
        assert sparsity(weight) == pytest.approx(SHARE_OF_ZEROS, abs=0.5 / kernel.size)
        assert follows_two_of_four(weight)
        assert distinct_values(weight, per_channel=True) == max(np.unique(channel).size for channel in kernel)
        assert distinct_values(weight, per_channel=False) == CLUSTERS


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_integers_are_read_where_they_are_stored(
    planted_files: dict[tuple[Format, Precision], Path], format_: Format, precision: Precision
) -> None:
    for weight in read_weights(planted_files[format_, precision]):
        assert (weight.integers is not None) == (precision in INTEGER), weight.name
        if weight.integers is not None:
            assert weight.integers.dtype in (np.int8, np.uint8)
            assert weight.integers.shape == weight.values.shape
            assert np.unique(weight.integers).size <= np.unique(weight.values).size


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_multiply_adds_are_counted_by_hand(
    planted_files: dict[tuple[Format, Precision], Path], format_: Format, precision: Precision
) -> None:
    convolution, depthwise = 6 * 6 * 128 * 3 * 3 * 8, 6 * 6 * 128 * 3 * 3
    dense = 128 * 48 + 32 * 48 + 48 * 40
    assert multiply_adds(planted_files[format_, precision]) == convolution + depthwise + dense


def test_a_tied_table_counts_twice_as_work(tmp_path: Path) -> None:
    from models.decoders import DecoderConfig, build_decoder

    step = build_decoder(DecoderConfig("merge", (24,), 59, 16, 32, output="tied")).step
    tf = tensorflow()
    signature = {key: tf.TensorSpec([None, *x.shape[1:]], x.dtype, name=key) for key, x in step.input.items()}
    call = tf.function(lambda feeds: step(feeds, training=False), input_signature=[signature])
    graph = GraphFunction("step", step, call, signature)
    files = [
        tmp_path / EXPORTERS[format_](graph, Scheme(), Calibration({"step": []}), tmp_path) for format_ in DEPLOYED
    ]
    tables = [[w for w in read_weights(file) if sorted(w.values.shape) == [16, 59]] for file in files]
    assert [len(table) for table in tables] == [1, 1]
    assert [multiply_adds(file) for file in files] == [(16 + 32) * 128 + 32 * 32 + 32 * 16 + 16 * 59] * 2


def onnx_file(folder: Path, nodes: list[Any], **constants: Array) -> Path:
    """An ONNX file x (1, 16) -> y with these operators."""
    import onnx

    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 16]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "made", [x], [y], tensors)
    onnx.save(onnx.helper.make_model(graph), str(folder / "made.onnx"))
    return folder / "made.onnx"


# One kernel (inputs, outputs), rounded in the file as quantization-aware training does it: to 127 steps of its range.
FLOATS = np.random.default_rng(7).uniform(-1, 1, (16, 8)).astype(np.float32)
ROUNDED = np.round(FLOATS * 127) / 127


def test_weights_that_the_onnx_file_rounds_are_read_rounded(tmp_path: Path) -> None:
    from onnx.helper import make_node

    nodes = [
        make_node("QuantizeLinear", ["w", "scale", "zero"], ["integers"], axis=0),
        make_node("DequantizeLinear", ["integers", "scale", "zero"], ["floats"], axis=0),
        make_node("Transpose", ["floats"], ["turned"], perm=[1, 0]),
        make_node("Reshape", ["turned", "shape"], ["kernel"]),
        make_node("MatMul", ["x", "kernel"], ["y"]),
    ]
    scale, zero = np.full(8, 1 / 127, np.float32), np.zeros(8, np.int8)
    path = onnx_file(tmp_path, nodes, w=FLOATS.T.copy(), scale=scale, zero=zero, shape=np.array([16, 8]))
    (weight,) = read_weights(path)
    assert weight.values == pytest.approx(ROUNDED.T)
    assert weight.integers is None  # the file stores floats
    assert multiply_adds(path) == 16 * 8


def test_weights_that_the_tflite_file_rounds_are_read_rounded(tmp_path: Path) -> None:
    tf = tensorflow()
    kernel = tf.Variable(FLOATS)
    signature = {"x": tf.TensorSpec([None, 16], tf.float32, name="x")}

    def call(feeds: Any) -> Any:
        limits = [-1.0] * 8, [1.0] * 8
        return {
            "y": feeds["x"]
            @ tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, *limits, narrow_range=True)
        }

    concrete = tf.function(call, input_signature=[signature]).get_concrete_function()
    holder = tf.Module()
    holder.kernel = kernel
    path = tmp_path / "made.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder).convert())
    (weight,) = read_weights(path)
    assert weight.values == pytest.approx(ROUNDED.T, abs=1e-6)
    assert weight.integers is None
    assert multiply_adds(path) == 16 * 8


def test_weights_that_a_file_computes_are_refused(tmp_path: Path) -> None:
    from onnx.helper import make_node

    nodes = [make_node("Exp", ["w"], ["kernel"]), make_node("MatMul", ["x", "kernel"], ["y"])]
    with pytest.raises(ArtifactError, match="the file computes them"):
        read_weights(onnx_file(tmp_path, nodes, w=FLOATS))


def test_recurrent_operator_is_refused(tmp_path: Path) -> None:
    from onnx.helper import make_node

    with pytest.raises(ArtifactError, match="it holds the operator LSTM"):
        read_weights(onnx_file(tmp_path, [make_node("LSTM", ["x", "w", "w"], ["y"])], w=FLOATS))


def weight_of(values: Any) -> StoredWeight:
    return StoredWeight("w", "dense", np.array(values, np.float32))


@pytest.mark.parametrize(
    ("values", "follows"),
    [
        ([[1, 1, 0, 0, 0, 1, 0, 1]], True),
        ([[0, 1, 1, 1, 0, 0, 0, 0]], False),
        ([[0, 0, 1, 1], [1, 1, 1, 1]], False),
        ([[0, 1, 1, 0, 1, 1]], True),  # the last group is 1 1 and two that are not there
        ([[0, 0, 0, 0, 1, 1, 1]], False),
        ([[1], [1], [1], [1]], True),  # groups lie along the inputs only
    ],
)
def test_two_of_four_looks_at_groups_of_inputs(values: Any, follows: bool) -> None:
    assert follows_two_of_four(weight_of(values)) == follows


def test_measures_of_a_weight() -> None:
    weight = weight_of([[0, -0.0, 1, 2], [0, 3, 3, 4]])
    assert sparsity(weight) == 3 / 8
    assert distinct_values(weight, per_channel=False) == 5
    assert distinct_values(weight, per_channel=True) == 3
    assert whole_sparsity([weight, weight_of([[0] * 8])]) == 11 / 16
    assert whole_sparsity([]) == 0


@pytest.mark.parametrize("name", ["step.keras", "step", "step.txt"])
def test_other_formats_are_refused_with_the_ones_that_are_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"only \.onnx and \.tflite files are read"):
        read_weights(tmp_path / name)
    with pytest.raises(ArtifactError, match=r"only \.onnx and \.tflite files are read"):
        multiply_adds(tmp_path / name)


@pytest.mark.parametrize("format_", DEPLOYED)
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "half"])
def test_damaged_file_is_refused(
    planted_files: dict[tuple[Format, Precision], Path], tmp_path: Path, format_: Format, damage: str
) -> None:
    whole = planted_files[format_, Precision.FP32].read_bytes()
    path = tmp_path / f"step.{format_}"
    contents = {"empty": b"", "garbage": b"this is not a model" * 10, "half": whole[: len(whole) // 2]}
    if damage != "missing":
        path.write_bytes(contents[damage])
    for read in (read_weights, multiply_adds):
        with pytest.raises(ArtifactError, match=r"step\.\w+ "):
            read(path)
