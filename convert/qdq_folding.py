"""Rewrites ONNX graphs with QDQ: weights stored as integers, normalizations folded into them, exactly.

tf2onnx leaves the float weights in front of their QuantizeLinear, and a normalization behind a convolution, which
ONNX Runtime then can't fuse into an integer one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.fake_quant import Rounding

_LAYOUT = ("Reshape", "Transpose")


class _Graph:
    """A graph with its constants by name and the readers of each tensor."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.writers = {output: node for node in graph.node for output in node.output}

    def readers(self, name: str) -> list[Any]:
        return [node for node in self.graph.node if name in node.input]

    def add(self, name: str, value: NDArray[Any]) -> str:
        """Store a constant under a name like `name`; return the name."""
        while name in self.constants:
            name += "_"
        self.constants[name] = value
        return name

    def round_again(self, node: Any, before: str, after: str, parameters: list[str]) -> Any:
        """Behind `node`: quantize and dequantize its output `before` to `after`; returns the last node."""
        import onnx

        make, integers = onnx.helper.make_node, f"{before}__integers"
        quantize = make("QuantizeLinear", [before, *parameters], [integers], f"{before}__quantize")
        dequantize = make("DequantizeLinear", [integers, *parameters], [after], f"{before}__dequantize")
        at = list(self.graph.node).index(node) + 1
        self.graph.node.insert(at, dequantize)
        self.graph.node.insert(at, quantize)
        return dequantize

    def only_reader(self, name: str) -> Any:
        """The one node that reads a tensor which is no output, or None."""
        readers = self.readers(name)
        is_output = any(output.name == name for output in self.graph.output)
        return readers[0] if len(readers) == 1 and not is_output else None

    def weights(self, name: str) -> Any:
        """The DequantizeLinear that gives tensor `name` from constants, for one reader; or None."""
        node = self.writers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or self.only_reader(name) is None:
            return None
        return node if all(source in self.constants for source in node.input) else None

    def dequantize(self, node: Any, values: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], **axis: int) -> None:
        """Let a DequantizeLinear start from other integers, scale and zero."""
        import onnx

        names = zip(("integers", "scale", "zero"), values, strict=True)
        node.input[:] = [self.add(f"{node.output[0]}__{name}", value) for name, value in names]
        del node.attribute[:]
        node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in axis.items())

    def store(self) -> None:
        """Write the constants that are still read back as initializers."""
        from onnx import numpy_helper

        read = {name for node in self.graph.node for name in node.input} | {o.name for o in self.graph.output}
        del self.graph.initializer[:]
        self.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
            for name, value in self.constants.items()
            if name in read
        )


def fold_quantized(model: Any) -> Any:
    """All rewrites of this module, in place; returns the model."""
    graph = _Graph(model.graph)
    _fold_constants(graph)
    _fold_layouts(graph)
    _requantize_rows(graph)
    _fold_normalizations(graph)
    _carry_ranges(graph)
    graph.store()
    return model


def _fold_constants(graph: _Graph) -> None:
    """QuantizeLinear of constants, and their reshapes and transposes -> constants."""
    for node in list(graph.graph.node):
        if not node.input or any(name not in graph.constants for name in node.input):
            continue
        values = [graph.constants[name] for name in node.input]
        if node.op_type == "QuantizeLinear":
            graph.constants[node.output[0]] = _quantized(values, _attribute(node, "axis", 0))
        elif node.op_type in _LAYOUT:
            graph.constants[node.output[0]] = _laid_out(node, values[0], values[1:])
        else:
            continue
        graph.graph.node.remove(node)


def _fold_layouts(graph: _Graph) -> None:
    """Weights that are dequantized and then reshaped or transposed -> reshaped integers, dequantized.

    tf2onnx does so for most convolutions, but not behind a padding, nor for those by channel (depthwise).
    """
    for node in [node for node in graph.graph.node if node.op_type in _LAYOUT]:
        weights = graph.weights(node.input[0])
        if weights is None:
            continue
        integers, scale, zero = (graph.constants[name] for name in weights.input)
        axis = {}
        if scale.size == 1:
            scale, zero = scale.reshape(()), zero.reshape(())
        elif node.op_type == "Transpose":
            axis["axis"] = list(_attribute(node, "perm")).index(_attribute(weights, "axis") % integers.ndim)
        else:
            continue
        integers = _laid_out(node, integers, [graph.constants[name] for name in node.input[1:]])
        graph.dequantize(weights, (integers, scale, zero), **axis)
        weights.output[0] = node.output[0]
        graph.writers[node.output[0]] = weights
        graph.graph.node.remove(node)


