"""The process of `convert.keras3_route` that runs Keras 3: `python -m convert.keras3_route_child FOLDER`.

It must be a process of its own: it makes `models.keras` find Keras 3 where everything else finds `tf_keras`.
"""

import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.artifact import ENCODER, OUTPUT_SUFFIX
from convert.keras3_route import ENDPOINT, OUTCOME, TASK, WEIGHTS, Route
from convert.recipe import Format, Graph
from models.decoders import DecoderConfig, build_decoder, decoder_entry
from models.encoders import build_encoder
from models.errors import UnsupportedError
from models.files import write_text_atomic

# Format -> what Keras calls it, and the suffix it asks for.
KERAS_FORMATS = {Format.ONNX: ("onnx", ".onnx"), Format.TFLITE: ("litert", ".tflite")}
GRAPHS = (ENCODER, str(Graph.STEP))
REASON_LENGTH = 400  # Keras may put a whole configuration into a message


def main(handed: Path) -> None:
    """Try every route, graph and format of the task in `handed`; write the outcome there."""
    keras = use_keras3()
    task = json.loads((handed / TASK).read_text(encoding="utf-8"))
    rows = [
        row
        for route in task["routes"]
        for graph in GRAPHS
        for row in _export_graph(keras, handed, task, Route(route), graph)
    ]
    write_text_atomic(handed / OUTCOME, json.dumps(rows))


def use_keras3() -> ModuleType:
    """Make `models.keras` give Keras 3 in this process, so that the same builders build its models."""
    keras = importlib.import_module("keras")
    sys.modules["tf_keras"] = keras
    return keras


def _export_graph(
    keras: ModuleType, handed: Path, task: Mapping[str, Any], route: Route, graph: str
) -> list[dict[str, str]]:
    """One row for each format: graph, format, route, path, reason."""
    builders = {Route.REBUILT: _rebuild, Route.WRAPPED: _wrap}
    built: list[Any] = []
    refused = _attempt(lambda: built.append(builders[route](keras, handed, task, graph)))
    rows = []
    for format_ in map(Format, task["formats"]):
        path = Path(task["folder"]) / route / f"{graph}{KERAS_FORMATS[format_][1]}"
        reason = refused or _attempt(partial(_export, keras, built[0], format_, path))
        rows.append({"graph": graph, "format": format_, "route": route, "path": str(path), "reason": reason})
    return rows


def _attempt(work: Callable[[], object]) -> str:
    """The reason why `work` failed, "" when it did not."""
    try:
        work()
    except Exception as error:  # converters and Keras raise many types; all mean that this graph can't pass
        text = re.sub(r"\x1b\[\d+m", "", str(error))  # Keras prints some in bold
        return f"{type(error).__name__}: {' '.join(text.split())}"[:REASON_LENGTH]
    return ""


def _rebuild(keras: ModuleType, handed: Path, task: Mapping[str, Any], graph: str) -> Any:
    """The graph built by `models` on Keras 3, with the weights of the one that was trained."""
    config = DecoderConfig(**task["decoder"] | {"raw_shape": tuple(task["decoder"]["raw_shape"])})
    decoder = build_decoder(config)
    with np.load(handed / WEIGHTS) as arrays:
        _fill(decoder.sequence, "decoder", arrays)
        if graph != ENCODER:
            return decoder.step
        encoder = build_encoder(task["encoder"], decoder_entry(config.kind).feature_kind, weights="random")
        _fill(encoder, "encoder", arrays)
    return keras.Model(encoder.input, decoder.prepare(encoder(encoder.input)), name=ENCODER)


def _fill(model: Any, part: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set the weights of every layer by its name. Raises UnsupportedError when the layers are others."""
    given: dict[str, list[NDArray[Any]]] = {}
    for key in arrays:
        if key.startswith(f"{part}/"):
            given.setdefault(key.split("/")[1], []).append(arrays[key])
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    different = sorted(set(layers) ^ set(given))
    if different:
        raise UnsupportedError(f"the {part} is not as its builder builds it: layer '{different[0]}' is in one only")
    for name, layer in layers.items():
        layer.set_weights(given[name])


def _wrap(keras: ModuleType, handed: Path, task: Mapping[str, Any], graph: str) -> Any:
    """The graph as one layer around its SavedModel."""
    layer = keras.layers.TFSMLayer(str(handed / graph), call_endpoint=ENDPOINT)
    specs = layer.call_endpoint_fn.input_signature[0]
    inputs = {name: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=name) for name, spec in specs.items()}
    return keras.Model(inputs, layer(inputs), name=graph)


def _export(keras: ModuleType, model: Any, format_: Format, path: Path) -> None:
    """Write one file, whole or not at all."""
    if format_ is Format.ONNX:
        model = _with_onnx_names(keras, model)
        # Keras refuses to export to ONNX what was never called on values ("has never called").
        zeros = {tensor.name: np.zeros((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs}
        model(zeros if isinstance(model.input, dict) else next(iter(zeros.values())))
    keras_name, suffix = KERAS_FORMATS[format_]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".partial{suffix}")
    model.export(str(unfinished), format=keras_name, verbose=False)
    unfinished.replace(path)


def _with_onnx_names(keras: ModuleType, model: Any) -> Any:
    """The model with outputs named apart from its inputs, or tf2onnx says that the input does not exist."""
    taken = {tensor.name for tensor in model.inputs}
    outputs = {f"{name}{OUTPUT_SUFFIX}" if name in taken else name: value for name, value in model.output.items()}
    return keras.Model(model.input, outputs, name=model.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
