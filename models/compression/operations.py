"""Counts the multiply-adds of a Keras graph: what a compression should lower, whatever the machine."""

from typing import Any

from models.keras import keras


def multiply_adds(model: Any) -> int:
    """Multiply-adds of one input (an image, or one decoding step) of a functional model.

    Conv2D, DepthwiseConv2D, Dense and LSTM cells count, which are all the products with weights that captioners here
    have; attention's weighted mean of the grid does not. An LSTM over a sequence counts as one step.
    """
    return sum(_node_cost(layer, node) for layer in model.layers for node in _nodes(model, layer))


def _nodes(model: Any, layer: Any) -> list[Any]:
    """The calls of a layer that are part of this model: shared layers are called in several."""
    return [
        node for index, node in enumerate(layer.inbound_nodes) if f"{layer.name}_ib-{index}" in model._network_nodes
    ]


def _node_cost(layer: Any, node: Any) -> int:
    if hasattr(layer, "layers"):
        return multiply_adds(layer)
    inner = getattr(layer, "layer", layer)
    layers = keras().layers
    if isinstance(inner, layers.DepthwiseConv2D):
        return _positions(node) * _size(inner.depthwise_kernel.shape)
    if isinstance(inner, layers.Conv2D):
        return _positions(node) * _size(inner.kernel.shape)
    cell = getattr(inner, "cell", inner)
    if hasattr(cell, "recurrent_kernel"):
        return _size(cell.kernel.shape) + _size(cell.recurrent_kernel.shape)
    if hasattr(inner, "kernel") and len(inner.kernel.shape) == 2:
        return _size(node.output_shapes[1:-1]) * _size(inner.kernel.shape)
    return getattr(inner, "multiply_adds", 0)  # layers of our own say it themselves


def _positions(node: Any) -> int:
    """Places of the output map."""
    return _size(node.output_shapes[1:3])


def _size(shape: Any) -> int:
    """Product of the known lengths; a free one (words of a sequence) counts once."""
    product = 1
    for length in shape:
        product *= int(length) if length is not None else 1
    return product
