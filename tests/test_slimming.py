"""Structured pruning: the graph shrinks by the share asked for, and what was dead goes without a trace."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.captioner import Captioner
from models.compression.channels import map_channels
from models.compression.decoder_axes import decoder_axes, slim_decoder, units_for_share
from models.compression.operations import multiply_adds
from models.compression.slimming import narrow_encoder, slim_encoder
from models.decoders import DECODERS, DecoderConfig, build_decoder
from models.encoders import ENCODERS, FeatureKind, build_encoder
from models.errors import ConfigError
from models.keras import keras

RAW = {FeatureKind.GRID: (16, 24), FeatureKind.VECTOR: (24,)}


def config_of(kind: str, **changed: Any) -> DecoderConfig:
    return DecoderConfig(kind, RAW[DECODERS[kind].feature_kind], 60, 32, 64, 32, 0.0, **changed)


def chain_of_convolutions() -> Any:
    layers = keras().layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", name="first")(image)
    x = layers.Conv2D(32, 3, 2, padding="same", name="second")(x)
    return keras().Model(image, layers.Reshape((-1, 32), name="grid_features")(x), name="chain")


def test_multiply_adds_are_those_counted_by_hand() -> None:
    assert multiply_adds(chain_of_convolutions()) == 8 * 8 * 16 * 27 + 4 * 4 * 32 * 9 * 16


@pytest.mark.parametrize(
    ("name", "published"),
    [("vgg16", 15.35e9), ("mobilenet_v2", 0.30e9), ("resnet50", 3.86e9)],  # convolutional parts at 224 x 224
)
def test_multiply_adds_of_known_encoders(name: str, published: float) -> None:
    assert multiply_adds(build_encoder(name, FeatureKind.VECTOR, weights="random")) == pytest.approx(
        published, rel=0.01
    )


@pytest.mark.parametrize("kind", DECODERS)
def test_step_counts_its_lstm_and_dense_layers(kind: str) -> None:
    step = multiply_adds(build_decoder(config_of(kind)).step)
    lstm = 32 * 256 + 64 * 256
    rest = {"merge": 64 * 64 + 64 * 60, "attention": 64 * 32 + 16 * 32 + 128 * 64 + 64 * 60}
    assert step == lstm + rest[kind]


@pytest.mark.parametrize("name", ENCODERS)
def test_slim_encoder_has_the_share_asked_for(name: str) -> None:
    dense = build_encoder(name, FeatureKind.GRID, weights="random")
    slim = slim_encoder(dense, share=0.5)
    assert 0.42 < multiply_adds(slim) / multiply_adds(dense) <= 0.5
    assert slim.output_shape == dense.output_shape
    assert slim.input.name == dense.input.name
    assert slim.count_params() < 0.66 * dense.count_params()


def inverted_residual() -> Any:
    """Expansion, depthwise, projection and a skip, as MobileNetV2's blocks, with batch norms that do something."""
    layers = keras().layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="r0")(layers.BatchNormalization(name="n0")(layers.Conv2D(16, 3, 2, "same", name="c0")(image)))
    y = layers.ReLU(6.0, name="r1")(layers.BatchNormalization(name="n1")(layers.Conv2D(32, 1, name="c1")(x)))
    y = layers.ZeroPadding2D(1, name="pad")(y)
    y = layers.BatchNormalization(name="n2")(layers.DepthwiseConv2D(3, name="d2", use_bias=False)(y))
    y = layers.BatchNormalization(name="n3")(layers.Conv2D(16, 1, name="c3")(layers.ReLU(6.0, name="r2")(y)))
    x = layers.Add(name="add")([x, y])
    x = layers.Conv2D(24, 1, name="c4")(x)
    return keras().Model(image, layers.GlobalAveragePooling2D(name="mean_features")(x), name="inverted")


def randomise(model: Any, random: np.random.Generator) -> None:
    for weight in model.weights:
        weight.assign(random.uniform(0.2, 1.0, weight.shape) * random.choice([-1, 1], weight.shape))
        if "variance" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))


def kill(layer: Any, dead: Any, *, depthwise: bool = False) -> None:
    """Zero what a layer puts out in some channels."""
    values = layer.get_weights()
    for index, value in enumerate(values):
        value = value.copy()
        if depthwise and value.ndim == 4:
            value[:, :, dead] = 0
        else:
            value[..., dead] = 0
        values[index] = value
    layer.set_weights(values)


def kill_norm(layer: Any, dead: Any) -> None:
    gamma, beta, mean, variance = layer.get_weights()
    gamma[dead], beta[dead], mean[dead] = 0, 0, 0
    layer.set_weights([gamma, beta, mean, variance])


