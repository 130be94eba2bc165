"""Cuts a TFLite graph at a tensor; see `convert.cuts`. Tensors are named by their number, which a cut keeps."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from convert.cuts import Cut, Place, plain_path
from convert.tflite_file import operator_name, pack, schema, stored_bytes, unpack
from models.files import write_bytes_atomic

_BOOKKEEPING = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SHAPE", "PACK", "STRIDED_SLICE", "CAST", "GATHER",
                          "CONCATENATION", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "SPLIT", "FILL"})  # fmt: skip


def find_places(path: Path) -> list[Place]:
    """Outputs of operators; a fused one's tensor is named by all that was fused."""
    model = _load(path)
    graph = model.subgraphs[0]
    places = []
    for operator in graph.operators:
        if operator_name(model, operator) in _BOOKKEEPING or not len(operator.outputs):
            continue
        index = int(operator.outputs[0])
        if not _is_number(graph.tensors[index]):
            continue
        name = graph.tensors[index].name.decode()
        paths = [plain_path(part) for part in name.split(";") if "/" in part]
        # A name that is taken gets a 1 at its end.
        names = frozenset([*paths, *(path[:-1] for path in paths if path.endswith("1") and path[-2] != "_")])
        if names:
            places.append(Place(names, str(index), str(index)))
    return places


def cut(path: Path, out: Path, tensor: str, entries: Sequence[str] = ()) -> Cut:
    """Write the operators that `tensor` needs, as far back as the graph's inputs or one of `entries`."""
    model = unpack(path.read_bytes())  # changed below, so not the one that is kept
    graph = model.subgraphs[0]
    producers = {int(index): operator for operator in graph.operators for index in operator.outputs}
    kept: set[int] = set()
    inputs: list[int] = []
    needed, seen = [int(tensor)], {int(tensor)}
    while needed:
        index = needed.pop()
        if index < 0 or (index not in producers and stored_bytes(model, graph.tensors[index])):
            continue
        if index not in producers or (str(index) in entries and str(index) != tensor):
            inputs.append(index)
            continue
        kept.add(id(producers[index]))
        for source in map(int, producers[index].inputs):
            if source not in seen:
                seen.add(source)
                needed.append(source)
    graph.operators = [operator for operator in graph.operators if id(operator) in kept]
    graph.inputs, graph.outputs = sorted(inputs), [int(tensor)]
    model.signatureDefs = []
    _empty_unused(model)
    write_bytes_atomic(out, pack(model))
    return Cut(out, tuple(map(str, sorted(inputs))), tensor)


def input_indices(path: Path) -> dict[str, str]:
    """Name of each input -> its tensor's number, by the file's signature."""
    return {entry.name.decode(): str(entry.tensorIndex) for entry in _load(path).signatureDefs[0].inputs}


def _empty_unused(model: Any) -> None:
    """Drop the data of constants that no operator reads; their tensors stay, so that numbers do."""
    read = {
        int(graph.tensors[int(index)].buffer)
        for graph in model.subgraphs
        for operator in graph.operators
        for index in operator.inputs
        if index >= 0
    }
    for number, buffer in enumerate(model.buffers):
        if number not in read:
            buffer.data = None


def _is_number(tensor: Any) -> bool:
    kinds = schema().TensorType
    return tensor.type in (kinds.FLOAT32, kinds.INT8, kinds.UINT8, kinds.INT16)


@lru_cache(maxsize=4)
def _load(path: Path) -> Any:
    return unpack(path.read_bytes())
