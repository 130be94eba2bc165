"""Weight-only INT4 for ONNX Runtime: MatMulNBits for dense layers, GatherBlockQuantized for embeddings.

Both are operators of ONNX Runtime's domain com.microsoft, with INT4 kernels in its CPU provider (specified in its
docs/ContribOperators.md). Their weights lie in the same order, so that a table which a captioner reads and writes
words with is stored once. There is none for convolutions: their kernels stay in float.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.coverage import MINIMUM_ELEMENTS
from convert.int4 import KeptReason, KeptWeight, pack_nibbles, round_int4
from models.errors import UnsupportedError

DOMAIN = "com.microsoft"
BITS = 4
# 128 and 4 were the smallest and fastest of 32, 64, 128 and 0 to 4, and lost no CIDEr: an attention decoder of 512
# units takes 112 us a step instead of 768 (one thread, AVX512-VNNI) and is 7.4 times smaller.
BLOCK_SIZE = 128
ACCURACY_LEVEL = 4
# MatMulNBits' block sizes; from 512 on it gives zeros (github.com/microsoft/onnxruntime/issues/28551).
BLOCK_SIZES = (16, 32, 64, 128, 256)
# Unsigned nibbles without zero points stand for themselves minus this.
MIDDLE = 8


def quantize_weights_int4(model: Any, *, block_size: int = BLOCK_SIZE, accuracy_level: int = ACCURACY_LEVEL) -> Any:
    """An ONNX model (ModelProto) in fp32 -> another with INT4 weights; names of inputs and outputs stay.

    Every MatMul and Gemm with a constant matrix, and every Gather of rows of one, reads INT4 afterwards.
    `accuracy_level` is MatMulNBits' own: 1 computes in float, 4 rounds the other operand to INT8 while it runs.
    Raises UnsupportedError when no weight can be INT4.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    found = [weight for weight in _readers(graph) if weight.kept is None]
    if not found:
        raise UnsupportedError(
            "no weight of this graph can be INT4 in ONNX Runtime: its CPU kernels are for dense layers and embeddings, "
            "not for convolutions. Ask for another precision of this half.",
        )
    # Tables last, so that they find a layer that holds the same numbers.
    for weight in sorted(found, key=lambda weight: weight.node.op_type == "Gather"):
        if weight.node.op_type == "Gather":
            _rewrite_gather(graph, weight, block_size)
        else:
            _rewrite_product(graph, weight, block_size, accuracy_level)
    graph.drop_unread()
    if DOMAIN not in {entry.domain for entry in result.opset_import}:
        result.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return result


def kept_weights(model: Any) -> tuple[KeptWeight, ...]:
    """The weights (64 numbers or more) that `quantize_weights_int4` leaves in float, each once, and why."""
    kept = {weight.kept.name: weight.kept for weight in _readers(_Graph(model.graph)) if weight.kept}
    return tuple(kept.values())


@dataclass(frozen=True)
class _Reader:
    """A node that reads a constant weight; `matrix` is (outputs, inputs), or rows as they are looked up."""

    node: Any
    name: str  # of the constant
    matrix: NDArray[Any]
    kept: KeptWeight | None


