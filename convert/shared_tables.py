"""Stores a tied table once in an ONNX file: tf2onnx writes the embedding, and its transpose for the last layer."""

from typing import Any

import numpy as np


def share_transposed_tables(model: Any) -> Any:
    """Let a Gather read columns of the transpose where that is stored too, and drop the table; `model` in place."""
    from onnx import helper, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    for node in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tensors]:
        table = node.input[0]
        twin = _transpose_of(table, arrays)
        is_shared = sum(table in other.input for other in graph.node) > 1
        if twin is None or is_shared or helper.get_node_attr_value(node, "axis") != 0:
            continue
        columns = f"{node.output[0]}__columns"
        gather = helper.make_node("Gather", [twin, node.input[1]], [columns], f"{node.name}__columns", axis=1)
        rows = helper.make_node("Transpose", [columns], [node.output[0]], f"{node.name}__rows", perm=[1, 0])
        place = list(graph.node).index(node)
        graph.node.remove(node)
        graph.node.insert(place, rows)
        graph.node.insert(place, gather)
        graph.initializer.remove(tensors.pop(table))
    return model


def _transpose_of(name: str, arrays: dict[str, Any]) -> str | None:
    """Another tensor that is the transpose of this one."""
    mine = arrays[name]
    twins = (other for other, array in arrays.items() if other != name and array.shape == mine.shape[::-1])
    return next((other for other in twins if np.array_equal(arrays[other], mine.T)), None)
