"""Makes an ONNX file smaller without touching what it computes: short names, no shapes in between, no twins.

tf2onnx writes whole paths as names, and quantizers lengthen them; in a small step graph that is a fifth of the INT8
file. What computes keeps its node's name, so that `captionbench inspect` can name a layer.
"""

from collections.abc import Callable, Iterable
from typing import Any

# Nodes whose names say nothing that their neighbours' don't.
ANONYMOUS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Shape"})
DYNAMIC = frozenset({"MatMulInteger", "ConvInteger"})
PAIRED = ("_quantized", "_scale", "_zero_point")
PREFIX = "StatefulPartitionedCall/"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(model: Any) -> Any:
    """`model`, changed in place; inputs and outputs keep their names."""
    graph = model.graph
    del graph.value_info[:]
    _share_initializers(graph)
    kept = {value.name for value in (*graph.input, *graph.output)} | _paired(graph)
    short = _short_names(kept)
    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
        tensor.doc_string = ""
    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
        node.name = "" if node.op_type in ANONYMOUS else node.name.removeprefix(PREFIX)
        node.doc_string = ""
    return model


def _paired(graph: Any) -> set[str]:
    """Constants of dynamic quantization: which scale is whose is told by their names alone."""
    if not any(node.op_type in DYNAMIC for node in graph.node):
        return set()
    return {tensor.name for tensor in graph.initializer if tensor.name.endswith(PAIRED)}


def _share_initializers(graph: Any) -> None:
    """Keep one of the constants that are equal in type, shape and bytes: zero points above all."""
    first: dict[bytes, str] = {}
    paired = _paired(graph)
    replaced: dict[str, str] = {}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in paired]:
        name = tensor.name
        tensor.name = ""
        key = tensor.SerializeToString(deterministic=True)
        tensor.name = name
        if key in first:
            replaced[name] = first[key]
            graph.initializer.remove(tensor)
        else:
            first[key] = name
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]


def _short_names(kept: Iterable[str]) -> Callable[[str], str]:
    """Old name -> new name, the same each time; the empty name (no input) stays empty."""
    known = {name: name for name in (*kept, "")}
    taken = set(known)

    def short(name: str) -> str:
        if name not in known:
            number = len(known)
            while (candidate := _base36(number)) in taken:
                number += 1
            known[name] = candidate
            taken.add(candidate)
        return known[name]

    return short


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, last = divmod(number, len(_DIGITS))
        digits = _DIGITS[last] + digits
        if not number:
            return digits
