"""Quantization-aware dense, embedding and LSTM layers: they round in training as the INT8 graph will round.

TF-MOT can't quantize an LSTM or an embedding, so these layers place its operation (FakeQuant, Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference", arXiv 1712.05877)
themselves, where the converters want it: around every matrix product. Two things differ from TF-MOT's own quantizers,
both so that a short fine-tuning works: the range of an activation starts as that of the first batch (TF-MOT starts at
-6..6 and moves by a thousandth a batch), and the range of a weight is always that of its present values (TF-MOT keeps
that of the last training batch, which is one update old and wrong after weights are copied). Gates and cell state of
the LSTM, softmax and tanh stay in float: they hold no weights and cost little.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from numpy.typing import NDArray

from models.keras import keras, tensorflow
from models.layers import Arithmetic, FloatLayers, LayerFactory
from models.quantized_lstm import cell_class, lstm_class
from models.rounding import RANGES, TANH_RANGE, ActivationRange, round_fixed, round_weights, rounding_class, unflat


class QuantizedLayers:
    """The LayerFactory of Arithmetic.INT8 (all layers) and INT8_DENSE (dense and tied words only)."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._others: LayerFactory | None = FloatLayers() if arithmetic is Arithmetic.INT8_DENSE else None

    def dense(self, units: int, name: str, *, activation: str | None = None, use_bias: bool = True) -> Any:
        """See LayerFactory."""
        if units == 1:
            return _score_class()(units, activation=activation, use_bias=use_bias, name=name)
        return _dense_class()(units, activation, use_bias, name=name)

    def embedding(self, words: int, size: int, name: str) -> Any:
        """See LayerFactory."""
        if self._others:
            return self._others.embedding(words, size, name)
        return _embedding_class()(words, size, name=name)

    def lstm(self, units: int, name: str) -> Any:
        """See LayerFactory."""
        if self._others:
            return self._others.lstm(units, name)
        return lstm_class()(cell_class()(units, name="lstm_cell"), return_sequences=True, name=name)

    def tied_words(self, embedding: Any, name: str) -> Any:
        """See LayerFactory."""
        return _tied_words_class()(embedding, name=name)


def float_weights(layer: Any) -> list[NDArray[Any]]:
    """What the float layer of the same name holds, in its order: kernel, (recurrent kernel,) bias, or table."""
    return [variable.numpy() for variable in float_variables(layer)]


def float_variables(layer: Any) -> list[Any]:
    """The variables of `float_weights`: all of a layer's but its ranges."""
    return [variable for variable in layer.weights if not variable.name.split(":")[0].endswith(RANGES)]


def copy_float_weights(source: Any, target: Any) -> None:
    """Give layer `target` the weights of layer `source`; either may be float or quantized. Ranges stay as they are.

    Raises ValueError when the shapes differ.
    """
    values, variables = float_weights(source), float_variables(target)
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        shapes = [value.shape for value in values], [tuple(variable.shape) for variable in variables]
        raise ValueError(f"layer '{source.name}' does not fit '{target.name}': weights {shapes[0]} and {shapes[1]}")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def settle_ranges(model: Any, batches: Iterable[Any]) -> None:
    """Take the ranges of a model's quantized layers anew: the average over `batches` of its inputs, without dropout.

    Dropout scales up what it keeps, so ranges that were learned under it are too wide for what is deployed. Call this
    when weights were copied in, and again after training.
    """
    dropouts = [layer for layer in model.layers if isinstance(layer, keras().layers.Dropout)]
    rates = [layer.rate for layer in dropouts]
    for variable in model.weights:
        if variable.name.split(":")[0].endswith("range_batches"):
            variable.assign(0)
    try:
        for layer in dropouts:
            layer.rate = 0
        for batch in batches:
            model(batch, training=True)
    finally:
        for layer, rate in zip(dropouts, rates, strict=True):
            layer.rate = rate


@cache
def _score_class() -> Any:
    tf = tensorflow()

    class Score(keras().layers.Dense):  # type: ignore[misc]
        """One output stays in float: it has few weights, and TFLite would give the softmax after it 8 bits, too.

        Not by Keras' Dense: at the reshapes that it needs, TFLite's converter rounds the tanh before it as well. Not by
        `tf.matmul` either: TF 2.21 corrupts memory when it broadcasts a matrix of one column.
        """

        def call(self, inputs: Any) -> Any:
            product = tf.reduce_sum(inputs * self.kernel[:, 0], axis=-1, keepdims=True)
            return self.activation(product if self.bias is None else product + self.bias)

    return Score


@cache
def _dense_class() -> Any:
    tf = tensorflow()

    class QuantizedDense(rounding_class()):  # type: ignore[misc]
        """Rounds inputs, kernel and x W + b; a relu comes before the last rounding, a tanh after it."""

        def __init__(self, units: int, activation: str | None, use_bias: bool, **options: Any) -> None:
            super().__init__(**options)
            if activation not in (None, "relu", "tanh"):
                raise ValueError(f"a quantized dense layer ends in None, 'relu' or 'tanh'; received '{activation}'.")
            self.units, self.use_bias, self._activation = units, use_bias, activation

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight("kernel", (input_shape[-1], self.units), initializer="glorot_uniform")
            self.bias = self.add_weight("bias", (self.units,), initializer="zeros") if self.use_bias else None
            self.add_input_range()
            self._output = ActivationRange(self, "output")
            super().build(input_shape)

        def call(self, inputs: Any, training: Any = None) -> Any:
            rows, leading = self.round_input(inputs, training)
            product = tf.matmul(rows, round_weights(self.kernel))
            if self.bias is not None:
                product = tf.nn.bias_add(product, self.bias)
            if self._activation == "relu":
                product = tf.nn.relu(product)
            result = self._output.round(product, training)
            if self._activation == "tanh":
                result = round_fixed(tf.tanh(result), TANH_RANGE)
            return unflat(result, leading)

    return QuantizedDense


@cache
def _tied_words_class() -> Any:
    tf = tensorflow()

    class QuantizedTiedWords(rounding_class()):  # type: ignore[misc]
        """See `models.layers.tied_words_layer`; the table is rounded by its one scale."""

        def __init__(self, embedding: Any, **options: Any) -> None:
            super().__init__(**options)
            self._words = embedding.input_dim

            def table() -> Any:  # a function, or Keras would count the embedding's table as this layer's, too
                return embedding.embeddings

            self._table = table

        def build(self, input_shape: Any) -> None:
            self.bias = self.add_weight("bias", (self._words,), initializer="zeros")
            self.add_input_range()
            self._output = ActivationRange(self, "output")
            super().build(input_shape)

        def call(self, inputs: Any, training: Any = None) -> Any:
            rows, leading = self.round_input(inputs, training)
            product = tf.matmul(rows, round_weights(self._table()), transpose_b=True)
            return unflat(self._output.round(tf.nn.bias_add(product, self.bias), training), leading)

    return QuantizedTiedWords


@cache
def _embedding_class() -> Any:
    class QuantizedEmbedding(keras().layers.Embedding):  # type: ignore[misc]
        """Rounds the rows that were looked up, not the table: that is where a graph should dequantize."""

        rounds_output = True

        def call(self, inputs: Any) -> Any:
            rows: Any = super().call(inputs)
            return round_weights(self.embeddings, rows)

    return QuantizedEmbedding