class _Graph:
    """A GraphProto whose constants and nodes are changed in place."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def add(self, name: str, array: NDArray[Any]) -> Any:
        """A constant with these numbers: an older one where that holds the same, maybe under another shape."""
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        for known in self.constants.values():
            if (known.data_type, known.raw_data) == (tensor.data_type, tensor.raw_data):
                return known
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return tensor

    def replace(self, node: Any, *others: Any) -> None:
        """Put other nodes in the place of one."""
        place = list(self.graph.node).index(node)
        self.graph.node.remove(node)
        for other in reversed(others):
            self.graph.node.insert(place, other)

    def drop_unread(self) -> None:
        """Remove constants that no node reads any more."""
        read = {name for node in self.graph.node for name in node.input} | {value.name for value in self.graph.output}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name not in read]:
            self.graph.initializer.remove(tensor)


_PLACES = {"MatMul": 1, "Gemm": 1, "Gather": 0, "Conv": 1, "ConvTranspose": 1}


def _readers(graph: _Graph) -> Iterator[_Reader]:
    """The nodes that read a float weight of two or more axes and 64 or more numbers."""
    import onnx
    from onnx import numpy_helper

    for node in list(graph.graph.node):
        tensor = graph.constants.get(node.input[_PLACES[node.op_type]]) if node.op_type in _PLACES else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        array = numpy_helper.to_array(tensor)
        if array.size < MINIMUM_ELEMENTS:
            continue
        reason = _reason_to_keep(node, array)
        kept = KeptWeight(tensor.name, node.op_type, array.size, reason) if reason else None
        is_stored_by_inputs = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0))
        yield _Reader(node, tensor.name, array.T if is_stored_by_inputs else array, kept)


def _reason_to_keep(node: Any, array: NDArray[Any]) -> KeptReason | None:
    if node.op_type in ("Conv", "ConvTranspose"):
        return KeptReason.CONVOLUTION
    # Rows of an odd length would share a byte.
    is_looked_up_across = node.op_type == "Gather" and (_attribute(node, "axis", 0) != 0 or array.shape[-1] % 2)
    is_unusual = node.op_type == "Gemm" and (_attribute(node, "transA", 0) or _attribute(node, "beta", 1.0) != 1.0)
    return KeptReason.LAYOUT if array.ndim != 2 or is_looked_up_across or is_unusual else None


def _rewrite_product(graph: _Graph, weight: _Reader, block_size: int, accuracy_level: int) -> None:
    """MatMul or Gemm -> MatMulNBits, its third input of Gemm added afterwards."""
    from onnx import helper

    node, (outputs, inputs) = weight.node, weight.matrix.shape
    block_size = _fitting_block(inputs, block_size)
    blocks = round_int4(weight.matrix * np.float32(_attribute(node, "alpha", 1.0)), block_size)
    whole = np.pad(blocks.integers, ((0, 0), (0, -inputs % block_size)))
    packed = pack_nibbles(whole + MIDDLE).reshape(outputs, -1, block_size // 2)
    product = node.output[0] if len(node.input) < 3 else f"{node.output[0]}__product"
    others = [
        helper.make_node(
            "MatMulNBits",
            [
                node.input[0],
                graph.add(f"{weight.name}__int4", packed).name,
                graph.add(f"{weight.name}__scale", blocks.scales).name,
            ],
            [product],
            node.name,
            domain=DOMAIN,
            K=inputs,
            N=outputs,
            bits=BITS,
            block_size=block_size,
            accuracy_level=accuracy_level,
        ),
    ]
    if len(node.input) == 3:
        others.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], f"{node.name}__bias"))
    graph.replace(node, *others)


def _rewrite_gather(graph: _Graph, weight: _Reader, block_size: int) -> None:
    """Gather -> GatherBlockQuantized, which may read the bytes of a layer under another shape."""
    from onnx import helper

    node = weight.node
    block_size = _fitting_block(weight.matrix.shape[1], block_size)
    blocks = round_int4(weight.matrix, block_size)
    packed = pack_nibbles(blocks.integers + MIDDLE)
    table = graph.add(f"{weight.name}__int4", packed)
    name, others = table.name, []
    if tuple(table.dims) != packed.shape:
        name, shape = f"{weight.name}__rows", graph.add(f"{weight.name}__shape", np.array(packed.shape))
        others.append(helper.make_node("Reshape", [table.name, shape.name], [name], f"{node.name}__rows"))
    gather = helper.make_node(
        "GatherBlockQuantized",
        [name, node.input[1], graph.add(f"{weight.name}__scale", blocks.scales).name],
        [node.output[0]],
        node.name,
        domain=DOMAIN,
        bits=BITS,
        block_size=block_size,
        gather_axis=0,
        quantize_axis=1,
    )
    graph.replace(node, *others, gather)


def _fitting_block(inputs: int, longest: int) -> int:
    """The block that stores so many inputs in the fewest bytes; MatMulNBits fills its last block up."""
    sizes = [size for size in BLOCK_SIZES if size <= longest]
    return min(reversed(sizes), key=lambda size: -(-inputs // size) * (size // 2 + 4))


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    return next((get_attribute_value(a) for a in node.attribute if a.name == name), default)
