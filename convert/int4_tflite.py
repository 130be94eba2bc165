"""Weight-only INT4 for LiteRT: blocks of FULLY_CONNECTED weights, and of embeddings, which become EMBEDDING_LOOKUP.

The file is edited through the schema, because TensorFlow's converter writes no INT4 weights for float inputs
(github.com/tensorflow/tensorflow/issues/60125). XNNPACK, LiteRT's default, rounds the inputs of each layer to INT8
and multiplies integers. The kernels without XNNPACK read the same file correctly, but slowly. What was found with
LiteRT 2.3 and TensorFlow 2.21, and is therefore not written here:

* one scale for each output and no blocks: right with XNNPACK, but the kernel without it uses the first scale for all;
* blocks and a fused activation, or fewer than four outputs: the kernel without XNNPACK leaves the activation out, or
  is wrong. So activations are taken out of the layer, and such small layers stay in float;
* GATHER of INT4: no kernel.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.coverage import MINIMUM_ELEMENTS
from convert.int4 import Int4Blocks, KeptReason, KeptWeight, pack_nibbles, round_int4
from convert.tflite_file import as_buffer, builtin_code, operator_name, pack, schema, shape_of, stored_bytes, unpack
from models.errors import UnsupportedError

# Of 32, 64 and 128; none lost CIDEr. An attention decoder of 512 units takes 72 us a step instead of 290 (one thread,
# AVX512-VNNI) and is 7.4 times smaller.
BLOCK_SIZE = 64
# XNNPACK takes blocks in multiples of this.
SHORTEST_BLOCK = 32
FEWEST_OUTPUTS = 4
# The first versions of the operators that read INT4.
VERSIONS = {"FULLY_CONNECTED": 10, "EMBEDDING_LOOKUP": 4}
# Operator -> the input that holds a weight.
_PLACES = {"FULLY_CONNECTED": 1, "GATHER": 0, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "BATCH_MATMUL": 1}


def quantize_weights_int4(content: bytes, *, block_size: int = BLOCK_SIZE) -> bytes:
    """A .tflite file in fp32 -> another with INT4 weights; names and signatures stay.

    Every FULLY_CONNECTED with a constant matrix and every GATHER of rows of one reads INT4 afterwards, with FP16
    scales of at most `block_size` inputs, a power of two from 32 on. Raises UnsupportedError when no weight can be.
    """
    model = unpack(content)
    graphs = [_Graph(model, subgraph) for subgraph in model.subgraphs]
    if not any(reader.kept is None for graph in graphs for reader in graph.readers()):
        raise UnsupportedError(
            "no weight of this graph can be INT4 in LiteRT: its CPU kernels are for dense layers and embeddings, not "
            "for convolutions. Ask for another precision of this half.",
            thread="https://github.com/tensorflow/tensorflow/issues/60125",
        )
    for graph in graphs:
        graph.quantize(block_size)
    _clear_unread(model)
    return pack(model)


def kept_weights(content: bytes) -> tuple[KeptWeight, ...]:
    """The weights (64 numbers or more) that `quantize_weights_int4` leaves in float, each once, and why."""
    model = unpack(content)
    readers = [reader for subgraph in model.subgraphs for reader in _Graph(model, subgraph).readers()]
    return tuple({reader.kept.name: reader.kept for reader in readers if reader.kept}.values())


@dataclass(frozen=True)
class _Reader:
    """An operator that reads a constant float weight of two or more axes."""

    operator: Any
    kind: str
    place: int
    tensor: int
    kept: KeptWeight | None


class _Graph:
    """One subgraph, changed in place."""

    def __init__(self, model: Any, subgraph: Any) -> None:
        self.model, self.subgraph, self.tensors = model, subgraph, subgraph.tensors
        self._rounded: dict[tuple[int, int], int] = {}

    def readers(self) -> Iterator[_Reader]:
        """The operators that read a float weight of 64 or more numbers."""
        for operator in list(self.subgraph.operators):
            kind = operator_name(self.model, operator)
            if kind not in _PLACES:
                continue
            index = int(operator.inputs[_PLACES[kind]])
            tensor = self.tensors[index]
            shape = shape_of(tensor)
            is_weight = tensor.type == schema().TensorType.FLOAT32 and stored_bytes(self.model, tensor)
            if is_weight and len(shape) >= 2 and np.prod(shape) >= MINIMUM_ELEMENTS:
                reason = self._reason_to_keep(operator, kind, shape)
                kept = KeptWeight(tensor.name.decode(), kind, int(np.prod(shape)), reason) if reason else None
                yield _Reader(operator, kind, _PLACES[kind], index, kept)

    def quantize(self, block_size: int) -> None:
        """Let every operator that can read INT4 do so."""
        for reader in [reader for reader in self.readers() if reader.kept is None]:
            if reader.kind == "GATHER":
                self._look_up(reader, block_size)
            else:
                self._multiply(reader, block_size)

    def _reason_to_keep(self, operator: Any, kind: str, shape: tuple[int, ...]) -> KeptReason | None:
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return KeptReason.CONVOLUTION
        if kind == "FULLY_CONNECTED":
            return KeptReason.SMALL if shape[0] < FEWEST_OUTPUTS else None
        is_plain = kind == "GATHER" and len(shape) == 2 and shape[1] % 2 == 0 and not operator.builtinOptions.axis
        indices = self.tensors[int(operator.inputs[1])]
        is_list = len(shape_of(indices)) == 1 and indices.type == schema().TensorType.INT32
        return None if is_plain and is_list else KeptReason.LAYOUT

    def _multiply(self, reader: _Reader, block_size: int) -> None:
        """FULLY_CONNECTED of INT4; inputs that fill no block are padded with zeros."""
        operator, inputs = reader.operator, shape_of(self.tensors[reader.tensor])[1]
        columns = inputs + -inputs % SHORTEST_BLOCK
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[1] = self._int4(reader.tensor, columns, min(block_size, columns & -columns))
        if columns > inputs:
            operator.inputs[0] = self._pad(operator, int(operator.inputs[0]), columns - inputs)
        operator.opcodeIndex = self._opcode("FULLY_CONNECTED", VERSIONS["FULLY_CONNECTED"])
        operator.builtinOptions.asymmetricQuantizeInputs = True
        self._take_activation_out(operator)

    def _look_up(self, reader: _Reader, block_size: int) -> None:
        """GATHER -> EMBEDDING_LOOKUP of INT4."""
        operator, columns = reader.operator, shape_of(self.tensors[reader.tensor])[1]
        table = self._int4(reader.tensor, columns, min(block_size, columns & -columns))
        operator.inputs = np.array([operator.inputs[1], table], np.int32)
        operator.opcodeIndex = self._opcode("EMBEDDING_LOOKUP", VERSIONS["EMBEDDING_LOOKUP"])
        operator.builtinOptionsType, operator.builtinOptions = schema().BuiltinOptions.NONE, None

    def _int4(self, index: int, columns: int, block_size: int) -> int:
        """The INT4 tensor of a float tensor, its rows filled up with zeros to so many columns."""
        if (index, columns) not in self._rounded:
            tensor = copy.copy(self.tensors[index])
            floats = np.frombuffer(stored_bytes(self.model, tensor), np.float32).reshape(shape_of(tensor))
            padded = np.pad(floats, ((0, 0), (0, columns - floats.shape[1])))
            blocks = round_int4(padded, block_size, positive_scales=True)
            tensor.name += b"/int4"
            tensor.shape, tensor.type = np.array(padded.shape, np.int32), schema().TensorType.INT4
            tensor.buffer = self._buffer(pack_nibbles(blocks.integers.reshape(1, -1)))
            tensor.quantization = self._blockwise(tensor.name, blocks)
            self._rounded[index, columns] = self._tensor(tensor)
        return self._rounded[index, columns]

    def _blockwise(self, name: bytes, blocks: Int4Blocks) -> Any:
        """The quantization of a tensor, and a tensor with its scales; a `zeroPoints` below 0 is none."""
        classes = schema()
        scales, details, quantization = (
            classes.TensorT(),
            classes.BlockwiseQuantizationT(),
            classes.QuantizationParametersT(),
        )
        scales.name, scales.type, scales.hasRank = name + b"/scale", classes.TensorType.FLOAT16, True
        scales.shape = np.array(blocks.scales.shape, np.int32)
        scales.buffer = self._buffer(blocks.scales.astype(np.float16))
        details.scales, details.zeroPoints, details.blockSize = self._tensor(scales), -1, blocks.block_size
        quantization.detailsType = classes.QuantizationDetails.BlockwiseQuantization
        quantization.details = details
        return quantization

    def _pad(self, reader: Any, index: int, zeros: int) -> int:
        """A tensor like another with zeros after its last axis, and the operator before `reader` that makes it."""
        classes = schema()
        padded, amounts, operator = copy.copy(self.tensors[index]), classes.TensorT(), classes.OperatorT()
        padded.name += b"/padded"
        padded.shape = np.array([*padded.shape[:-1], padded.shape[-1] + zeros], np.int32)
        if padded.shapeSignature is not None and padded.shapeSignature[-1] > 0:
            padded.shapeSignature = np.array([*padded.shapeSignature[:-1], padded.shape[-1]], np.int32)
        amounts.name, amounts.type, amounts.hasRank = padded.name + b"/amounts", classes.TensorType.INT32, True
        amounts.shape = np.array([len(padded.shape), 2], np.int32)
        paddings = np.zeros((len(padded.shape), 2), np.int32)
        paddings[-1, 1] = zeros
        amounts.buffer = self._buffer(paddings)
        operator.opcodeIndex = self._opcode("PAD", 1)
        operator.inputs = np.array([index, self._tensor(amounts)], np.int32)
        operator.outputs = np.array([self._tensor(padded)], np.int32)
        self.subgraph.operators.insert(self.subgraph.operators.index(reader), operator)
        return int(operator.outputs[0])

    def _take_activation_out(self, operator: Any) -> None:
        """Let the operator write a tensor that an activation of its own reads."""
        classes = schema()
        kinds = classes.ActivationFunctionType
        activation = operator.builtinOptions.fusedActivationFunction
        if activation == kinds.NONE:
            return
        name = {kinds.RELU: "RELU", kinds.RELU6: "RELU6", kinds.RELU_N1_TO_1: "RELU_N1_TO_1", kinds.TANH: "TANH"}
        linear, after = copy.copy(self.tensors[int(operator.outputs[0])]), classes.OperatorT()
        linear.name += b"/linear"
        after.opcodeIndex = self._opcode(name[activation], 1)
        after.inputs, after.outputs = np.array([self._tensor(linear)], np.int32), operator.outputs
        operator.outputs = after.inputs
        operator.builtinOptions.fusedActivationFunction = kinds.NONE
        self.subgraph.operators.insert(self.subgraph.operators.index(operator) + 1, after)

    def _tensor(self, tensor: Any) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _buffer(self, array: NDArray[Any]) -> int:
        """A buffer with these bytes: an older one where that holds the same."""
        new = as_buffer(array)
        for index, buffer in enumerate(self.model.buffers):
            if buffer.data is not None and np.array_equal(buffer.data, new.data):
                return index
        self.model.buffers.append(new)
        return len(self.model.buffers) - 1

    def _opcode(self, name: str, version: int) -> int:
        """The index of an operator's code, added where the file has none of this version or a later one."""
        number = getattr(schema().BuiltinOperator, name)
        for index, code in enumerate(self.model.operatorCodes):
            if builtin_code(code) == number and code.version >= version:
                return index
        code = schema().OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _clear_unread(model: Any) -> None:
    """Empty the tensors that no operator names any more, and the buffers that only they had; indices stay."""
    for subgraph in model.subgraphs:
        named = {int(index) for operator in subgraph.operators for index in (*operator.inputs, *operator.outputs)}
        named |= {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
        blockwise = schema().QuantizationDetails.BlockwiseQuantization
        quantized = (tensor.quantization for tensor in subgraph.tensors if tensor.quantization is not None)
        named |= {details.details.scales for details in quantized if details.detailsType == blockwise}
        for index, tensor in enumerate(subgraph.tensors):
            if index not in named:
                tensor.name, tensor.shape, tensor.shapeSignature, tensor.quantization, tensor.buffer = (
                    b"",
                    [],
                    None,
                    None,
                    0,
                )
    read = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    read |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None
