"""Quantization-aware layers and encoders: close to float, the same in all their graphs, and integer in the files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.calibration import Calibration
from convert.coverage import weights_int8
from convert.fake_quant import holds_fake_quant, rounding_of
from convert.graphs import GraphFunction
from convert.scheme import Precision, Scheme
from convert.to_keras import SIGNATURE, export_saved_model
from convert.to_onnx import export_onnx
from convert.to_tflite import export_tflite
from models.compression.encoder_qat import (
    float_kernels,
    is_quantized,
    load_quantized_encoder,
    quantize_encoder,
    save_quantized_encoder,
    settle_encoder_ranges,
    strip_encoder,
)
from models.decoders import STATES, Decoder, DecoderConfig, build_decoder
from models.encoders import FeatureKind, build_encoder
from models.errors import ArtifactError, ConfigError, UnsupportedError
from models.keras import keras, tensorflow
from models.layers import Arithmetic
from models.quantized_layers import copy_float_weights, float_weights, settle_ranges

NO_CALIBRATION = Calibration({"step": [], "encoder": []})
RAW = {"attention": (16, 24), "merge": (24,)}
VOCABULARY, UNITS = 40, 32
BOTH = [Arithmetic.INT8, Arithmetic.INT8_DENSE]
# The runtimes sum integers where Keras sums rounded floats, so a value now and then falls to the neighbouring step:
# a share of about 1/255 of the values' norm for each of the few roundings on the way.
INTEGER_TOLERANCE = 0.025


def config(kind: str, arithmetic: str = Arithmetic.FLOAT, **options: Any) -> DecoderConfig:
    sizes = {"vocabulary_size": VOCABULARY, "embedding": 16, "units": UNITS, "attention": 16} | options
    return DecoderConfig(kind, RAW[kind], arithmetic=arithmetic, prepare_arithmetic=arithmetic, **sizes)


def batch(config: DecoderConfig, rows: int = 8, length: int = 7) -> list[Any]:
    rng = np.random.default_rng(1)
    raw = rng.normal(size=(rows, *config.raw_shape)).astype(np.float32)
    return [raw, rng.integers(0, config.vocabulary_size, (rows, length)).astype(np.int32)]


def float_decoder(config: DecoderConfig) -> Decoder:
    """Weights of some size in every layer; fresh biases are zero."""
    decoder, rng = build_decoder(config), np.random.default_rng(0)
    tensorflow().random.set_seed(0)
    for weight in decoder.sequence.weights:
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    return decoder


def quantized_decoder(config: DecoderConfig) -> tuple[Decoder, Decoder]:
    """A float decoder, and a quantized one with its weights and settled ranges."""
    plain = float_decoder(dataclasses.replace(config, arithmetic="float", prepare_arithmetic="float"))
    quantized = build_decoder(config)
    for layer in (layer for layer in plain.sequence.layers if layer.weights):
        copy_float_weights(layer, quantized.sequence.get_layer(layer.name))
    settle_ranges(quantized.sequence, [batch(config)] * 2)
    return plain, quantized


def distance(ours: Any, theirs: Any) -> float:
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))


def step_feed(decoder: Decoder, config: DecoderConfig) -> dict[str, Any]:
    raw, tokens = batch(config)
    rng = np.random.default_rng(2)
    states = {name: rng.uniform(-0.9, 0.9, (len(raw), config.units)).astype(np.float32) for name in STATES}
    prepared = {name: value.numpy() for name, value in decoder.prepare(raw).items()}
    return {"token": tokens[:, 0], **states, **prepared}


def graph_function(name: str, model: Any) -> GraphFunction:
    tf = tensorflow()
    inputs = model.input if isinstance(model.input, dict) else {model.input.name: model.input}
    signature = {key: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name=key) for key, value in inputs.items()}

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return model(feeds if isinstance(model.input, dict) else feeds[model.input.name], training=False)

    return GraphFunction(name, model, call, signature)


def run_tflite(path: Path, feed: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Outputs, and (operator, type of its first output) of each."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    outputs = interpreter.get_signature_runner(SIGNATURE)(**feed)
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    return outputs, [(op["op_name"], types[op["outputs"][0]]) for op in interpreter._get_ops_details()]


def run_onnx(path: Path, feed: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Outputs, and the operators that ONNX Runtime makes of the graph."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip([name.removesuffix("_out") for name in names], session.run(names, feed), strict=True))
    return outputs, [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.fixture(scope="module")
def decoders() -> Callable[[DecoderConfig], tuple[Decoder, Decoder]]:
    built: dict[DecoderConfig, tuple[Decoder, Decoder]] = {}

    def get(config: DecoderConfig) -> tuple[Decoder, Decoder]:
        if config not in built:
            built[config] = quantized_decoder(config)
        return built[config]

    return get


CASES = [(kind, arithmetic, output) for kind in RAW for arithmetic in BOTH for output in ("dense", "tied")]


@pytest.mark.parametrize(("kind", "arithmetic", "output"), CASES)
def test_logits_are_close_to_float_and_step_says_what_sequence_says(
    decoders: Any, kind: str, arithmetic: str, output: str
) -> None:
    chosen = config(kind, arithmetic, output=output)
    plain, quantized = decoders(chosen)
    raw, tokens = batch(chosen)
    logits = quantized.sequence([raw, tokens]).numpy()
    assert 0 < distance(logits, plain.sequence([raw, tokens]).numpy()) < 0.1

    feed = {name: value.numpy() for name, value in quantized.prepare(raw).items()}
    feed = {name: np.zeros((len(raw), UNITS), np.float32) for name in STATES} | feed
    for at in range(tokens.shape[1]):
        outputs = quantized.step({"token": tokens[:, at], **feed})
        np.testing.assert_allclose(outputs["logits"], logits[:, at], atol=1e-5)
        feed |= {name: outputs[name].numpy() for name in STATES}


@pytest.mark.parametrize("arithmetic", BOTH)
def test_weights_and_ranges_survive_a_file(decoders: Any, arithmetic: str, tmp_path: Path) -> None:
    chosen = config("attention", arithmetic)
    plain, quantized = decoders(chosen)
    quantized.sequence.save_weights(tmp_path / "decoder.weights.h5")
    loaded = build_decoder(chosen)
    loaded.sequence.load_weights(tmp_path / "decoder.weights.h5")
    np.testing.assert_array_equal(loaded.sequence(batch(chosen)), quantized.sequence(batch(chosen)))
    for layer in (layer for layer in plain.sequence.layers if layer.weights):
        for ours, theirs in zip(
            float_weights(loaded.sequence.get_layer(layer.name)), float_weights(layer), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_shape_are_refused(decoders: Any) -> None:
    _, quantized = decoders(config("merge", Arithmetic.INT8))
    with pytest.raises(ValueError, match="does not fit 'hidden'"):
        copy_float_weights(quantized.sequence.get_layer("words"), quantized.sequence.get_layer("hidden"))


def test_ranges_move_in_training_only_and_gradients_reach_all_weights() -> None:
    tf = tensorflow()
    chosen = config("attention", Arithmetic.INT8, output="tied")
    _, quantized = quantized_decoder(chosen)
    model, inputs = quantized.sequence, batch(chosen)
    ranges = [weight for weight in model.weights if "range" in weight.name]
    before = [weight.numpy() for weight in ranges]
    model([inputs[0] * 3, inputs[1]], training=False)
    assert [weight.numpy() for weight in ranges] == before
    with tf.GradientTape() as tape:
        logits = model([inputs[0] * 3, inputs[1]], training=True)
        loss = tf.reduce_mean(logits**2)
    assert [weight.numpy() for weight in ranges] != before
    assert not any(weight.name.startswith("range") for weight in model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, weight.name


def test_settling_forgets_dropout() -> None:
    chosen = config("merge", Arithmetic.INT8, dropout=0.5)
    _, quantized = quantized_decoder(chosen)
    highs = [weight for weight in quantized.sequence.weights if "input_range_max" in weight.name]
    settled = [float(weight) for weight in highs]
    for _ in range(20):
        quantized.sequence(batch(chosen), training=True)
    assert float(highs[0]) > 1.3 * settled[0]  # twice as large, but for values that were dropped
    settle_ranges(quantized.sequence, [batch(chosen)] * 2)
    assert [float(weight) for weight in highs] == pytest.approx(settled, rel=0.05)
    assert quantized.sequence.get_layer("dropout_image").rate == 0.5


@pytest.mark.parametrize(("kind", "arithmetic", "output"), CASES)
def test_exported_steps_compute_in_integers_what_keras_simulates(
    decoders: Any, kind: str, arithmetic: str, output: str, tmp_path: Path
) -> None:
    chosen = config(kind, arithmetic, output=output)
    _, quantized = decoders(chosen)
    feed = step_feed(quantized, chosen)
    expected = {name: value.numpy() for name, value in quantized.step(feed, training=False).items()}
    graph = graph_function("step", quantized.step)
    tflite = tmp_path / export_tflite(graph, Scheme(Precision.INT8_STATIC), NO_CALIBRATION, tmp_path)
    onnx = tmp_path / export_onnx(graph, Scheme(Precision.INT8_STATIC), NO_CALIBRATION, tmp_path)
    by_tflite, tflite_operators = run_tflite(tflite, feed)
    by_onnx, onnx_operators = run_onnx(onnx, feed)
    for name, value in expected.items():
        assert distance(by_tflite[name], value) < INTEGER_TOLERANCE, name
        assert distance(by_onnx[name], value) < INTEGER_TOLERANCE, name

    dense = {"merge": 2, "attention": 3}[kind] + (output == "tied")
    products = dense + 2 * (arithmetic == Arithmetic.INT8)  # and the LSTM's two
    integer = [kind for name, kind in tflite_operators if name == "FULLY_CONNECTED" and kind == np.int8]
    assert len(integer) == products
    assert sum(name in ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat") for name in onnx_operators) == products
    if arithmetic == Arithmetic.INT8:
        assert (weights_int8([tflite]) or 0) > 0.9
        assert (weights_int8([onnx]) or 0) > 0.9


def test_exported_files_are_small(tmp_path: Path) -> None:
    # Large enough for the weights to outweigh the graph.
    plain, quantized = quantized_decoder(config("attention", Arithmetic.INT8, vocabulary_size=400, units=96))
    for export, suffix in ((export_tflite, "tflite"), (export_onnx, "onnx")):
        sizes = []
        for decoder, scheme in ((plain, Scheme()), (quantized, Scheme(Precision.INT8_STATIC))):
            export(graph_function("step", decoder.step), scheme, NO_CALIBRATION, tmp_path)
            sizes.append((tmp_path / f"step.{suffix}").stat().st_size)
        assert sizes[1] < 0.4 * sizes[0], suffix


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC])
def test_trained_ranges_have_one_precision(decoders: Any, precision: Precision, tmp_path: Path) -> None:
    plain, quantized = decoders(config("merge", Arithmetic.INT8))
    graph = graph_function("step", quantized.step)
    assert holds_fake_quant(graph)
    assert not holds_fake_quant(graph_function("step", plain.step))
    for export in (export_tflite, export_onnx):
        with pytest.raises(UnsupportedError, match="its only precision is int8_static"):
            export(graph, Scheme(precision), NO_CALIBRATION, tmp_path)


def test_saved_model_simulates(decoders: Any, tmp_path: Path) -> None:
    _, quantized = decoders(config("merge", Arithmetic.INT8))
    feed = step_feed(quantized, config("merge", Arithmetic.INT8))
    export_saved_model(graph_function("step", quantized.step), Scheme(), NO_CALIBRATION, tmp_path)
    loaded = tensorflow().saved_model.load(str(tmp_path / "step")).signatures[SIGNATURE]
    found = loaded(**{name: tensorflow().constant(value) for name, value in feed.items()})
    np.testing.assert_allclose(found["logits"], quantized.step(feed)["logits"], atol=1e-5)


@pytest.mark.parametrize("narrow", [True, False])
def test_rounding_is_that_of_tensorflow(narrow: bool) -> None:
    quantization, rng = tensorflow().quantization, np.random.default_rng(3)
    for _ in range(20):
        low, high = np.float32(-rng.uniform(0.1, 4)), np.float32(rng.uniform(0.1, 4))
        low = np.float32(-high) if narrow else low
        values = rng.normal(0, 2, 500).astype(np.float32)
        expected = quantization.fake_quant_with_min_max_vars(values, low, high, narrow_range=narrow).numpy()
        rounding = rounding_of(low, high, narrow=narrow)
        limits = np.iinfo(rounding.zero.dtype)
        integers = np.clip(rounding.apply(values), limits.min + narrow, limits.max)
        found = (integers.astype(np.float32) - rounding.zero) * rounding.scale
        # A value in the middle of two steps may fall to either.
        assert np.abs(found - expected).max() < 1.01 * float(rounding.scale)
        assert (np.abs(found - expected) > rounding.scale / 2).mean() < 0.01


@pytest.fixture(scope="module")
def encoders() -> tuple[Any, Any, Any]:
    """A tiny encoder with normalizations that do something, the same quantized, and images."""
    encoder, rng = build_encoder("tiny", FeatureKind.GRID, weights="random"), np.random.default_rng(4)
    for layer in encoder.layers:
        if isinstance(layer, keras().layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            gamma, beta = rng.normal(0, 1, gamma.shape), rng.normal(0, 0.3, beta.shape)  # some change the sign
            layer.set_weights([gamma, beta, mean, rng.uniform(0.02, 0.1, variance.shape)])
    images = rng.uniform(0, 1, (4, 64, 64, 3)).astype(np.float32)
    quantized = quantize_encoder(encoder)
    settle_encoder_ranges(quantized, [images])
    return encoder, quantized, images


def test_quantized_encoder_is_close_and_keeps_names(encoders: tuple[Any, Any, Any]) -> None:
    encoder, quantized, images = encoders
    assert is_quantized(quantized)
    assert not is_quantized(encoder)
    assert quantized.name == encoder.name
    assert quantized.input.name == "image"
    assert 0 < distance(quantized(images), encoder(images)) < 0.05
    kernels = float_kernels(quantized)
    assert set(kernels) == {f"conv{block}" for block in range(1, 6)}
    np.testing.assert_array_equal(kernels["conv2"], encoder.get_layer("conv2").kernel)


def test_quantized_encoder_survives_a_folder_and_is_stripped(encoders: tuple[Any, Any, Any], tmp_path: Path) -> None:
    encoder, quantized, images = encoders
    save_quantized_encoder(quantized, tmp_path)
    loaded = load_quantized_encoder(tmp_path)
    np.testing.assert_array_equal(loaded(images), quantized(images))
    np.testing.assert_array_equal(strip_encoder(loaded)(images), encoder(images))
    with pytest.raises(ArtifactError, match="no whole quantized encoder"):
        load_quantized_encoder(tmp_path / "absent")


def test_training_reaches_the_stripped_encoder(encoders: tuple[Any, Any, Any], tmp_path: Path) -> None:
    _, quantized, images = encoders
    save_quantized_encoder(quantized, tmp_path)
    copy = load_quantized_encoder(tmp_path)
    float_kernels(copy)["conv3"].assign(float_kernels(copy)["conv3"] * 0.5)
    stripped = strip_encoder(copy)
    np.testing.assert_array_equal(stripped.get_layer("conv3").kernel, float_kernels(copy)["conv3"])
    assert distance(stripped(images), quantized(images)) > 0.05


def test_exported_encoder_computes_in_integers(encoders: tuple[Any, Any, Any], tmp_path: Path) -> None:
    _, quantized, images = encoders
    image = keras().layers.Input(quantized.input_shape[1:], name="image")
    # Only a part is quantized: what follows the encoder stays in float.
    projected = keras().layers.Dense(8, name="project")(quantized(image))
    model = keras().Model(image, {"features": projected}, name="encoder")
    expected = model(images).numpy() if not isinstance(model(images), dict) else model(images)["features"].numpy()
    graph = graph_function("encoder", model)
    tflite = tmp_path / export_tflite(graph, Scheme(Precision.INT8_STATIC), NO_CALIBRATION, tmp_path)
    onnx = tmp_path / export_onnx(graph, Scheme(Precision.INT8_STATIC), NO_CALIBRATION, tmp_path)
    by_tflite, tflite_operators = run_tflite(tflite, {"image": images})
    by_onnx, onnx_operators = run_onnx(onnx, {"image": images})
    assert distance(by_tflite["features"], expected) < INTEGER_TOLERANCE
    assert distance(by_onnx["features"], expected) < INTEGER_TOLERANCE
    assert tflite_operators.count(("CONV_2D", np.int8)) == 5
    assert onnx_operators.count("QLinearConv") == 5
    assert "BatchNormalization" not in onnx_operators
    for path in (tflite, onnx):
        assert path.stat().st_size < 0.4 * 4 * model.count_params()


def test_quantizing_twice_is_refused(encoders: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_encoder(encoders[1])


def test_unsupported_layer_is_refused_before_training() -> None:
    layers = keras().layers
    image = layers.Input((8, 8, 3), name="image")
    encoder = keras().Model(image, layers.Rescaling(2.0, name="scale")(image), name="odd")
    with pytest.raises(ConfigError, match="layer 'scale' of type Rescaling"):
        quantize_encoder(encoder)
