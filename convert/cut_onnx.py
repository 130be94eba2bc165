"""Cuts an ONNX graph at a tensor; see `convert.cuts`."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from convert.cuts import Cut, Place, plain_path

# What follows a layer and is one with it: integer kernels clip by saturating.
_FOLLOWERS = frozenset({"Clip", "Relu", "QuantizeLinear", "DequantizeLinear"})
_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Shapes, and what moves values without computing any: another runtime may do without them.
_BOOKKEEPING = frozenset({"Cast", "Shape", "Gather", "Concat", "Reshape", "Slice", "Unsqueeze", "Squeeze", "Transpose",
                          "Identity", "Constant", "Split", "Expand", "Range"})  # fmt: skip


def find_places(path: Path) -> list[Place]:
    """Outputs of layers, each with the activation and the quantization that follow it."""
    graph = _load(path).graph
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    return [
        place
        for node in graph.node
        if node.name and node.op_type not in _FOLLOWERS | _BOOKKEEPING
        for place in _place(node, consumers)
    ]


def _place(node: Any, consumers: dict[str, list[Any]]) -> Iterator[Place]:
    names, tensor, entry = {plain_path(node.name)}, node.output[0], node.output[0]
    while True:
        following = consumers.get(tensor, [])
        kinds = {consumer.op_type for consumer in following}
        # A tensor that is quantized once and read by many is read through one pair each.
        if not following or not kinds <= _FOLLOWERS or (len(following) > 1 and kinds != {"DequantizeLinear"}):
            break
        tensor = following[0].output[0]
        if following[0].op_type not in _QUANTIZING:
            entry = tensor
            names.add(plain_path(following[0].name))
        elif following[0].op_type == "DequantizeLinear":
            break
    yield Place(frozenset(name for name in names if name), tensor, entry)


def cut(path: Path, out: Path, tensor: str, entries: Sequence[str] = ()) -> Cut:
    """Write the nodes that `tensor` needs, as far back as the graph's inputs or one of `entries`."""
    import onnx

    model = _load(path)
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {value.name for value in model.graph.initializer}
    kept: set[int] = set()
    inputs: list[str] = []
    needed, seen = [tensor], {tensor}
    while needed:
        name = needed.pop()
        if name in constants or not name:
            continue
        if name not in producers or (name in entries and name != tensor):
            inputs.append(name)
            continue
        kept.add(id(producers[name]))
        for source in producers[name].input:
            if source not in seen:
                seen.add(source)
                needed.append(source)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    nodes = [node for node in model.graph.node if id(node) in kept]
    used = {name for node in nodes for name in node.input}
    del (
        part.graph.node[:],
        part.graph.output[:],
        part.graph.input[:],
        part.graph.initializer[:],
        part.graph.value_info[:],
    )
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(value for value in model.graph.initializer if value.name in used)
    known = {value.name: value for value in model.graph.input}
    float_type = onnx.TensorProto.FLOAT
    part.graph.input.extend(
        known.get(name) or onnx.helper.make_tensor_value_info(name, float_type, None) for name in sorted(inputs)
    )
    part.graph.output.append(onnx.helper.make_tensor_value_info(tensor, float_type, None))
    onnx.save(part, str(out))
    return Cut(out, tuple(sorted(inputs)), tensor)


@lru_cache(maxsize=4)
def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))