def _attribute(node: Any, name: str, default: Any = None) -> Any:
    import onnx

    found = [attribute for attribute in node.attribute if attribute.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default


def _laid_out(node: Any, values: NDArray[Any], others: list[NDArray[Any]]) -> NDArray[Any]:
    if node.op_type == "Reshape":
        return values.reshape(others[0])
    return values.transpose(_attribute(node, "perm"))


def _quantized(values: list[NDArray[Any]], axis: int) -> NDArray[Any]:
    floats, scale, zero = values
    shape = [-1 if at == axis % floats.ndim else 1 for at in range(floats.ndim)] if scale.ndim else []
    return Rounding(scale.reshape(shape), zero.reshape(shape)).apply(floats)


def _requantize_rows(graph: _Graph) -> None:
    """Rows that were gathered from an INT8 table -> uint8 for the product that reads them.

    ONNX Runtime multiplies uint8 with int8 only; the table itself stays int8, which a tied output layer can share.
    """
    for node in [node for node in graph.graph.node if node.op_type == "DequantizeLinear"]:
        source = graph.writers.get(node.input[0])
        table = graph.constants.get(source.input[0]) if source is not None and source.op_type == "Gather" else None
        if table is None or table.dtype != np.int8:
            continue
        rows, output, scale = f"{node.output[0]}__rows", node.output[0], node.input[1]
        zero = graph.add(f"{output}__uint8_zero", np.array(128, np.uint8))
        node.output[0] = rows
        graph.round_again(node, rows, output, [scale, zero])


def _carry_ranges(graph: _Graph) -> None:
    """What keeps the values that it is given (and zeros) keeps their range: round to it again, so that it is known."""
    for node in [node for node in graph.graph.node if node.op_type in ("MaxPool", "Pad")]:
        source = graph.writers.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear" or graph.constants[source.input[1]].size > 1:
            continue
        output, before = node.output[0], f"{node.output[0]}__before"
        node.output[0] = before
        last = graph.round_again(node, before, output, list(source.input[1:]))
        graph.writers[output] = last


def _fold_normalizations(graph: _Graph) -> None:
    """Convolution with INT8 weights, then a normalization -> a convolution with a bias.

    The integers keep their values, or change their sign; only the scales of the channels are multiplied. So nothing is
    rounded again.
    """
    for normalization in [node for node in graph.graph.node if node.op_type == "BatchNormalization"]:
        convolution = graph.writers.get(normalization.input[0])
        if convolution is None or convolution.op_type != "Conv" or graph.only_reader(convolution.output[0]) is None:
            continue
        weights = graph.weights(convolution.input[1])
        if weights is None:
            continue
        factor, bias = _affine(graph, normalization)
        if len(convolution.input) > 2:
            bias = bias + graph.constants[convolution.input[2]] * factor
        _multiply_channels(graph, weights, factor)
        name = graph.add(f"{normalization.output[0]}__bias", bias.astype(np.float32))
        convolution.input[:] = [*convolution.input[:2], name]
        convolution.output[0] = normalization.output[0]
        graph.writers[normalization.output[0]] = convolution
        graph.graph.node.remove(normalization)


def _affine(graph: _Graph, normalization: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a normalization multiplies and adds, by channel."""
    scale, offset, mean, variance = (graph.constants[name].astype(np.float64) for name in normalization.input[1:5])
    factor = scale / np.sqrt(variance + _attribute(normalization, "epsilon", 1e-5))
    return factor, offset - mean * factor


def _multiply_channels(graph: _Graph, dequantize: Any, factor: NDArray[Any]) -> None:
    """Multiply the channels (first axis) of INT8 weights that a DequantizeLinear gives, through sign and scale only."""
    integers, scale, _ = (graph.constants[name] for name in dequantize.input)
    signs = np.where(factor < 0, -1, 1).astype(np.int8).reshape((-1, *[1] * (integers.ndim - 1)))
    # A channel that is switched off must not have a scale of zero.
    scales = np.maximum(np.abs(factor) * scale, 1e-20).astype(np.float32)
    graph.dequantize(dequantize, (integers * signs, scales, np.zeros(scales.shape, np.int8)), axis=0)
