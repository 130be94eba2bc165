"""The INT8 layers of an ONNX file as `convert.saturation` looks at them: weights in the kernels' order, and feeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert import readback_onnx
from convert.stored_weights import DENSE, EMBEDDING, StoredWeight
from models.errors import ArtifactError

Outputs = Mapping[str, NDArray[Any]]

# Positions of one feed that are looked at in each layer.
POSITIONS = 256
# They move numbers and compute none, so that ONNX Runtime fuses what lies behind them all the same.
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Slice", "Gather")
_INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger")
_FLOAT_OPERATORS = ("Conv", "MatMul", "Gemm")


class Kernel(StrEnum):
    """How ONNX Runtime's x86 kernels without VNNI add the products of a layer."""

    PAIRS = "pairs in int16"
    DEPTHWISE = "depthwise: one by one in int32"
    WIDE = "widened before: signed activations or unsigned weights"


@dataclass(frozen=True)
class QuantizedLayer:
    """An operator that multiplies 8-bit activations by constant 8-bit weights."""

    name: str
    operator: str
    kernel: Kernel
    weights: NDArray[Any]  # (outputs, inputs of the group) integers in the kernels' order
    scales: NDArray[np.float32]  # (outputs,)
    source: str  # tensor: the integers of the activations, or floats that lie on their grid
    scale: float | str  # of the activations, or the tensor that holds it
    zero: float | str
    offset: int  # what makes the activations unsigned: 128 for signed ones
    window: "Window | None"  # of a convolution
    groups: int

    @property
    def weights_by_group(self) -> list[NDArray[Any]]:
        """Weights (outputs of the group, inputs)."""
        return np.split(self.weights, self.groups)

    @property
    def scales_by_group(self) -> list[NDArray[np.float32]]:
        """Scales (outputs of the group,)."""
        return np.split(self.scales, self.groups)

    @property
    def tensors(self) -> list[str]:
        """The tensors of the graph that `rows` and `activation_scale` need."""
        return [self.source, *(name for name in (self.scale, self.zero) if isinstance(name, str))]

    def activation_scale(self, outputs: Outputs) -> float:
        """The step of the activations."""
        return float(outputs[self.scale].item()) if isinstance(self.scale, str) else self.scale

    def rows(self, outputs: Outputs, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Activations (positions, groups, inputs of a group) of positions drawn from one run."""
        zero = float(outputs[self.zero].item()) if isinstance(self.zero, str) else self.zero
        values = outputs[self.source]
        if values.dtype.kind == "f":
            values = np.rint(values / self.activation_scale(outputs)) + zero
        integers = (values.astype(np.int32) + self.offset).astype(np.uint8)
        if self.window is None:
            rows = integers.reshape(-1, integers.shape[-1])
            return rows[_draw(len(rows), rng)][:, None]
        return self.window.rows(integers, int(zero) + self.offset, self.groups, rng)


@dataclass(frozen=True)
class Window:
    """The geometry of a two-dimensional convolution."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int] | None  # top, left, bottom, right; None for as many as keep the size
    is_lower: bool  # whether the odd one of these lies at the top and left

    def rows(self, images: NDArray[np.uint8], zero: int, groups: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Windows (positions, groups, height * width * channels) of images (n, channels, height, width)."""
        top, left, bottom, right = self.pads or self._same(images.shape[2:])
        padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=zero)
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        sizes = [(padded.shape[axis + 2] - reach[axis]) // self.strides[axis] + 1 for axis in (0, 1)]
        drawn = np.unravel_index(_draw(len(images) * sizes[0] * sizes[1], rng), (len(images), *sizes))
        y, x = (
            drawn[axis + 1][:, None] * self.strides[axis] + np.arange(self.kernel[axis]) * self.dilations[axis]
            for axis in (0, 1)
        )
        # Channels last, as the kernels read them: (positions, height, width, channels).
        windows = padded.transpose(0, 2, 3, 1)[drawn[0][:, None, None], y[:, :, None], x[:, None, :]]
        by_group = windows.reshape(*windows.shape[:3], groups, -1)
        rows: NDArray[np.uint8] = np.moveaxis(by_group, 3, 1).reshape(len(windows), groups, -1)
        return rows

    def _same(self, size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Padding of ONNX' SAME_UPPER and SAME_LOWER."""
        before, after = [], []
        for axis in (0, 1):
            count = -(-size[axis] // self.strides[axis])
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            total = max((count - 1) * self.strides[axis] + reach - size[axis], 0)
            small, large = total // 2, total - total // 2
            before.append(large if self.is_lower else small)
            after.append(small if self.is_lower else large)
        return before[0], before[1], after[0], after[1]


def quantized_layers(path: Path) -> list[QuantizedLayer]:
    """The layers with integer weights, in the order of the graph. Raises ArtifactError."""
    model = readback_onnx.load_model(path)
    weights = {reader.output: reader.weight for reader in readback_onnx.readers(path)}
    graph = readback_onnx.Graph(model.graph)
    found = []
    for node in model.graph.node:
        weight = weights.get(node.output[0]) if node.op_type in (*_INTEGER_OPERATORS, *_FLOAT_OPERATORS) else None
        if weight is not None and weight.integers is not None and weight.operator != EMBEDDING:
            layer = _layer(graph, node, weight, weight.integers)
            found += [layer] if layer else []
    return found


def open_with_outputs(path: Path, layers: Sequence[QuantizedLayer]) -> Callable[[Mapping[str, Any]], Outputs]:
    """A function feed -> the tensors that these layers need. Raises ArtifactError for a file that does not run."""
    import onnx
    import onnxruntime

    model = readback_onnx.load_model(path)
    names = list(dict.fromkeys(name for layer in layers for name in layer.tensors))
    known = {value.name for value in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types
        raise ArtifactError(f"onnxruntime can't run {path}: {error}. Build it again.") from error
    computed = [name for name in names if name not in {value.name for value in model.graph.input}]

    def run(feed: Mapping[str, Any]) -> Outputs:
        return dict(feed) | dict(zip(computed, session.run(computed, dict(feed)), strict=True))

    return run


def _layer(graph: Any, node: Any, weight: StoredWeight, integers: NDArray[Any]) -> QuantizedLayer | None:
    """None for a layer whose activations are in float."""
    activation = _integer_activation(graph, node) if node.op_type in _INTEGER_OPERATORS else _qdq(graph, node)
    if activation is None:
        return None
    source, scale, zero, is_signed = activation
    groups = 1 if weight.operator == DENSE else int(readback_onnx.attribute(node, "group", 1))
    is_depthwise = groups > 1 and integers.shape[0] == groups and integers.shape[-1] == 1
    is_wide = integers.dtype == np.uint8 or (is_signed and node.op_type in _INTEGER_OPERATORS)
    kernel = Kernel.DEPTHWISE if is_depthwise else Kernel.WIDE if is_wide else Kernel.PAIRS
    return QuantizedLayer(
        node.name or node.output[0],
        node.op_type,
        kernel,
        integers.reshape(len(integers), -1),
        _scales(weight, integers),
        source,
        scale,
        zero,
        128 if is_signed else 0,
        None if weight.operator == DENSE else _window(node, integers.shape[1:3]),
        groups,
    )


Activation = tuple[str, float | str, float | str, bool]


def _integer_activation(graph: Any, node: Any) -> Activation:
    """Tensor, scale, zero point and sign of the first input of an integer operator."""
    source = node.input[0]
    if node.op_type.startswith("QLinear"):
        scale, zero = graph.scale(node, 1)
        return source, float(scale.item()), float(zero.item()), zero.dtype == np.int8
    reader, origin = _origin(graph, node)
    producer = graph.producer(origin)
    if producer is not None and producer.op_type == "DynamicQuantizeLinear":
        return source, producer.output[1], producer.output[2], False
    # Rows of an embedding that onnxruntime's dynamic quantizer stores in integers.
    scale, zero = graph.scale_of_integers(reader, origin)
    return source, float(scale.item()), float(zero.item()), zero.dtype == np.int8


def _qdq(graph: Any, node: Any) -> Activation | None:
    """The same of a float operator behind DequantizeLinear: its floats lie on the grid of the integers."""
    producer = graph.producer(_origin(graph, node)[1])
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    scale, zero = graph.scale(producer, 1)
    if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
        return None
    return node.input[0], float(scale.item()), float(zero.item()), zero.dtype == np.int8


def _origin(graph: Any, node: Any) -> tuple[Any, str]:
    """What the first input of a node is a moved copy of, and the node that reads that."""
    producer = graph.producer(node.input[0])
    while producer is not None and producer.op_type in _MOVES:
        node, producer = producer, graph.producer(producer.input[0])
    return node, node.input[0]


def _scales(weight: StoredWeight, integers: NDArray[Any]) -> NDArray[np.float32]:
    """The step of each output's weights, from what its largest and smallest integer stand for."""
    values, numbers = weight.values.reshape(len(integers), -1), integers.reshape(len(integers), -1).astype(np.int32)
    rows = np.arange(len(numbers))
    highest, lowest = numbers.argmax(axis=1), numbers.argmin(axis=1)
    span = numbers[rows, highest] - numbers[rows, lowest]
    single = np.abs(values[rows, highest]) / np.maximum(np.abs(numbers[rows, highest]), 1)
    steps = (values[rows, highest] - values[rows, lowest]) / np.maximum(span, 1)
    scales: NDArray[np.float32] = np.where(span > 0, steps, single).astype(np.float32)
    return scales


def _window(node: Any, kernel: tuple[int, ...]) -> Window:
    attribute = readback_onnx.attribute
    how = attribute(node, "auto_pad", b"NOTSET")
    pads = tuple(attribute(node, "pads", (0, 0, 0, 0))) if how in (b"NOTSET", b"VALID") else None
    strides, dilations = (tuple(attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
    return Window((kernel[0], kernel[1]), strides, dilations, pads, how == b"SAME_LOWER")


def _draw(count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """All positions, or so many of them."""
    return np.arange(count) if count <= POSITIONS else rng.choice(count, POSITIONS, replace=False)
