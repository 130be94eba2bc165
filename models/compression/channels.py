"""Which channels of a convolutional network must go together: the groups that structured pruning removes from.

Every tensor of the graph has a space of channels. A convolution makes a new one; batch norms, activations, pooling and
depthwise convolutions carry theirs on; an addition makes those of its inputs one. A space that reaches the
network's input or output can't lose channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import ConfigError

# Class names of layers by what they do to channels; a closed list, so that nothing is sliced wrongly in silence.
_MAKES = ("Conv2D",)
_CARRIES = (
    "BatchNormalization",
    "ReLU",
    "Activation",
    "MaxPooling2D",
    "AveragePooling2D",
    "ZeroPadding2D",
    "Dropout",
    "DepthwiseConv2D",
    "GlobalAveragePooling2D",
    "Reshape",
)
_JOINS = ("Add",)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that exist or vanish together; `makers` are the convolutions that put them out."""

    channels: int
    makers: tuple[str, ...]


@dataclass(frozen=True)
class ChannelMap:
    """Groups, and for each layer with weights the group of what it reads and of what it puts out (None: fixed)."""

    groups: tuple[ChannelGroup, ...]
    reads: Mapping[str, int | None]
    writes: Mapping[str, int | None]


def map_channels(encoder: Any) -> ChannelMap:
    """The channel groups of an encoder. Raises ConfigError for a layer whose channels are not understood."""
    spaces = _Spaces()
    for layer in encoder.layers:
        _visit(spaces, layer)
    spaces.join("fixed", spaces.of[encoder.layers[0].name])
    spaces.join("fixed", spaces.of[encoder.output._keras_history.layer.name])
    return _as_map(encoder, spaces)


class _Spaces:
    """Union-find over the names of layers; `of` gives the space of a layer's output."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {"fixed": "fixed"}
        self.of: dict[str, str] = {}

    def new(self, layer: str) -> None:
        """A space of its own."""
        self.parent[layer] = layer
        self.of[layer] = layer

    def find(self, space: str) -> str:
        """The representative."""
        while self.parent[space] != space:
            space = self.parent[space]
        return space

    def join(self, one: str, other: str) -> None:
        """Make two spaces one; a fixed one stays the representative."""
        first, second = self.find(one), self.find(other)
        if second == "fixed":
            first, second = second, first
        self.parent[second] = first


def _visit(spaces: _Spaces, layer: Any) -> None:
    kind = type(layer).__name__
    if len(layer.inbound_nodes) > 1:
        raise ConfigError(
            f"layer '{layer.name}' is used {len(layer.inbound_nodes)} times; its filters can't be removed."
        )
    if getattr(layer, "depth_multiplier", 1) != 1 or getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ConfigError(f"layer '{layer.name}': only channels_last and a depth multiplier of 1 are understood.")
    if kind == "InputLayer" or kind in _MAKES:
        if getattr(layer, "groups", 1) != 1:
            raise ConfigError(f"layer '{layer.name}' is a grouped convolution, whose filters can't be removed alone.")
        spaces.new(layer.name)
        return
    if kind not in _CARRIES + _JOINS:
        known = ", ".join(_MAKES + _CARRIES + _JOINS)
        raise ConfigError(f"can't remove filters around layer '{layer.name}' of type {kind}; known are {known}.")
    sources = [spaces.of[name] for name in inputs_of(layer)]
    for other in sources[1:]:
        spaces.join(sources[0], other)
    spaces.of[layer.name] = sources[0]


def inputs_of(layer: Any) -> list[str]:
    """Names of the layers whose outputs a layer reads."""
    layers = layer.inbound_nodes[0].inbound_layers
    return [source.name for source in (layers if isinstance(layers, list) else [layers])]


def _as_map(encoder: Any, spaces: _Spaces) -> ChannelMap:
    makers: dict[str, list[Any]] = {}
    for layer in encoder.layers:
        if type(layer).__name__ in _MAKES:
            makers.setdefault(spaces.find(layer.name), []).append(layer)
    makers.pop("fixed", None)
    index = {space: number for number, space in enumerate(makers)}
    weighted = [layer for layer in encoder.layers if layer.weights]
    return ChannelMap(
        tuple(ChannelGroup(int(m[0].filters), tuple(layer.name for layer in m)) for m in makers.values()),
        {layer.name: index.get(spaces.find(spaces.of[inputs_of(layer)[0]])) for layer in weighted},
        {layer.name: index.get(spaces.find(spaces.of[layer.name])) for layer in weighted},
    )
