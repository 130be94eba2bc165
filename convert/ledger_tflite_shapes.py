"""Shapes of the tensors of a TFLite file as LiteRT finds them."""

from collections.abc import Set
from pathlib import Path
from typing import Any

from convert.ledger_kernels import Shape
from convert.ledger_tflite_file import File
from models.keras import quiet_native_code

Shapes = dict[tuple[int, int], Shape]


def run_shapes(path: Path, file: File, outputs: Set[tuple[int, int]]) -> tuple[Shapes, str, tuple[str, ...]]:
    """Shapes by (graph, tensor) at batch 1, whose they are, and notes. Without LiteRT they stay those of the file.

    A file writes 1 for every axis that it does not know and computes it while it runs; so where an axis of `outputs` is
    free the model is run once, on zeros. A model with a loop is not: it might not end.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ModuleNotFoundError:
        return {}, "", ("ai-edge-litert is not installed: shapes are those of the file",)
    is_free = any(file.graphs[graph].is_free(tensor) for graph, tensor in outputs if tensor >= 0)
    loops = any(graph.is_repeated for graph in file.graphs)
    try:
        with quiet_native_code():
            # XNNPACK would hide the tensors between the operators that it takes over.
            plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
            _run(interpreter, invoke=is_free and not loops)
            found = _shapes(interpreter, file)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        return {}, "", (f"LiteRT can't run the file ({reason}): shapes are those of the file",)
    if is_free and loops:
        return {}, _version(), ("a loop makes sizes unknown before it runs: shapes are those of the file",)
    return found, _version(), ()


def _run(interpreter: Any, *, invoke: bool) -> None:
    import numpy as np

    interpreter.allocate_tensors()
    if invoke:
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
        interpreter.invoke()


def _shapes(interpreter: Any, file: File) -> Shapes:
    """Of the graphs that were made ready; LiteRT knows no shape of the others."""
    return {
        (graph.index, tensor["index"]): tuple(int(axis) for axis in tensor["shape"])
        for graph in file.graphs
        for tensor in interpreter.get_tensor_details(graph.index)
        if len(tensor["shape"])
    }


def _version() -> str:
    from importlib.metadata import version

    return f"ai-edge-litert {version('ai-edge-litert')}"
