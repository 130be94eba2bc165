"""Shapes inside the bodies of loops and branches, which ONNX Runtime tells of no body as long as it is one.

So each body is made a model of its own, whose inputs are what the first pass takes.
"""

from collections.abc import Iterator
from typing import Any

from convert.ledger_graph import Scope
from convert.ledger_onnx_file import bodies, import_onnx
from convert.ledger_onnxruntime import Tensors, infer_tensors

# Larger constants are weights, of which the shape is enough; smaller ones may be shapes themselves.
SMALL_BYTES = 4096


def body_tensors(model: Any, node: Any, body: Any, scope: Scope) -> Tensors:
    """Types and shapes of the tensors of `body`, which `node` of `scope` runs; none where they can't be told.

    A state that grows from pass to pass has the shape of the first one.
    """
    alone = type(model)()
    alone.ir_version = model.ir_version
    alone.opset_import.extend(model.opset_import)
    alone.graph.CopyFrom(body)
    for value, source in _taken(node, alone.graph, scope):
        if not _describe(value, source, scope):
            return {}
    _take_large_constants(alone.graph)
    for name in _captured(body):
        constant = scope.tensor(name)
        if constant is not None and constant.ByteSize() <= SMALL_BYTES and not constant.external_data:
            alone.graph.initializer.add().CopyFrom(constant)
            alone.graph.initializer[-1].name = name
        elif not _describe(alone.graph.input.add(), name, scope):
            return {}
    for value in alone.graph.output:
        value.ClearField("type")
    return infer_tensors(alone)


def _taken(node: Any, body: Any, scope: Scope) -> Iterator[tuple[Any, str]]:
    """Inputs of a loop's body and the tensor that the first pass takes; a Scan's slices keep the type in the file."""
    states = body.input if node.op_type == "Loop" else body.input[: len(body.output)] if node.op_type == "Scan" else ()
    scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
    last = len(node.input) - scanned
    for place, value in enumerate(states):
        if 0 <= place < last and node.input[place] and not (node.op_type == "Loop" and place < 2):
            yield value, node.input[place]


def _take_large_constants(body: Any) -> None:
    """Make inputs of constants whose numbers the optimizer wrote to a file that is gone."""
    large = [tensor for tensor in body.initializer if tensor.external_data]
    for tensor in large:
        value = body.input.add(name=tensor.name)
        value.type.tensor_type.elem_type = tensor.data_type
        for axis in tensor.dims:
            value.type.tensor_type.shape.dim.add().dim_value = axis
        body.initializer.remove(tensor)


def _describe(value: Any, source: str, scope: Scope) -> bool:
    """Give an input the type and shape of a tensor outside; False where these are unknown."""
    kind, shape = scope.described(source)
    known = import_onnx().TensorProto.DataType
    if kind not in list(known.keys()) or kind == "UNDEFINED":
        return False
    value.name = value.name or source
    tensor = value.type.tensor_type
    tensor.elem_type = known.Value(kind)
    tensor.ClearField("shape")
    for axis in shape or ():
        tensor.shape.dim.add().dim_value = axis
    return True


def _captured(body: Any) -> list[str]:
    """Tensors of outer graphs that a body, or a body inside it, reads."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own |= {name for node in body.node for name in node.output}
    read = [name for node in body.node for name in node.input if name]
    read += [name for node in body.node for inner in bodies(node) for name in _captured(inner)]
    read += [value.name for value in body.output]
    return [name for name in dict.fromkeys(read) if name not in own]
