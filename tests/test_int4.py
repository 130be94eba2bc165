"""INT4 weights: rounded well, packed small, computed rightly by the real runtimes, and read back from the files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert import int4_onnx, int4_tflite
from convert.artifact import ENCODER
from convert.calibration import Calibration
from convert.coverage import MINIMUM_ELEMENTS
from convert.graphs import GraphFunction, deployable_graphs
from convert.int4 import KeptReason, pack_nibbles, round_int4, signed_nibbles, unpack_nibbles
from convert.readback import multiply_adds, read_weights, sparsity
from convert.recipe import Format, Graph
from convert.scheme import Scheme
from convert.stored_weights import StoredWeight
from convert.tflite_file import as_buffer, operator_name, pack, shape_of, stored_bytes, unpack
from convert.to_keras import SIGNATURE
from convert.to_onnx import convert_to_onnx
from convert.to_tflite import export_tflite
from models.captioner import Captioner
from models.decoders import DecoderConfig, build_decoder
from models.errors import UnsupportedError
from models.keras import keras, tensorflow

Array = NDArray[Any]
DECODERS = ["attention", "merge"]
# The runtimes round the other operand to INT8, 1/127 of its largest number a step, on the way through five layers.
INT8_TOLERANCE = 0.025
FLOAT_TOLERANCE = 1e-5


def graph_of(model: Any) -> GraphFunction:
    tf, inputs = tensorflow(), model.input if isinstance(model.input, dict) else {model.input.name: model.input}
    signature = {key: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name=key) for key, value in inputs.items()}

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return model(feeds if isinstance(model.input, dict) else feeds[model.input.name], training=False)

    return GraphFunction("graph", model, call, signature)


def decoder_graph(kind: str, **sizes: Any) -> GraphFunction:
    """A step with random weights, biases too."""
    config = {"vocabulary_size": 40, "embedding": 32, "units": 32, "attention": 32} | sizes
    decoder = build_decoder(DecoderConfig(kind, {"attention": (4, 24), "merge": (24,)}[kind], **config))
    rng = np.random.default_rng(0)
    for weight in decoder.step.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    return graph_of(decoder.step)


def tflite(graph: GraphFunction, folder: Path) -> bytes:
    name = export_tflite(graph, Scheme(), Calibration({graph.name: []}), folder)
    return (folder / name).read_bytes()


def feeds_of(graph: GraphFunction, rows: int = 3) -> dict[str, Array]:
    rng, words = np.random.default_rng(1), 5
    return {
        name: rng.integers(0, words, rows).astype(np.int32)
        if name == "token"
        else rng.uniform(-1, 1, (rows, *spec.shape[1:])).astype(np.float32)
        for name, spec in graph.signature.items()
    }


def run_onnx(model: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip([name.removesuffix("_out") for name in names], session.run(names, feeds), strict=True))


def run_tflite(content: bytes, feeds: dict[str, Array], *, with_xnnpack: bool = True) -> dict[str, Array]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if with_xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kind, num_threads=2)
    outputs: dict[str, Array] = interpreter.get_signature_runner(SIGNATURE)(**feeds)
    return outputs


def like(matrix: Array, weights: list[StoredWeight]) -> Array:
    """What a file holds of a matrix: as it is, or transposed as ONNX multiplies."""
    both = [values for weight in weights for values in (weight.values, weight.values.T)]
    fitting = [values for values in both if values.shape == matrix.shape]
    return min(fitting, key=lambda values: float(np.abs(values - matrix).sum()), default=matrix)


def rounded_onnx(model: Any, weights: list[StoredWeight]) -> Any:
    """The float graph with the weights that the INT4 file holds."""
    from onnx import ModelProto, TensorProto, numpy_helper

    rounded = ModelProto()
    rounded.CopyFrom(model)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            values = np.ascontiguousarray(like(numpy_helper.to_array(tensor), weights))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return rounded


def rounded_tflite(content: bytes, weights: list[StoredWeight]) -> bytes:
    """The float graph with the weights that the INT4 file holds."""
    model = unpack(content)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == 0 and len(shape_of(tensor)) == 2 and stored_bytes(model, tensor):
            matrix = np.frombuffer(stored_bytes(model, tensor), np.float32).reshape(shape_of(tensor))
            model.buffers[tensor.buffer] = as_buffer(like(matrix, weights))
    return pack(model)


def assert_close(ours: dict[str, Array], theirs: dict[str, Array], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert np.linalg.norm(ours[name] - value) <= tolerance * np.linalg.norm(value), name


@dataclass(frozen=True)
class Converted:
    """A graph and its fp32 files."""

    graph: GraphFunction
    onnx: Any
    tflite: bytes


@pytest.fixture(scope="module")
def converted(
    captioner: Callable[[str], Captioner], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Converted]]:
    """Encoder and step of the tiny captioner of a decoder."""
    known: dict[str, list[Converted]] = {}

    def get(decoder: str) -> list[Converted]:
        if decoder not in known:
            folder, graphs = tmp_path_factory.mktemp("fp32"), deployable_graphs(captioner(decoder), Graph.STEP)
            known[decoder] = [Converted(graph, convert_to_onnx(graph), tflite(graph, folder)) for graph in graphs]
        return known[decoder]

    return get


@pytest.mark.parametrize("part", [0, 1], ids=[ENCODER, "step"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_onnxruntime_computes_with_the_weights_that_are_read_back(
    converted: Callable[[str], list[Converted]], decoder: str, part: int, tmp_path: Path
) -> None:
    import onnx

    given = converted(decoder)[part]
    model, feeds = given.onnx, feeds_of(given.graph)
    for level, tolerance in ((1, FLOAT_TOLERANCE), (4, INT8_TOLERANCE)):
        quantized = int4_onnx.quantize_weights_int4(model, accuracy_level=level)
        onnx.save(quantized, str(tmp_path / "int4.onnx"))
        reference = run_onnx(rounded_onnx(model, read_weights(tmp_path / "int4.onnx")), feeds)
        assert_close(run_onnx(quantized, feeds), reference, tolerance)
        assert_close(run_onnx(model, feeds), reference, 0.3)
    constants = {tensor.name for tensor in quantized.graph.initializer if np.prod(tensor.dims) >= MINIMUM_ELEMENTS}
    products = [node for node in quantized.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert not any(node.input[1] in constants for node in products)


@pytest.mark.parametrize("part", [0, 1], ids=[ENCODER, "step"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_litert_computes_with_the_weights_that_are_read_back(
    converted: Callable[[str], list[Converted]], decoder: str, part: int, tmp_path: Path
) -> None:
    given = converted(decoder)[part]
    content, feeds = given.tflite, feeds_of(given.graph)
    (tmp_path / "int4.tflite").write_bytes(int4_tflite.quantize_weights_int4(content))
    quantized = (tmp_path / "int4.tflite").read_bytes()
    reference = run_tflite(rounded_tflite(content, read_weights(tmp_path / "int4.tflite")), feeds)
    for with_xnnpack in (True, False):
        assert_close(run_tflite(quantized, feeds, with_xnnpack=with_xnnpack), reference, INT8_TOLERANCE)
    assert_close(run_tflite(content, feeds), reference, 0.3)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("format_", [Format.ONNX, Format.TFLITE])
def test_rounded_weights_are_in_the_file(
    converted: Callable[[str], list[Converted]], decoder: str, format_: Format, tmp_path: Path
) -> None:
    import onnx

    given = converted(decoder)[1]
    before, after = tmp_path / f"before.{format_}", tmp_path / f"after.{format_}"
    if format_ is Format.ONNX:
        onnx.save(given.onnx, str(before))
        onnx.save(int4_onnx.quantize_weights_int4(given.onnx), str(after))
    else:
        before.write_bytes(given.tflite)
        after.write_bytes(int4_tflite.quantize_weights_int4(given.tflite))
    weights = read_weights(after)
    assert len(weights) == len(read_weights(before))
    for old, new in zip(read_weights(before), weights, strict=True):
        assert (old.operator, old.values.shape) == (new.operator, new.values.shape)
        assert new.integers is not None
        assert new.integers.shape == new.values.shape
        assert new.integers.max() - new.integers.min() <= 15
        step = np.abs(old.values).max(axis=1, keepdims=True) / 7
        # A block may cut its largest weight off down to half, to round the others better.
        assert (np.abs(new.values - old.values) <= 3.5 * step + 1e-6).all()
        assert np.linalg.norm(new.values - old.values) < 0.11 * np.linalg.norm(old.values)
    assert multiply_adds(after) == multiply_adds(before)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_is_six_times_smaller(decoder: str, tmp_path: Path) -> None:
    graph = decoder_graph(decoder, vocabulary_size=400, embedding=64, units=128, attention=64)
    model, content = convert_to_onnx(graph), tflite(graph, tmp_path)
    assert model.ByteSize() > 6 * int4_onnx.quantize_weights_int4(model).ByteSize()
    assert len(content) > 6 * len(int4_tflite.quantize_weights_int4(content))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_tied_table_is_stored_once(decoder: str, tmp_path: Path) -> None:
    graph = decoder_graph(decoder, vocabulary_size=300, output="tied")
    model, content, feeds = convert_to_onnx(graph), tflite(graph, tmp_path), feeds_of(graph)
    quantized = int4_onnx.quantize_weights_int4(model)
    tables = [tensor for tensor in quantized.graph.initializer if np.prod(tensor.dims) == 300 * 32 / 2]
    assert len(tables) == 1
    assert_close(run_onnx(quantized, feeds), run_onnx(model, feeds), 0.3)

    (tmp_path / "int4.tflite").write_bytes(int4_tflite.quantize_weights_int4(content))
    packed = unpack((tmp_path / "int4.tflite").read_bytes())
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in packed.buffers]
    assert sizes.count(300 * 32 // 2) == 1
    assert max(sizes) < 300 * 32
    assert_close(run_tflite((tmp_path / "int4.tflite").read_bytes(), feeds), run_tflite(content, feeds), 0.3)


@pytest.mark.parametrize("units", [30, 80])  # a multiple of no block
def test_inputs_that_fill_no_block_are_padded(units: int, tmp_path: Path) -> None:
    import onnx

    graph = decoder_graph("merge", units=units, embedding=18)
    content, model, feeds = tflite(graph, tmp_path), convert_to_onnx(graph), feeds_of(graph)
    (tmp_path / "int4.tflite").write_bytes(int4_tflite.quantize_weights_int4(content))
    weights = read_weights(tmp_path / "int4.tflite")
    reference = run_tflite(rounded_tflite(content, weights), feeds)
    for with_xnnpack in (True, False):
        ours = run_tflite((tmp_path / "int4.tflite").read_bytes(), feeds, with_xnnpack=with_xnnpack)
        assert_close(ours, reference, INT8_TOLERANCE)
    assert sorted({weight.values.shape[1] for weight in weights}) == [18, units]

    quantized = int4_onnx.quantize_weights_int4(model, accuracy_level=1)
    onnx.save(quantized, str(tmp_path / "int4.onnx"))
    reference = run_onnx(rounded_onnx(model, read_weights(tmp_path / "int4.onnx")), feeds)
    assert_close(run_onnx(quantized, feeds), reference, FLOAT_TOLERANCE)


def test_zeros_of_a_pruned_weight_stay(tmp_path: Path) -> None:
    import onnx

    graph = decoder_graph("merge", units=48)
    kernel = next(weight for weight in graph.model.weights if weight.shape == (48, 48))
    kernel.assign(np.where(np.random.default_rng(2).random(kernel.shape) < 0.8, 0, kernel.numpy()))
    share = float((kernel.numpy() == 0).mean())
    onnx.save(int4_onnx.quantize_weights_int4(convert_to_onnx(graph)), str(tmp_path / "int4.onnx"))
    (tmp_path / "int4.tflite").write_bytes(int4_tflite.quantize_weights_int4(tflite(graph, tmp_path)))
    for name in ("int4.onnx", "int4.tflite"):
        weight = next(weight for weight in read_weights(tmp_path / name) if weight.values.shape == (48, 48))
        # What was not zero may have been rounded to it.
        assert share <= sparsity(weight) < share + 0.05


def convolutions(kernel: int) -> GraphFunction:
    inputs = keras().layers.Input((8, 8, 4), name="image")
    return graph_of(keras().Model(inputs, {"features": keras().layers.Conv2D(16, kernel)(inputs)}))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_graph_of_convolutions_is_refused(kernel: int, tmp_path: Path) -> None:
    graph = convolutions(kernel)
    with pytest.raises(UnsupportedError, match="not for convolutions"):
        int4_onnx.quantize_weights_int4(convert_to_onnx(graph))
    with pytest.raises(UnsupportedError, match="not for convolutions") as raised:
        int4_tflite.quantize_weights_int4(tflite(graph, tmp_path))
    assert "tensorflow/issues/60125" in raised.value.thread


def test_what_stays_in_float_is_told(converted: Callable[[str], list[Converted]], tmp_path: Path) -> None:
    encoder, step = converted("attention")
    for kept in (int4_onnx.kept_weights(encoder.onnx), int4_tflite.kept_weights(encoder.tflite)):
        assert [weight.reason for weight in kept] == [KeptReason.CONVOLUTION] * 5
        assert sum(weight.elements for weight in kept) == 27 * 24 + 216 * 48 + 432 * 64 + 576 * 96 + 864 * 96
    assert int4_onnx.kept_weights(step.onnx) == ()
    # The tiny captioner's only layer of one output has 16 numbers, and is no weight worth telling.
    assert int4_tflite.kept_weights(step.tflite) == ()
    wide = tflite(decoder_graph("attention", attention=64), tmp_path)
    assert [weight.reason for weight in int4_tflite.kept_weights(wide)] == [KeptReason.SMALL]
    model = unpack(int4_tflite.quantize_weights_int4(wide))
    assert "GATHER" not in {
        operator_name(model, operator)
        for operator in model.subgraphs[0].operators
        if len(shape_of(model.subgraphs[0].tensors[int(operator.inputs[0])])) == 2
    }


def test_a_gemm_keeps_its_bias_and_its_factor() -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(20, 33)).astype(np.float32), rng.normal(size=20).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "dense", alpha=0.5, transB=1)
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 33), ("y", 20))
    ]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph([node], "gemm", value[:1], value[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    feeds = {"x": rng.normal(size=(4, 33)).astype(np.float32)}
    ours = run_onnx(int4_onnx.quantize_weights_int4(model, accuracy_level=1), feeds)
    rounded = round_int4(weight * 0.5, 64).values
    np.testing.assert_allclose(ours["y"], feeds["x"] @ rounded.T + bias, atol=1e-4)


def random_matrix(rows: int, columns: int, seed: int) -> Array:
    """Rows of very different size."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, columns)) * rng.exponential(size=(rows, 1))).astype(np.float32)


