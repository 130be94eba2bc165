"""Rounding as in training for INT8: learned ranges, weights' own ranges, and the layer that rounds its input.

The operation is TF-MOT's (FakeQuant); see `models.quantized_layers` for what differs.
"""

from functools import cache
from typing import Any

from models.keras import keras, tensorflow

# A range forgets a batch at this rate, once it has seen enough batches to have an average.
DECAY = 0.99
# Ranges are at least this wide, so that no scale is zero.
SMALLEST = 1e-6
# What tanh, sigmoid and their product h can be, whatever the weights: nothing to learn. TFLite's INT8 kernels of
# tanh and sigmoid know no other ranges, and its converter takes these kernels wherever the result is rounded.
TANH_RANGE = (-1.0, 127 / 128)
SIGMOID_RANGE = (0.0, 255 / 256)
RANGES = ("range_min", "range_max", "range_batches")


@cache
def _tf() -> Any:
    """TensorFlow, from inside a layer's call: AutoGraph would rewrite `tensorflow()`, and complain that it can't."""
    return tensorflow()


class ActivationRange:
    """8 bits, asymmetric, over a moving average of the batches' ranges; zero is always exactly representable."""

    def __init__(self, layer: Any, name: str) -> None:
        def add(suffix: str, value: float) -> Any:
            start = keras().initializers.Constant(value)
            return layer.add_weight(f"{name}_{suffix}", (), initializer=start, trainable=False)

        self._low, self._high, self._batches = (add(*item) for item in zip(RANGES, (-6.0, 6.0, 0.0), strict=True))

    def observe(self, low: Any, high: Any) -> None:
        """Move towards the range of one batch: the plain mean of the first batches, then an exponential one."""
        tf = _tf()
        rate = tf.maximum(1 / (self._batches + 1), 1 - DECAY)
        self._low.assign_add(rate * (tf.minimum(low, 0.0) - self._low))
        self._high.assign_add(rate * (tf.maximum(high, SMALLEST) - self._high))
        self._batches.assign_add(1)

    def round(self, tensor: Any, training: Any = False) -> Any:
        """Round to the range; in training the batch's own range counts first."""
        tf = _tf()
        if training:
            self.observe(tf.reduce_min(tensor), tf.reduce_max(tensor))
        return tf.quantization.fake_quant_with_min_max_vars(tensor, self._low, self._high)


def round_weights(weights: Any, tensor: Any = None) -> Any:
    """8 bits, symmetric, one scale for all of `weights`: for them, or for a `tensor` that was taken out of them.

    One for each output would round better, but TFLite's converter fails to transpose such a kernel
    ("'tfl.transpose' op has mismatched quantized axes of input and output"); TF-MOT's Dense has one, too.
    """
    tf = _tf()
    limit = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(weights)), SMALLEST))
    tensor = weights if tensor is None else tensor
    return tf.quantization.fake_quant_with_min_max_vars(tensor, -limit, limit, narrow_range=True)


def round_fixed(tensor: Any, limits: tuple[float, float]) -> Any:
    """8 bits over a range that is known beforehand."""
    return _tf().quantization.fake_quant_with_min_max_args(tensor, *limits)


def flat(tensor: Any) -> tuple[Any, list[Any]]:
    """Tensor (..., size) as rows (n, size), and the shape before; converters find integer products of matrices only."""
    tf = _tf()
    known, shape = tensor.shape.as_list(), tf.shape(tensor)
    # At most one -1, so that a step with a free batch reshapes by constants.
    leading = [size if size is not None else shape[axis] for axis, size in enumerate(known[:-1])]
    if known[:-1].count(None) == 1:
        leading = [-1 if size is None else size for size in known[:-1]]
    return (tensor if len(known) == 2 else tf.reshape(tensor, (-1, known[-1]))), leading


def unflat(rows: Any, leading: list[Any]) -> Any:
    """Undo `flat`: rows (n, size) -> (..., size)."""
    return rows if len(leading) == 1 else _tf().reshape(rows, [*leading, rows.shape[-1]])


def was_rounded(tensor: Any) -> bool:
    """Whether a tensor of a Keras graph comes straight from a layer that rounds its output.

    Such a tensor is not rounded again: both converters would drop that, so training must not know it either. Dropout
    may lie between; it is not in the deployed graph, and its scaling then meets no range that would have to grow.
    """
    through = (keras().layers.Dropout, keras().layers.Reshape)
    while hasattr(tensor, "_keras_history"):
        layer = tensor._keras_history.layer
        if not isinstance(layer, through):
            return getattr(layer, "rounds_output", False)
        tensor = layer.input
    return False


@cache
def rounding_class() -> Any:
    """The base class of layers that hold weights; made late, because Keras is imported late."""

    class RoundingLayer(keras().layers.Layer):  # type: ignore[misc]
        """Rounds its input to a learned range, unless the first graph that it is part of has done so already."""

        rounds_output = True
        input_was_rounded = False

        def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
            if not self.built:
                self.input_was_rounded = self.input_was_rounded or was_rounded(inputs)
            return super().__call__(inputs, *others, **options)

        def add_input_range(self) -> None:
            """To be called once, when the layer is built."""
            self._input = None if self.input_was_rounded else ActivationRange(self, "input")

        def round_input(self, inputs: Any, training: Any) -> tuple[Any, list[Any]]:
            """Tensor (..., size) as rounded rows (n, size), and the shape before."""
            rows, leading = flat(inputs)
            return (rows if self._input is None else self._input.round(rows, training)), leading

    return RoundingLayer
