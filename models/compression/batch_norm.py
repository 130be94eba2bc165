"""Folds batch norms into the convolutions before them, so that a kernel's values are those of the exported file.

Every converter folds; clusters found before folding are then multiplied by a factor for each channel, and 16
values become thousands (reviewers of TF-MOT's clustering said so, github.com/tensorflow/model-optimization#279).
"""

from typing import Any

import numpy as np

from models.keras import keras


def fold_batch_norms(encoder: Any) -> Any:
    """The same function without batch norms that directly follow a convolution; `encoder` itself if none do."""
    norms = {norm.name: conv for conv, norm in _pairs(encoder)}
    if not norms:
        return encoder
    convolutions = {conv.name for conv in norms.values()}
    layers = keras().layers

    def clone(layer: Any) -> Any:
        if layer.name in norms:
            return layers.Activation("linear", name=layer.name)
        config = layer.get_config()
        if layer.name in convolutions:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    folded = keras().models.clone_model(encoder, clone_function=clone)
    for layer in encoder.layers:
        if layer.name not in norms and layer.name not in convolutions:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    for name, conv in norms.items():
        folded.get_layer(conv.name).set_weights(_folded(conv, encoder.get_layer(name)))
    return folded


def _pairs(encoder: Any) -> list[tuple[Any, Any]]:
    """(convolution, batch norm that alone reads it)."""
    layers = keras().layers
    pairs = []
    for norm in encoder.layers:
        if not isinstance(norm, layers.BatchNormalization):
            continue
        source = norm.inbound_nodes[0].inbound_layers
        if isinstance(source, layers.Conv2D | layers.DepthwiseConv2D) and len(source.outbound_nodes) == 1:
            pairs.append((source, norm))
    return pairs


def _folded(conv: Any, norm: Any) -> list[Any]:
    """Kernel and bias. A depthwise kernel (h, w, channels, multiplier) has its channels on the third axis."""
    kernel, *bias = conv.get_weights()
    gamma = norm.gamma.numpy() if norm.scale else 1.0
    beta = norm.beta.numpy() if norm.center else 0.0
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    is_depthwise = isinstance(conv, keras().layers.DepthwiseConv2D)
    shaped = factor.reshape(kernel.shape[2:]) if is_depthwise else factor
    return [kernel * shaped, ((bias[0] if bias else 0.0) - mean) * factor + beta]
