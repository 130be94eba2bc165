"""TFLite files as objects of their schema: unpacked, looked into, packed again."""

from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.keras import tensorflow

IDENTIFIER = b"TFL3"
# What the schema asks for of constants (`force_align: 16` of Buffer.data).
ALIGNMENT = 16


@cache
def schema() -> Any:
    """The classes that TensorFlow generates from the schema of TFLite."""
    tensorflow()  # or importing a part of it would miss what is set up there
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def unpack(content: bytes) -> Any:
    """The model (ModelT) of a file. Raises ValueError, or what a damaged offset leads to."""
    classes = schema()
    if not classes.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError("its identifier is missing")
    return classes.ModelT.InitFromObj(classes.Model.GetRootAsModel(content, 0))


def pack(model: Any) -> bytes:
    """The file of a model (ModelT), its constants aligned, which the schema's own Python code leaves out."""
    import flatbuffers

    for buffer in model.buffers:
        buffer.Pack = partial(_pack_aligned, buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _pack_aligned(buffer: Any, builder: Any) -> int:
    """Write one buffer (BufferT); in place of its own method."""
    content = b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
    data = None
    if content:
        builder.StartVector(1, len(content), ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
    schema().BufferStart(builder)
    if data is not None:
        schema().BufferAddData(builder, data)
    return int(schema().BufferEnd(builder))


def names(enumeration: Any) -> dict[int, str]:
    """Value -> name of an enumeration of the schema."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def operator_name(model: Any, operator: Any) -> str:
    """What the schema calls an operator."""
    return _operator_names()[builtin_code(model.operatorCodes[operator.opcodeIndex])]


def builtin_code(code: Any) -> int:
    """The number of an operator; files hold it twice: the older field is a byte, and stops at 127."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def stored_bytes(model: Any, tensor: Any) -> bytes:
    """The data of a constant; nothing of a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    return b"" if data is None else np.asarray(data, np.uint8).tobytes()


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape as the file writes it: 1 for every axis that it does not know."""
    return () if tensor.shape is None else tuple(int(axis) for axis in tensor.shape)


def as_buffer(array: NDArray[Any]) -> Any:
    """A buffer (BufferT) that holds the bytes of an array."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return buffer


@cache
def _operator_names() -> dict[int, str]:
    return names(schema().BuiltinOperator)
