"""What an encoder gives once its file is INT8: the same layers, weights and tensors rounded as converters round them.

For training what comes after it. Weights: symmetric, one scale for each output channel; tensors: asymmetric, one scale,
over what training images were seen to reach (Jacob et al. 2018, arXiv 1712.05877, sections 2.1 and 3.1).
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compression.batch_norm import fold_batch_norms
from models.compression.channels import inputs_of
from models.keras import keras, tensorflow
from models.rounding import SMALLEST

# Class names of layers whose outputs a file holds as integers; what else there is passes integers on.
_ROUNDED = ("InputLayer", "Conv2D", "DepthwiseConv2D", "ReLU", "Activation", "Add", "GlobalAveragePooling2D")
# A convolution followed by one of these alone is one operator with it, whose sums are never stored.
_FUSED = ("ReLU", "Activation")
# Steps to either side of zero; -128 is left out, so that signs are alike.
STEPS = 127
BATCH = 8

Range = tuple[float, float]


def int8_encoder(encoder: Any, pixels: NDArray[np.floating[Any]]) -> Any:
    """A Keras model from pixels to the features of an INT8 file; ranges are those that `pixels` (n, h, w, 3) show."""
    dense = fold_batch_norms(encoder)
    ranges = _record_ranges(dense, pixels)
    outputs: dict[str, Any] = {}
    for layer in dense.layers:
        sources = [] if type(layer).__name__ == "InputLayer" else [outputs[name] for name in inputs_of(layer)]
        outputs[layer.name] = _rounded_output(layer, sources, ranges.get(layer.name))
    image = outputs[dense.layers[0].name]
    features = outputs[dense.output._keras_history.layer.name]
    source = image if dense.layers[0].name not in ranges else image._keras_history.layer.input
    return keras().Model(source, features, name=encoder.name)


def _rounded_output(layer: Any, sources: list[Any], seen: Range | None) -> Any:
    """The tensor of a copy of `layer` with rounded weights, rounded itself where a file would hold it."""
    twin = layer.__class__.from_config(layer.get_config())
    tensor = twin(sources if len(sources) > 1 else sources[0]) if sources else twin.output
    twin.set_weights([_on_grid(layer, weight) for weight in layer.get_weights()])
    return tensor if seen is None else _rounding_class()(*seen, name=f"{layer.name}_int8")(tensor)


def _on_grid(layer: Any, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A kernel rounded to max / 127 of each output channel; biases are sums of 32 bits, and stay."""
    if weight.ndim != 4:
        return weight
    depthwise = isinstance(layer, keras().layers.DepthwiseConv2D)
    step = np.abs(weight).max(axis=(0, 1) if depthwise else (0, 1, 2), keepdims=True) / STEPS
    step[step == 0] = 1
    rounded: NDArray[np.float32] = (np.round(weight / step) * step).astype(np.float32)
    return rounded


def _record_ranges(encoder: Any, pixels: NDArray[np.floating[Any]]) -> dict[str, Range]:
    """Lowest and highest value, zero between them, of each layer whose output a file holds as integers."""
    layers = [layer for layer in encoder.layers if _is_stored(layer)]
    watched = keras().Model(encoder.input, [layer.output for layer in layers])
    ranges = {layer.name: (0.0, SMALLEST) for layer in layers}
    for start in range(0, len(pixels), BATCH):
        batch = np.asarray(pixels[start : start + BATCH], np.float32)
        for layer, tensor in zip(layers, watched(batch, training=False), strict=True):
            low, high = ranges[layer.name]
            values = tensor.numpy()
            ranges[layer.name] = (min(low, float(values.min())), max(high, float(values.max())))
    return ranges


def _is_stored(layer: Any) -> bool:
    """Whether a file holds what a layer gives: not the sums of a convolution that an activation takes alone."""
    readers = [node.layer for node in layer.outbound_nodes]
    fused = len(readers) == 1 and type(readers[0]).__name__ in _FUSED
    return type(layer).__name__ in _ROUNDED and not fused


@cache
def _rounding_class() -> Any:
    """Made late, because Keras is imported late."""
    tf = tensorflow()

    class RoundedTensor(keras().layers.Layer):  # type: ignore[misc]
        """8 bits over a fixed range, which is kept as weights: who asks for a model's weights sees its ranges too."""

        def __init__(self, low: float, high: float, **options: Any) -> None:
            super().__init__(**options)
            constant = keras().initializers.Constant
            self.low = self.add_weight("low", (), initializer=constant(low), trainable=False)
            self.high = self.add_weight("high", (), initializer=constant(high), trainable=False)

        def call(self, inputs: Any) -> Any:
            return tf.quantization.fake_quant_with_min_max_vars(inputs, self.low, self.high)

    return RoundedTensor
