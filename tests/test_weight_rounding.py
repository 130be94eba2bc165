"""`round`: kernels on the grid that converters use, outputs nearer to the dense ones than nearest rounding gives."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from convert.store import Entry
from models.captioner import Captioner, load_captioner
from models.compression.batch_norm import fold_batch_norms
from models.compression.compress import compressions
from models.compression.weight_rounding import STEPS, round_columns, round_encoder
from models.encoders import FeatureKind, build_encoder

Array = NDArray[np.float32]


def nearest(weights: Array) -> Array:
    step = np.abs(weights).max(axis=1, keepdims=True) / STEPS
    rounded: Array = np.round(weights / np.where(step, step, 1)) * step
    return rounded


def off_grid(kernel: Array) -> float:
    """The largest distance from the grid of max / 127 of each output, in steps."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    steps = flat / (np.abs(flat).max(axis=0) / STEPS)
    return float(np.abs(steps - np.round(steps)).max())


# Weights so small that a step of theirs has no exact float32 (below 2^-126 digits are lost) are left out.
WEIGHTS = st.just(0.0) | st.floats(2**-20, 2, width=32) | st.floats(-2, -(2**-20), width=32)


@given(arrays(np.float32, (2, 6, 3), elements=WEIGHTS), st.integers(0, 99))
def test_columns_land_on_their_own_grid_and_the_largest_stays(weights: Array, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(2, 40, 6)).astype(np.float32)
    found = round_columns(weights, rows)
    step = np.abs(weights).max(axis=1, keepdims=True) / STEPS
    np.testing.assert_allclose(np.abs(found).max(axis=1), np.abs(weights).max(axis=1), rtol=1e-5)
    whole = found / np.where(step, step, 1)
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)


def test_inputs_that_vary_together_make_up_for_each_other() -> None:
    random = np.random.default_rng(0)
    rows = (random.normal(size=(1, 500, 4)) @ random.normal(size=(4, 16))).astype(np.float32)
    weights = random.normal(size=(1, 16, 8)).astype(np.float32)

    def error(found: Array) -> float:
        return float(np.square(rows @ (found - weights)).sum())

    assert error(round_columns(weights, rows)) < error(nearest(weights)) / 4


@pytest.mark.parametrize("name", ["tiny", "tiny_vgg", "tiny_resnet"])
def test_encoder_is_rounded_whole_and_keeps_its_features(name: str) -> None:
    encoder = build_encoder(name, FeatureKind.GRID, weights="random")
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        if "gamma" in weight.name or "variance" in weight.name:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    pixels = random.random((12, *encoder.input_shape[1:]), np.float32)
    rounded, dense = round_encoder(encoder, pixels, seed=0), fold_batch_norms(encoder)
    for layer in rounded.layers:
        if "Conv2D" in type(layer).__name__ and "Depthwise" not in type(layer).__name__:
            assert off_grid(layer.get_weights()[0]) < 1e-3, layer.name
    wanted, found = dense(pixels).numpy(), rounded(pixels).numpy()
    assert np.square(found - wanted).sum() / np.square(wanted).sum() < 1e-3
    # Biases were corrected: each feature's mean stays.
    np.testing.assert_allclose(found.mean(axis=(0, 1)), wanted.mean(axis=(0, 1)), atol=1e-3 * np.abs(wanted).max())


def test_a_captioner_is_rounded_without_training(
    compressed: Callable[[str, str], Entry], captioner: Callable[[str], Captioner]
) -> None:
    rounded = load_captioner(compressed("round/none", "attention").path)
    (record,) = compressions(rounded.card)
    assert (record["scope"], record["epochs"], record["notes"]) == ("encoder", 0, {"images": 48})
    dense = captioner("attention")
    pixels = np.random.default_rng(0).random((2, *dense.encoder.input_shape[1:]), np.float32)
    wanted = dense.encoder(pixels).numpy()
    error = rounded.encoder(pixels).numpy() - wanted
    assert 0 < np.square(error).sum() / np.square(wanted).sum() < 1e-2
