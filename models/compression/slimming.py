"""Structured pruning of encoders: whole filters go, and an ordinary smaller Keras model is left.

Filters are ranked by norm (Li et al. 2017, "Pruning filters for efficient ConvNets", arXiv 1608.08710) within groups
that must go together; every group keeps the same share, which is found from the share of multiply-adds asked for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compression.channels import ChannelGroup, ChannelMap, map_channels
from models.compression.operations import multiply_adds
from models.errors import ConfigError
from models.keras import keras

# CPU kernels work in blocks of 8 or 16 channels (16 floats fill an AVX-512 register), which a broken block wastes.
# (channels of a group from which on, block)
BLOCKS = ((64, 16), (16, 8), (0, 4))
_BISECTIONS = 30


def slim_encoder(encoder: Any, *, share: float) -> Any:
    """`encoder` with at most `share` (0..1) of its multiply-adds, its least filters removed; same inputs and outputs.

    Raises ConfigError for a share outside (0, 1) or out of reach, and for layers that are not understood.
    """
    channels = map_channels(encoder)
    counts = _counts(encoder, channels, share)
    kept = [_most_important(encoder, g, n) for g, n in zip(channels.groups, counts, strict=True)]
    slim = _build(encoder, channels, counts)
    for layer in encoder.layers:
        if layer.weights:
            slim.get_layer(layer.name).set_weights(_sliced(layer, channels, kept))
    return slim


def narrow_encoder(encoder: Any, *, share: float) -> Any:
    """The same architecture with at most `share` of the multiply-adds and fresh weights. Raises ConfigError."""
    if share >= 1:
        return keras().models.clone_model(encoder)
    channels = map_channels(encoder)
    return _build(encoder, channels, _counts(encoder, channels, share))


def _counts(encoder: Any, channels: ChannelMap, share: float) -> list[int]:
    """Channels that each group keeps: one share of all, as large as the multiply-adds allow."""
    if not 0 < share < 1:
        raise ConfigError(f"the share of multiply-adds must lie between 0 and 1; received {share:g}.")
    wanted = share * multiply_adds(encoder)
    costs = [_cost(layer, channels) for layer in encoder.layers if layer.weights]

    def cost(counts: Sequence[int]) -> float:
        return sum(_scaled(one, counts) for one in costs)

    low, high = 0.0, 1.0
    if cost([_rounded(group.channels, low) for group in channels.groups]) > wanted:
        raise ConfigError(
            f"'{encoder.name}' can't be slimmed to {share:.0%} of its multiply-adds: its first and last layers alone "
            "need more. Keep a larger share."
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if cost([_rounded(group.channels, middle) for group in channels.groups]) <= wanted:
            low = middle
        else:
            high = middle
    return _filled(channels, [_rounded(group.channels, low) for group in channels.groups], cost, wanted)


def _filled(channels: ChannelMap, counts: list[int], cost: Any, wanted: float) -> list[int]:
    """Rounding leaves room: give blocks back to the groups that lost the largest share, while they fit."""
    open_groups = set(range(len(counts)))
    while open_groups:
        index = min(open_groups, key=lambda i: counts[i] / channels.groups[i].channels)
        more = list(counts)
        more[index] = min(counts[index] + _block(channels.groups[index].channels), channels.groups[index].channels)
        if more != counts and cost(more) <= wanted:
            counts = more
        else:
            open_groups.remove(index)
    return counts


def _block(channels: int) -> int:
    return next(block for least, block in BLOCKS if channels >= least)


def _rounded(channels: int, share: float) -> int:
    """That share of the channels in whole blocks, at least one."""
    block = _block(channels)
    return min(channels, max(block, int(channels * share) // block * block))


Cost = tuple[float, int | None, int, int | None, int]  # dense cost; (group, dense channels) read and written


def _cost(layer: Any, channels: ChannelMap) -> Cost:
    kind = type(layer).__name__
    if kind == "DepthwiseConv2D":  # each channel costs on its own
        dense, read = layer.depthwise_kernel.shape[-2], None
    elif kind == "Conv2D":
        dense, read = layer.filters, channels.reads[layer.name]
    else:
        return 0.0, None, 1, None, 1
    positions = int(np.prod(layer.output_shape[1:3]))
    kernel = layer.weights[0].shape
    return float(positions * np.prod(kernel)), read, kernel[-2], channels.writes[layer.name], dense


def _scaled(cost: Cost, counts: Sequence[int]) -> float:
    total, read, read_channels, written, written_channels = cost
    if read is not None:
        total *= counts[read] / read_channels
    if written is not None:
        total *= counts[written] / written_channels
    return total


def _most_important(encoder: Any, group: ChannelGroup, count: int) -> NDArray[np.intp]:
    """Indices of the channels to keep, ascending; coupled convolutions vote with norms of the same mean."""
    importance = np.zeros(group.channels)
    for name in group.makers:
        norms = _filter_norms(encoder.get_layer(name))
        importance += norms / max(float(norms.mean()), 1e-12)
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def _filter_norms(conv: Any) -> NDArray[np.float64]:
    """L2 norm of each filter, as the batch norm that follows scales it."""
    kernel = conv.weights[0].numpy().astype(np.float64)
    norms = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    for node in conv.outbound_nodes:
        following = node.outbound_layer
        if isinstance(following, keras().layers.BatchNormalization):
            gamma = following.gamma.numpy() if following.scale else 1.0
            norms = norms * np.abs(gamma) / np.sqrt(following.moving_variance.numpy() + following.epsilon)
    result: NDArray[np.float64] = norms
    return result


def _build(encoder: Any, channels: ChannelMap, counts: Sequence[int]) -> Any:
    """The architecture with other numbers of filters and fresh weights."""
    output = encoder.output._keras_history.layer.name

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        group = channels.writes.get(layer.name)
        if group is not None and "filters" in config:
            config["filters"] = counts[group]
        if layer.name == output and "target_shape" in config:
            config["target_shape"] = tuple(encoder.output_shape[1:])
        return layer.__class__.from_config(config)

    return keras().models.clone_model(encoder, clone_function=clone)


def _sliced(layer: Any, channels: ChannelMap, kept: Sequence[NDArray[np.intp]]) -> list[NDArray[Any]]:
    """The weights of a layer without the channels that went."""
    read, written = channels.reads[layer.name], channels.writes[layer.name]
    kind = type(layer).__name__
    weights = []
    for weight in layer.get_weights():
        if kind == "DepthwiseConv2D" and weight.ndim == 4:
            weight = _take(weight, written, 2, kept)
        elif weight.ndim == 4:
            weight = _take(_take(weight, read, 2, kept), written, 3, kept)
        else:  # a bias, or one of a batch norm's vectors
            weight = _take(weight, written, 0, kept)
        weights.append(weight)
    return weights


def _take(weight: NDArray[Any], group: int | None, axis: int, kept: Sequence[NDArray[np.intp]]) -> NDArray[Any]:
    return weight if group is None else np.take(weight, kept[group], axis=axis)
