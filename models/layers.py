"""What decoders are built of: the layers of an arithmetic, chosen by name, so that every decoder has them all.

A factory makes the layers that hold weights. A new arithmetic costs one class and one line in `FACTORIES`.
"""

from enum import StrEnum
from typing import Any, Protocol

from models.keras import keras, tensorflow


class Arithmetic(StrEnum):
    """How the numbers of some layers are rounded while they run."""

    FLOAT = "float"
    INT8 = "int8"  # rounded to learned INT8 ranges, every layer with weights: quantization-aware
    INT8_DENSE = "int8_dense"  # only the dense layers, as the 2020 study did


class Output(StrEnum):
    """What turns the last hidden vector into a logit for each word."""

    DENSE = "dense"
    TIED = "tied"  # a projection to the embedding's width, then the embedding itself


class LayerFactory(Protocol):
    """Makes named Keras layers; a decoder takes its layers from one only."""

    def dense(self, units: int, name: str, *, activation: str | None = None, use_bias: bool = True) -> Any:
        """A dense layer."""

    def embedding(self, words: int, size: int, name: str) -> Any:
        """Ids -> vectors."""

    def lstm(self, units: int, name: str) -> Any:
        """A whole-sequence LSTM layer whose `cell` runs one step with the same weights."""

    def tied_words(self, embedding: Any, name: str) -> Any:
        """Vectors of the embedding's width -> logits, through the embedding layer's own table."""


class FloatLayers:
    """Keras' own layers."""

    def dense(self, units: int, name: str, *, activation: str | None = None, use_bias: bool = True) -> Any:
        """See LayerFactory."""
        return keras().layers.Dense(units, activation=activation, use_bias=use_bias, name=name)

    def embedding(self, words: int, size: int, name: str) -> Any:
        """See LayerFactory."""
        return keras().layers.Embedding(words, size, name=name)

    def lstm(self, units: int, name: str) -> Any:
        """See LayerFactory."""
        return keras().layers.LSTM(units, return_sequences=True, name=name)

    def tied_words(self, embedding: Any, name: str) -> Any:
        """See LayerFactory."""
        return tied_words_layer(embedding, name)


def tied_words_layer(embedding: Any, name: str) -> Any:
    """x (batch, ..., size) -> x E' + b with the table E (words, size) of an embedding layer.

    Press and Wolf 2017, "Using the output embedding to improve language models" (arXiv 1608.05859).
    """
    tf = tensorflow()

    class TiedWords(keras().layers.Layer):  # type: ignore[misc]
        multiply_adds = embedding.input_dim * embedding.output_dim

        def build(self, input_shape: Any) -> None:
            self.bias = self.add_weight(name="bias", shape=(embedding.input_dim,), initializer="zeros")
            super().build(input_shape)

        def call(self, inputs: Any) -> Any:
            return tf.matmul(inputs, embedding.embeddings, transpose_b=True) + self.bias

    return TiedWords(name=name)


def layer_factory(arithmetic: str) -> LayerFactory:
    """The factory of an arithmetic."""
    if Arithmetic(arithmetic) is Arithmetic.FLOAT:
        return FloatLayers()
    from models.quantized_layers import QuantizedLayers

    return QuantizedLayers(Arithmetic(arithmetic))
