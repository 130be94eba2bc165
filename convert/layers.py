"""Which operators of a converted graph come from a Keras layer: converters keep the layer's name in a path."""

from collections.abc import Collection, Iterable
from typing import Any

from models.errors import ConfigError, unknown_name


def quantizable_layers(model: Any) -> list[str]:
    """Names of the layers of a Keras graph that hold a kernel or a table, in the order of the graph."""
    names: list[str] = []
    for layer in model.layers:
        if hasattr(layer, "layers"):  # a model inside of the model
            names += quantizable_layers(layer)
        elif any(len(weight.shape) >= 2 for weight in layer.weights):
            names.append(layer.name)
    return list(dict.fromkeys(names))


def check_layers(model: Any, names: Iterable[str]) -> None:
    """Raises ConfigError for a name that is no layer with a kernel or a table."""
    known = quantizable_layers(model)
    for name in names:
        if name not in known:
            raise unknown_name("layer", name, known)


def belongs_to(path: str, layers: Iterable[str]) -> bool:
    """Whether a name like `model/conv_1/Conv2D` has one of these layers among its parts."""
    parts = set(path.replace(";", "/").split("/"))
    return any(layer in parts for layer in layers)


def nodes_of_layers(model: Any, layers: Iterable[str]) -> list[str]:
    """Names of the nodes of an ONNX model that come from these layers. Raises ConfigError when a layer has none.

    tf2onnx names a depthwise convolution with a bias `Conv__12`; what it gives or its bias still has the layer's name.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    named = {node.name: _paths(node, constants) for node in model.graph.node}
    names: list[str] = []
    for layer in layers:
        found = [node for node, paths in named.items() if any(belongs_to(path, [layer]) for path in paths)]
        if not found:
            raise ConfigError(f"no operator of the ONNX graph comes from the layer '{layer}'.")
        names += found
    return names


def _paths(node: Any, constants: Collection[str]) -> list[str]:
    """What may hold a layer's name: layers share equal constants, so theirs count for the nameless alone."""
    paths = [node.name, *node.output]
    return paths if "/" in "".join(paths) else [*paths, *(name for name in node.input if name in constants)]
