"""`adapt`: a decoder trains on the features of an INT8 encoder, which are simulated as the converters round."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SCENES, tiny_spec
from numpy.typing import NDArray

from bench.quality import cider_mean
from convert.artifact import ENCODER
from convert.calibration import Calibration
from convert.graphs import GraphFunction
from convert.scheme import Precision, Scheme
from convert.store import Entry
from convert.to_tflite import export_tflite
from models.captioner import Captioner, load_captioner
from models.compression.adaptation import adapt
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.chain import parse_technique
from models.compression.change import Change
from models.compression.compress import compressions
from models.compression.finetuning import FineTuning
from models.compression.int8_encoder import STEPS, int8_encoder
from models.compression.registry import TECHNIQUES
from models.compression.weights import all_weights
from models.datasets import open_dataset
from models.encoders import FeatureKind, build_encoder
from models.errors import ConfigError
from models.spec import EncoderTraining

Array = NDArray[np.float32]
Compressed = Callable[[str, str], Entry]


def noise(found: Array, wanted: Array) -> float:
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


@pytest.fixture(scope="module")
def pixels() -> Array:
    return np.random.default_rng(0).random((16, 64, 64, 3), np.float32)


def decoder_weights(captioner: Captioner) -> dict[str, Array]:
    return {f"{w.layer}/{w.name}": w.values for w in all_weights(captioner) if w.half is Scope.DECODER}


@pytest.mark.parametrize("name", ["tiny", "tiny_vgg", "tiny_resnet"])
@pytest.mark.parametrize("kind", list(FeatureKind))
def test_simulation_rounds_every_kernel_and_every_tensor(name: str, kind: FeatureKind, pixels: Array) -> None:
    encoder = build_encoder(name, kind, weights="random")
    simulated = int8_encoder(encoder, pixels)
    assert simulated.input_shape == encoder.input_shape
    assert simulated.output_shape == encoder.output_shape
    for layer in simulated.layers:
        kernels = [weight for weight in layer.get_weights() if weight.ndim == 4]
        for kernel in kernels:
            flat = kernel.reshape(-1, kernel.shape[-1])
            steps = flat / (np.abs(flat).max(axis=0) / STEPS)
            np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    given = simulated(pixels, training=False).numpy()
    assert len(np.unique(given)) <= 256
    assert 0 < noise(given, encoder(pixels, training=False).numpy()) < 0.05


@pytest.mark.parametrize("name", ["tiny", "tiny_vgg", "tiny_resnet"])
def test_simulation_is_as_noisy_as_the_converters_file(name: str, pixels: Array, tmp_path: Path) -> None:
    """Bit for bit it can't be: one rounding that falls otherwise changes all that come after."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    encoder = build_encoder(name, FeatureKind.GRID, weights="random")
    signature = {"image": tf.TensorSpec([None, 64, 64, 3], tf.float32, name="image")}
    call = tf.function(lambda feeds: {"features": encoder(feeds["image"])}, input_signature=[signature])
    feeds = [{"image": image[None]} for image in pixels]
    scheme = Scheme(Precision.INT8_STATIC)
    graph = GraphFunction(ENCODER, encoder, call, signature)
    path = tmp_path / export_tflite(graph, scheme, Calibration({ENCODER: feeds}), tmp_path)
    runner = Interpreter(str(path)).get_signature_runner()
    converted = np.concatenate([runner(image=image[None])["features"] for image in pixels])
    wanted = encoder(pixels, training=False).numpy()
    simulated = int8_encoder(encoder, pixels)(pixels, training=False).numpy()
    assert 0.6 < noise(simulated, wanted) / noise(converted, wanted) < 1.6


def test_ranges_are_told_apart_by_weights(pixels: Array) -> None:
    """Cached features go by an encoder's weights, and other ranges give other features."""
    encoder = build_encoder("tiny", FeatureKind.GRID, weights="random")
    wide, narrow = (int8_encoder(encoder, images).get_weights() for images in (pixels, pixels / 2))
    assert any(not np.array_equal(a, b) for a, b in zip(wide, narrow, strict=True))


def test_adapted_decoder_keeps_the_encoder_bit_by_bit(
    compressed: Compressed, captioner: Callable[[str], Captioner]
) -> None:
    adapted, dense = load_captioner(compressed("none/adapt(epochs=1)", "attention").path), captioner("attention")
    for mine, theirs in zip(adapted.encoder.get_weights(), dense.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [layer.name for layer in adapted.encoder.layers] == [layer.name for layer in dense.encoder.layers]
    before = decoder_weights(dense)
    assert any(not np.array_equal(values, before[name]) for name, values in decoder_weights(adapted).items())
    (record,) = compressions(adapted.card)
    assert (record["scope"], record["technique"], record["epochs"]) == ("decoder", "adapt(epochs=1)", 1)


def test_weights_are_averaged_as_in_training_or_not_at_all() -> None:
    spec = replace(tiny_spec("merge"), weight_averaging=0.9)
    context = Context(open_dataset("scenes", None, TINY_SCENES), Path(), Path(), cider_mean, spec)
    for averaged, momentum in ((True, 0.9), (False, 0.0)):
        tuning = FineTuning.of(Ask("adapt"), share=1, at_least=1, rate=1, averaged=averaged)
        assert tuning.spec(Ask("adapt"), context, EncoderTraining.FROZEN).weight_averaging == momentum


def test_zeros_of_a_pruned_decoder_stay(compressed: Compressed) -> None:
    adapted = load_captioner(compressed("none/prune80(epochs=4)+adapt(epochs=1)", "merge").path)
    values = decoder_weights(adapted)["words/kernel"]
    assert np.mean(values == 0) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("chain", "simulated", "averaged"),
    [
        ("none/adapt", True, True),
        ("qat(images=48,epochs=1)/adapt", False, True),
        ("none/prune80(epochs=4)+adapt", True, False),  # a mean of weights would fill the zeros
    ],
)
def test_decoder_learns_behind_the_rounded_encoder(
    compressed: Compressed,
    monkeypatch: pytest.MonkeyPatch,
    chain: str,
    simulated: bool,
    averaged: bool,
) -> None:
    """One that was trained to round is taken as it is."""
    seen: list[tuple[Captioner, FineTuning]] = []

    def fine_tune(
        captioner: Captioner, ask: Ask, scope: Scope, context: Context, tuning: FineTuning, change: Change
    ) -> Outcome:
        seen.append((captioner, tuning))
        return Outcome(captioner)

    monkeypatch.setattr("models.compression.adaptation.fine_tune", fine_tune)
    compressed(f"{chain}(rate=0.125)", "merge")  # an ask that no other test has in the store
    ((captioner, tuning),) = seen
    assert any(layer.name.endswith("_int8") for layer in captioner.encoder.layers) is simulated
    assert tuning.averaged is averaged


def test_an_encoder_is_never_adapted() -> None:
    with pytest.raises(ConfigError, match="works on the decoder, not on the encoder alone"):
        parse_technique("adapt/none", TECHNIQUES)
    assert adapt.__doc__
    assert str(Ask("adapt")) == "adapt"