matrices = st.builds(random_matrix, st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**32 - 1))


@given(matrices, st.sampled_from([16, 32, 64]), st.booleans())
def test_rounding_is_better_than_reaching_the_largest_weight(weights: Array, block: int, positive: bool) -> None:
    rounded = round_int4(weights, block, positive_scales=positive)
    assert rounded.integers.min() >= -8
    assert rounded.integers.max() <= 7
    assert rounded.scales.shape == (len(weights), -(-weights.shape[1] // block))
    assert not positive or (rounded.scales > 0).all()
    for start in range(0, weights.shape[1], block):
        part = weights[:, start : start + block]
        scale = np.abs(part).max(axis=1, keepdims=True) / 7
        plain = np.rint(part / scale) * scale
        errors = [((values - part) ** 2).sum(axis=1) for values in (rounded.values[:, start : start + block], plain)]
        assert (errors[0] <= errors[1] * 1.0001 + 1e-9).all()


def test_zeros_round_to_zeros() -> None:
    rounded = round_int4(np.zeros((3, 40), np.float32), 32)
    assert not rounded.values.any()
    assert np.isfinite(rounded.scales).all()


@given(st.lists(st.integers(-8, 7), min_size=1, max_size=33))
def test_nibbles_survive_packing(numbers: list[int]) -> None:
    integers = np.array([numbers, numbers[::-1]], np.int8)
    packed = pack_nibbles(integers)
    assert packed.shape == (2, (len(numbers) + 1) // 2)
    assert np.array_equal(signed_nibbles(unpack_nibbles(packed, len(numbers))), integers)