def test_dead_filters_go_without_a_trace() -> None:
    random = np.random.default_rng(0)
    model = inverted_residual()
    randomise(model, random)
    trunk, inner = np.arange(1, 16, 2), np.arange(0, 32, 2)  # half of each group, so that half can stay
    for name in ("c0", "c3"):
        kill(model.get_layer(name), trunk)
    for name in ("n0", "n3"):
        kill_norm(model.get_layer(name), trunk)
    kill(model.get_layer("c1"), inner)
    kill(model.get_layer("d2"), inner, depthwise=True)
    for name in ("n1", "n2"):
        kill_norm(model.get_layer(name), inner)
    slim = slim_encoder(model, share=0.5)
    assert [slim.get_layer(name).filters for name in ("c0", "c3", "c4")] == [8, 8, 24]
    pixels = random.random((4, 8, 8, 3), np.float32)
    np.testing.assert_allclose(slim(pixels), model(pixels), rtol=1e-5, atol=1e-5)  # fp32, summed in another order


@pytest.mark.parametrize("output", ["dense", "tied"])
@pytest.mark.parametrize("kind", DECODERS)
def test_dead_units_go_without_a_trace(kind: str, output: str) -> None:
    random = np.random.default_rng(1)
    config = config_of(kind, output=output)
    decoder = build_decoder(config)
    randomise(decoder.sequence, random)
    dead = {space: random.permutation(64)[:32] for space in ("lstm", "grid", "hidden")}
    for name, axes in decoder_axes(config).items():
        layer = decoder.sequence.get_layer(name)
        weights = layer.get_weights()
        for weight, spaces in zip(weights, axes, strict=True):
            for axis, label in enumerate(spaces):
                spaces_of_axis = [label[2:]] * 4 if label.startswith("4 ") else label.split()
                for number, space in enumerate(spaces_of_axis):
                    np.moveaxis(weight, axis, 0)[dead[space] + 64 * number] = 0
        layer.set_weights(weights)
    slim, smaller = slim_decoder(decoder, config, units=32)
    assert smaller.units == 32
    raw = random.random((2, *config.raw_shape), np.float32)
    tokens = random.integers(4, 60, (2, 7)).astype(np.int32)
    np.testing.assert_allclose(slim.sequence([raw, tokens]), decoder.sequence([raw, tokens]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_units_are_as_many_as_the_share_allows(kind: str) -> None:
    config = config_of(kind)
    dense = multiply_adds(build_decoder(config).step)
    units = units_for_share(config, 0.5)
    assert multiply_adds(build_decoder(replace(config, units=units)).step) <= 0.5 * dense
    assert multiply_adds(build_decoder(replace(config, units=units + 8)).step) > 0.5 * dense


def test_narrow_encoder_has_the_shape_but_not_the_weights() -> None:
    dense = build_encoder("tiny_resnet", FeatureKind.VECTOR, weights="random")
    narrow = narrow_encoder(dense, share=0.25)
    assert multiply_adds(narrow) <= 0.25 * multiply_adds(dense)
    assert narrow.output_shape == dense.output_shape


def test_slim_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    slim = slim_encoder(build_encoder("tiny_resnet", FeatureKind.GRID, weights="random"), share=0.4)
    slim.save(tmp_path / "encoder.keras")
    loaded = keras().models.load_model(tmp_path / "encoder.keras", compile=False)
    pixels = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    np.testing.assert_array_equal(loaded(pixels), slim(pixels))


def test_layer_whose_channels_are_not_understood_is_refused() -> None:
    layers = keras().layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2DTranspose(8, 3, name="up")(layers.Conv2D(8, 3, name="down")(image))
    model = keras().Model(image, layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ConfigError, match="layer 'up' of type Conv2DTranspose; known are"):
        map_channels(model)


def test_layer_that_is_used_twice_is_refused() -> None:
    layers = keras().layers
    image = layers.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(16, 3, padding="same", name="shared")
    x = layers.Conv2D(16, 3, padding="same", name="first")(image)
    model = keras().Model(image, layers.GlobalAveragePooling2D()(shared(shared(x))))
    with pytest.raises(ConfigError, match="layer 'shared' is used 2 times"):
        map_channels(model)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        slim_encoder(chain_of_convolutions(), share=share)


def test_share_out_of_reach_is_refused(captioner: Callable[[str], Captioner]) -> None:
    with pytest.raises(ConfigError, match="can't be slimmed to 1%"):
        slim_encoder(captioner("merge").encoder, share=0.01)
    with pytest.raises(ConfigError, match="Keep a larger share, or reduce the vocabulary"):
        units_for_share(captioner("merge").config, 0.01)
