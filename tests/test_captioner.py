"""Encoders, decoders and captioners: what every one of the registries must hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.captioner import (
    ENCODER_FILE,
    FILES,
    Captioner,
    caption_features,
    initial_inputs,
    load_captioner,
    save_captioner,
)
from models.decoders import DECODERS, DecoderConfig, build_decoder, build_prefix
from models.decoding import Search
from models.encoders import ENCODERS, FeatureKind, build_encoder
from models.errors import ArtifactError, ConfigError
from models.keras import keras
from models.vocabulary import PAD, START

RAW_SHAPES = {FeatureKind.GRID: (6, 10), FeatureKind.VECTOR: (10,)}


def config(kind: str) -> DecoderConfig:
    return DecoderConfig(kind, RAW_SHAPES[DECODERS[kind].feature_kind], 20, 8, 12, 7, 0.3)


def run(graph: Any, feeds: Any) -> dict[str, Any]:
    return {name: value.numpy() for name, value in graph(feeds, training=False).items()}


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, FeatureKind.GRID) for name in ENCODERS), ("tiny", FeatureKind.VECTOR)]
)
def test_encoder_gives_features_of_its_kind(name: str, kind: FeatureKind) -> None:
    encoder = build_encoder(name, kind, weights="random")
    contract = ENCODERS[name].preprocessing
    assert encoder.input_shape == (None, contract.height, contract.width, 3)
    assert len(encoder.output_shape) == (3 if kind is FeatureKind.GRID else 2)
    assert None not in encoder.output_shape[1:]


@pytest.mark.parametrize("name", [name for name, entry in ENCODERS.items() if entry.imagenet_file])
def test_encoder_weights_that_are_missing_are_told(name: str) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.h5.*no such file"):
        build_encoder(name, FeatureKind.GRID, weights="nowhere.h5")


def test_encoder_without_published_weights_says_so() -> None:
    with pytest.raises(ConfigError, match="no published weights"):
        build_encoder("tiny", FeatureKind.GRID, weights="imagenet")


def test_vgg16_gives_its_features_scaled_and_otherwise_unchanged(tmp_path: Path) -> None:
    plain = keras().applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    plain.save_weights(tmp_path / "vgg16.h5")
    scaled = ENCODERS["vgg16"].build((64, 64, 3), str(tmp_path / "vgg16.h5"))
    pixels = np.random.default_rng(3).uniform(-120, 140, (2, 64, 64, 3)).astype(np.float32)
    wanted = plain(pixels, training=False).numpy() / 4
    np.testing.assert_allclose(scaled(pixels, training=False).numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", DECODERS)
def test_step_gives_what_the_whole_sequence_gives(kind: str) -> None:
    """What is deployed is what was trained: the same logits, word by word."""
    decoder = build_decoder(config(kind))
    random = np.random.default_rng(1)
    raw = random.random((3, *config(kind).raw_shape), np.float32)
    tokens = random.integers(4, 20, (3, 5)).astype(np.int32)
    expected = decoder.sequence([raw, tokens], training=False).numpy()
    inputs = dict(initial_inputs(run(decoder.prepare, raw), 12))
    for place in range(5):
        outputs = run(decoder.step, {**inputs, "token": tokens[:, place]})
        # fp32 sums in another order
        np.testing.assert_allclose(outputs.pop("logits"), expected[:, place], atol=1e-5)
        inputs |= outputs


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_looks_at_the_image(kind: str) -> None:
    decoder = build_decoder(config(kind))
    raw = np.random.default_rng(2).random((2, *config(kind).raw_shape), np.float32)
    logits = decoder.sequence([raw, np.full((2, 1), START, np.int32)], training=False).numpy()
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_prefix_gives_what_the_step_gives() -> None:
    decoder = build_decoder(config("merge"))
    prefix = build_prefix(decoder, config("merge"), length=7)
    raw = np.random.default_rng(3).random((1, 10), np.float32)
    tokens = np.array([[START, 5, 9, PAD, PAD, PAD, PAD]], np.int32)
    prepared = run(decoder.prepare, raw)
    expected = decoder.sequence([raw, tokens[:, :3]], training=False).numpy()[:, 2]
    logits = run(prefix, {**prepared, "prefix": tokens, "position": np.array([2], np.int32)})["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_prefix_is_refused_for_attention() -> None:
    with pytest.raises(ConfigError, match="received 'attention'"):
        build_prefix(build_decoder(config("attention")), config("attention"), length=7)


def test_unknown_decoder_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'merge'"):
        build_decoder(DecoderConfig("merg", (10,), 20))


@pytest.mark.parametrize("decoder", DECODERS)
def test_load_returns_what_was_saved(captioner: Callable[[str], Captioner], tmp_path: Path, decoder: str) -> None:
    original = captioner(decoder)
    save_captioner(original, tmp_path)
    loaded = load_captioner(tmp_path)
    assert (loaded.vocabulary, loaded.config, loaded.preprocessing) == (
        original.vocabulary,
        original.config,
        original.preprocessing,
    )
    raw = np.random.default_rng(4).random((3, *original.config.raw_shape), np.float32)
    said = [caption_features(c, raw, search=Search.BEAM3) for c in (original, loaded)]
    assert said[0] == said[1]


@pytest.mark.parametrize("name", [*FILES, ENCODER_FILE])
def test_load_refuses_a_captioner_with_a_missing_file(
    captioner: Callable[[str], Captioner], tmp_path: Path, name: str
) -> None:
    save_captioner(captioner("merge"), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_captioner(tmp_path)
