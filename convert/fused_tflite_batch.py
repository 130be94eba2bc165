"""Fixes the batch of a TFLite graph at 1: what it works out of the batch while it runs becomes constants.

A graph with a free batch asks its tensors for their shapes and computes others from them, fifty operators in a step of
eighty. At a batch of 1 all of that is known. The arithmetic on the data is left as it is, so results are too.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.fused_tflite_parts import Source
from convert.tflite_file import as_buffer, schema, unpack
from models.errors import ConversionError


def fix_batch(content: bytes) -> Source:
    """The graph of a model of one graph and one signature, at a batch of 1. Raises ConversionError."""
    source = Source(unpack(content))
    if len(source.model.subgraphs) > 1:
        raise ConversionError("can't fuse a TFLite file that holds more than one graph.")
    shapes, values = _run_once(content)
    for index, tensor in enumerate(source.graph.tensors):
        tensor.shapeSignature = None
        if index in shapes:
            tensor.shape = shapes[index]
    _fold_shapes(source, values)
    return source


def _run_once(content: bytes) -> tuple[dict[int, list[int]], dict[int, NDArray[np.int32]]]:
    """Shapes of all tensors, and values of those that hold int32, of one run on zeros."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        # XNNPACK would hide the tensors between the operators that it takes over.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    interpreter.invoke()
    details = interpreter.get_tensor_details()
    shapes = {tensor["index"]: [int(size) for size in tensor["shape"]] for tensor in details}
    integers = [tensor["index"] for tensor in details if tensor["dtype"] == np.int32]
    return shapes, {index: interpreter.get_tensor(index) for index in integers}


def _fold_shapes(source: Source, values: dict[int, NDArray[np.int32]]) -> None:
    """Drop the operators that compute int32 from shapes and constants alone, and keep what they computed."""
    graph, buffers = source.graph, source.model.buffers
    known: set[int] = set()
    remaining = []
    for operator in graph.operators:
        is_shape = source.kind(operator) == schema().BuiltinOperator.SHAPE
        given = all(int(index) in known or _is_integer_constant(source, index) for index in operator.inputs)
        if is_shape or given:
            known.update(int(index) for index in operator.outputs)
        else:
            remaining.append(operator)
    for index in known:
        graph.tensors[index].buffer = len(buffers)
        buffers.append(as_buffer(values[index]))
    graph.operators = remaining


def _is_integer_constant(source: Source, index: Any) -> bool:
    return source.graph.tensors[index].type == schema().TensorType.INT32 and source.is_constant(index)
