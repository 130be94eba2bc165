"""Rounds an encoder's weights to INT8 before a converter would, and better: `round` needs neither labels nor training.

A converter rounds every weight to the nearest step. In MobileNetV2 that alone costs 8.6 % of the features' energy:
depthwise kernels have nine weights a channel and batch norms that amplify, so the rounding shifts whole channels.
Here layer by layer, on training images and on the inputs that the rounded layers before give:

* the error of each weight is made up for by those not yet rounded (GPTQ, Frantar et al. 2022, arXiv 2210.17323,
  section 3.3: the inverse of the inputs' second moments says how), and
* the bias takes up what the mean output still lacks (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

The converters then find weights on their own grid, max / 127 for each output channel, and change nothing.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.batch_norm import fold_batch_norms
from models.compression.calibration import image_pixels
from models.datasets.base import Split
from models.errors import ConfigError
from models.keras import keras, tensorflow
from models.progress import track

# Training images; their activations are all in memory, one layer of them at a time.
IMAGES = 64
# Patches of each image that tell how inputs vary together.
PATCHES = 128
# Share of the mean second moment that is added to the diagonal (GPTQ, section 3.3, step 3).
DAMPING = 0.01
# Steps to either side of zero, as converters use them: -128 is left out, so that signs are alike.
STEPS = 127

Array = NDArray[np.float32]


def check_round(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for an encoder without a convolution that has one input."""
    if not any(_is_convolution(layer) for layer in captioner.encoder.layers):
        raise ConfigError(f"'{ask}': the encoder has no convolution whose weights could be rounded.")


def round_weights(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """The captioner with the encoder's kernels on the grid of INT8 and its biases corrected."""
    started = time.monotonic()
    images = context.dataset.images(Split.TRAIN)[: int(ask.number("images", IMAGES))]
    pixels = np.asarray(image_pixels(captioner, context, images), np.float32)
    encoder = round_encoder(captioner.encoder, pixels, context.spec.seed)
    seconds = time.monotonic() - started
    return Outcome(replace(captioner, encoder=encoder), seconds=seconds, notes={"images": len(pixels)})


def round_encoder(encoder: Any, pixels: Array, seed: int) -> Any:
    """A rounded copy of `encoder` without batch norms; `pixels`: (images, height, width, 3)."""
    dense = fold_batch_norms(encoder)
    rounded = keras().models.clone_model(dense)
    rounded.set_weights(dense.get_weights())
    random = np.random.default_rng(seed)
    exact, given = {}, {}  # activations by layer, of the dense and of the rounded encoder
    readers = _readers(dense)
    for layer in track(dense.layers, "rounding layers"):
        twin = rounded.get_layer(layer.name)
        sources = _sources(layer)
        if not sources:
            exact[layer.name] = given[layer.name] = tensorflow().constant(pixels)
            continue
        inputs = [given[source] for source in sources]
        exact[layer.name] = _call(layer, [exact[source] for source in sources])
        if _is_convolution(layer):
            _round_kernel(twin, inputs[0], random)
            _correct_bias(twin, exact[layer.name], _call(twin, inputs))
        given[layer.name] = _call(twin, inputs)
        for source in sources:
            readers[source] -= 1
            if not readers[source]:
                del exact[source], given[source]
    return rounded


def _is_convolution(layer: Any) -> bool:
    layers = keras().layers
    kinds = (layers.Conv2D, layers.DepthwiseConv2D)
    return isinstance(layer, kinds) and not isinstance(layer, layers.Conv2DTranspose) and layer.groups == 1


def _sources(layer: Any) -> list[str]:
    """Names of the layers that a layer reads; the encoder is one graph, in which each layer is used once."""
    found = layer.inbound_nodes[0].inbound_layers
    return [source.name for source in (found if isinstance(found, list | tuple) else [found])]


def _readers(encoder: Any) -> dict[str, int]:
    """How many layers read each layer."""
    names = [source for layer in encoder.layers for source in _sources(layer)]
    return {name: names.count(name) for name in names}


def _call(layer: Any, inputs: list[Any]) -> Any:
    return layer(inputs if len(inputs) > 1 else inputs[0], training=False)


def _round_kernel(layer: Any, inputs: Any, random: np.random.Generator) -> None:
    """Put the kernel of a convolution on its grid, in place."""
    kernel, *rest = layer.get_weights()
    height, width, channels, outputs = kernel.shape
    patches = np.concatenate(list(_patches(layer, inputs, random)))
    if isinstance(layer, keras().layers.DepthwiseConv2D):  # each channel by itself
        rows = patches.reshape(-1, height * width, channels).transpose(2, 0, 1)
        weights = kernel.reshape(height * width, channels, outputs).transpose(1, 0, 2)
        found = round_columns(weights, rows).transpose(1, 0, 2)
    else:
        found = round_columns(kernel.reshape(1, -1, outputs), patches[None])
    layer.set_weights([found.reshape(kernel.shape), *rest])


def _patches(layer: Any, inputs: Any, random: np.random.Generator) -> Iterator[Array]:
    """What a kernel is multiplied with at some places of each image: (places, height * width * channels)."""
    for image in inputs:
        found = tensorflow().image.extract_patches(
            image[None],
            [1, *layer.kernel_size, 1],
            [1, *layer.strides, 1],
            [1, *layer.dilation_rate, 1],
            layer.padding.upper(),
        )
        places = found.numpy().reshape(-1, found.shape[-1])
        yield places[random.choice(len(places), min(PATCHES, len(places)), replace=False)]


def round_columns(weights: Array, rows: Array) -> Array:
    """Weights (groups, inputs, outputs) on the grid of max / 127 for each output, given rows (groups, n, inputs).

    Rounds input by input; what an input's rounding changes is made up for by the inputs after it.
    """
    left = weights.astype(np.float32).copy()
    step = np.abs(left).max(axis=1) / STEPS  # (groups, outputs)
    step[step == 0] = 1
    largest = np.abs(weights).argmax(axis=1)[:, None]
    upper = _compensation(rows)
    for i in range(left.shape[1]):
        wanted = left[:, i].copy()
        left[:, i] = np.clip(np.round(wanted / step), -STEPS, STEPS) * step
        error = (wanted - left[:, i]) / upper[:, i, i, None]
        left[:, i + 1 :] -= upper[:, i, i + 1 :, None] * error[:, None]
    # The largest weight sets the grid, and stays.
    np.put_along_axis(left, largest, np.take_along_axis(weights, largest, axis=1), axis=1)
    return left


def _compensation(rows: Array) -> Array:
    """The upper Cholesky factor of the inverse second moments (groups, inputs, inputs); the bias has the mean."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    moments = np.matmul(centred.transpose(0, 2, 1), centred) / rows.shape[1]
    mean = np.einsum("gii->g", moments) / moments.shape[1]
    damping = np.maximum(DAMPING * mean, 1e-8)[:, None, None]
    inverse = np.linalg.inv(moments.astype(np.float64) + damping * np.eye(moments.shape[1]))
    return np.linalg.cholesky(inverse).transpose(0, 2, 1).astype(np.float32)


def _correct_bias(layer: Any, exact: Any, given: Any) -> None:
    """Let a layer's mean output of each channel be the dense one's, where it has a bias."""
    if not layer.use_bias:
        return
    kernel, bias = layer.get_weights()
    missing = tensorflow().reduce_mean(exact - given, axis=(0, 1, 2)).numpy()
    layer.set_weights([kernel, bias + missing])
