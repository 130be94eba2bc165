"""Image -> features: the registry of encoders.

An encoder maps `image`, float32 (batch, height, width, 3) under its preprocessing contract, to raw
features: a grid (batch, cells, channels) or their mean (batch, channels). A new one costs one
function and one line in `ENCODERS`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.errors import ConfigError, unknown_name
from models.keras import keras
from models.preprocessing import Fit, Preprocessing, Resample, Scaling


class FeatureKind(StrEnum):
    """What a decoder looks at."""

    GRID = "grid"  # every cell of the last feature map, for attention
    VECTOR = "vector"  # their mean


@dataclass(frozen=True)
class EncoderEntry:
    """`build(input_shape, weights)` gives a Keras model up to its last feature map."""

    build: Callable[[tuple[int, int, int], str | None], Any]
    preprocessing: Preprocessing
    imagenet_file: str  # name of its ImageNet weights as keras.applications stores them, "" for none
    revision: int = 1  # raised when the same weights give other features, so that captioners are trained anew


def _tiny(input_shape: tuple[int, int, int], weights: str | None) -> Any:
    """Five convolutions for 64 x 64 drawings, 0.2 M parameters, trained with the decoder.

    The last one sees the whole picture, border included, so that a cell of the 4 x 4 grid can know where it is.
    """
    layers = keras().layers
    image = layers.Input(input_shape, name="image")
    x = image
    for block, (filters, stride) in enumerate([(24, 2), (48, 2), (64, 2), (96, 2), (96, 1)], start=1):
        x = layers.Conv2D(filters, 3, stride, "same", use_bias=False, name=f"conv{block}")(x)
        x = layers.BatchNormalization(name=f"norm{block}")(x)
        x = layers.ReLU(name=f"relu{block}")(x)
    return keras().Model(image, x, name="tiny")


def _tiny_vgg(input_shape: tuple[int, int, int], weights: str | None) -> Any:
    """Plain 3 x 3 convolutions and pooling without batch norm, as VGG16 has them; 0.2 M parameters for 64 x 64."""
    layers = keras().layers
    image = layers.Input(input_shape, name="image")
    x = image
    for block, (filters, convolutions) in enumerate([(16, 1), (32, 1), (64, 2), (96, 2)], start=1):
        for index in range(1, convolutions + 1):
            name = f"block{block}_conv{index}"
            x = layers.Conv2D(filters, 3, 1, "same", activation="relu", kernel_initializer="he_normal", name=name)(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras().Model(image, x, name="tiny_vgg")


def _tiny_resnet(input_shape: tuple[int, int, int], weights: str | None) -> Any:
    """Residual blocks with batch norm and projected shortcuts, as ResNet50 has them; 0.3 M parameters for 64 x 64."""
    layers = keras().layers
    image = layers.Input(input_shape, name="image")
    x = layers.Conv2D(24, 3, 2, "same", use_bias=False, name="stem_conv")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    for block, filters in enumerate([48, 64, 96], start=1):
        shortcut = layers.Conv2D(filters, 1, 2, "same", use_bias=False, name=f"block{block}_shortcut")(x)
        shortcut = layers.BatchNormalization(name=f"block{block}_shortcut_norm")(shortcut)
        x = layers.Conv2D(filters, 3, 2, "same", use_bias=False, name=f"block{block}_conv1")(x)
        x = layers.ReLU(name=f"block{block}_relu1")(layers.BatchNormalization(name=f"block{block}_norm1")(x))
        x = layers.Conv2D(filters, 3, 1, "same", use_bias=False, name=f"block{block}_conv2")(x)
        x = layers.BatchNormalization(name=f"block{block}_norm2")(x)
        x = layers.ReLU(name=f"block{block}_relu2")(layers.Add(name=f"block{block}_add")([x, shortcut]))
    return keras().Model(image, x, name="tiny_resnet")


def _application(name: str) -> Callable[[tuple[int, int, int], str | None], Any]:
    def build(input_shape: tuple[int, int, int], weights: str | None) -> Any:
        image = keras().layers.Input(input_shape, name="image")
        return getattr(keras().applications, name)(include_top=False, weights=weights, input_tensor=image)

    return build


# VGG16's last feature map has a standard deviation of 4.0 over Flickr8k, MobileNetV2's 0.6. Features that large drown
# the LSTM's words, which lie between -1 and 1, in a merge: CIDEr 0.28 on the validation split, 0.35 for MobileNetV2's.
_VGG16_SCALE = 0.25


def _vgg16(input_shape: tuple[int, int, int], weights: str | None) -> Any:
    """VGG16 whose features are scaled, at no cost, by the weights of the last convolution.

    A ReLU and a maximum pass a positive factor through, so that nothing else changes (Gatys et al. 2016, "Image style
    transfer using convolutional neural networks", section 2, scale VGG's weights in this way).
    """
    model = _application("VGG16")(input_shape, weights)
    if weights is not None:
        last = model.get_layer("block5_conv3")
        last.set_weights([weight * _VGG16_SCALE for weight in last.get_weights()])
    return model


def _imagenet(scaling: Scaling) -> Preprocessing:
    # 224 x 224 is what the ImageNet weights were trained at; squashing keeps what is at the
    # borders, which a caption may mention.
    return Preprocessing(224, 224, Resample.BILINEAR, Fit.SQUASH, scaling)


_DRAWINGS = Preprocessing(64, 64, Resample.BILINEAR, Fit.SQUASH, Scaling.UNIT)

ENCODERS: dict[str, EncoderEntry] = {
    "tiny": EncoderEntry(_tiny, _DRAWINGS, ""),
    "tiny_vgg": EncoderEntry(_tiny_vgg, _DRAWINGS, ""),
    "tiny_resnet": EncoderEntry(_tiny_resnet, _DRAWINGS, ""),
    "vgg16": EncoderEntry(
        _vgg16, _imagenet(Scaling.CAFFE), "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", revision=2
    ),
    "resnet50": EncoderEntry(
        _application("ResNet50"), _imagenet(Scaling.CAFFE), "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "mobilenet_v2": EncoderEntry(
        _application("MobileNetV2"),
        _imagenet(Scaling.TF),
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ),
}


def encoder_entry(name: str) -> EncoderEntry:
    """Look an encoder up. Raises ConfigError naming the nearest valid name."""
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    return ENCODERS[name]


def build_encoder(name: str, kind: FeatureKind, *, weights: str) -> Any:
    """A Keras model `image` -> raw features.

    `weights`: "random", "imagenet" (downloaded by keras.applications, or found under KERAS_HOME) or the
    path of a Keras weights file. Raises ConfigError when they can't be had.
    """
    entry = encoder_entry(name)
    contract = entry.preprocessing
    try:
        base = entry.build((contract.height, contract.width, 3), _keras_weights(name, entry, weights))
    except (OSError, ValueError, Exception) as error:  # Keras wraps a failed download in a bare Exception
        raise ConfigError(
            f"can't load weights '{weights}' of encoder '{name}': {error}. Without a network, put the "
            'file under $KERAS_HOME/models, give its path as `weights`, or say `weights = "random"`.'
        ) from error
    layers = keras().layers
    grid = base.output
    if kind is FeatureKind.VECTOR:
        features = layers.GlobalAveragePooling2D(name="mean_features")(grid)
    else:
        rows, columns, channels = grid.shape[1:]
        features = layers.Reshape((rows * columns, channels), name="grid_features")(grid)
    return keras().Model(base.input, features, name=f"{name}_{kind.value}")


def _keras_weights(name: str, entry: EncoderEntry, weights: str) -> str | None:
    """What keras.applications takes as `weights`."""
    if weights == "random":
        return None
    if not entry.imagenet_file:
        raise ValueError(f"'{name}' has no published weights")
    if weights == "imagenet":
        # Keras itself looks here only where it may also write.
        found = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / entry.imagenet_file
        return str(found) if found.is_file() else weights
    if not Path(weights).is_file():
        raise ValueError(f"no such file (from {Path.cwd()})")
    return weights
