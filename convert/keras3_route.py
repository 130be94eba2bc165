"""A second route to ONNX and TFLite: `Model.export` of Keras 3, in a process of its own.

The captioners are models of Keras 2 (`tf_keras`), because TensorFlow Model Optimization needs it. Keras 3 can't load
their files ("Could not locate class 'Functional'"; https://github.com/keras-team/keras/issues/19089 reports the like
for Keras 2.15), so a graph is handed over in one of two ways: see `Route`. The deployed artifacts don't come from
here; docs/routes.md says why.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.graphs import GraphFunction, deployable_graphs
from convert.recipe import Format, Graph
from models.captioner import Captioner
from models.errors import ConversionError, UnsupportedError
from models.files import write_text_atomic
from models.keras import tensorflow

CHILD = "convert.keras3_route_child"
# Names of what is handed to the child, and of what it hands back.
TASK, WEIGHTS, OUTCOME = "task.json", "weights.npz", "outcome.json"
ENDPOINT = "graph"  # the function that a handed SavedModel holds
FORMATS = (Format.ONNX, Format.TFLITE)
# ResNet50 in both formats and ways takes about a minute on two busy cores.
TIMEOUT_SECONDS = 1800.0


class Route(StrEnum):
    """How a graph of `tf_keras` becomes a file."""

    DIRECT = "direct"  # this project's exporters: tf2onnx, tf.lite.TFLiteConverter
    REBUILT = "keras3_rebuilt"  # our builders run on Keras 3, weights copied layer by layer
    WRAPPED = "keras3_wrapped"  # a SavedModel inside keras.layers.TFSMLayer


KERAS3 = (Route.REBUILT, Route.WRAPPED)


@dataclass(frozen=True)
class Export:
    """One graph that Keras 3 exported to `path`, or the `reason` why it could not ("" when it could)."""

    graph: str
    format: Format
    route: Route
    path: Path
    reason: str


def export_with_keras3(
    captioner: Captioner,
    folder: Path,
    *,
    formats: Sequence[Format] = FORMATS,
    routes: Sequence[Route] = KERAS3,
) -> tuple[Export, ...]:
    """Write encoder and step into `folder`/ROUTE/NAME.SUFFIX with `keras.Model.export`, fp32.

    What Keras 3 can't do to one graph is a reason in the result. Raises UnsupportedError for a format that is not
    one of `FORMATS`, and ConversionError when the process ends before it has tried them all.
    """
    other = sorted(set(formats) - set(FORMATS))
    if other:
        raise UnsupportedError(f"this route writes {' and '.join(FORMATS)}; received '{other[0]}'.")
    with tempfile.TemporaryDirectory() as work:
        _hand_over(captioner, Path(work), Route.WRAPPED in routes)
        task = _task(captioner, folder, formats, routes)
        write_text_atomic(Path(work) / TASK, json.dumps(task))
        _run_child(Path(work))
        rows = json.loads((Path(work) / OUTCOME).read_text(encoding="utf-8"))
    return tuple(
        Export(row["graph"], Format(row["format"]), Route(row["route"]), Path(row["path"]), row["reason"])
        for row in rows
    )


def _task(captioner: Captioner, folder: Path, formats: Sequence[Format], routes: Sequence[Route]) -> dict[str, Any]:
    return {
        "encoder": captioner.card.get("encoder", ""),
        "decoder": dataclasses.asdict(captioner.config),
        "formats": list(formats),
        "routes": list(routes),
        "folder": str(folder.resolve()),
    }


def _hand_over(captioner: Captioner, work: Path, saved_models: bool) -> None:
    """Write what the child builds from: arrays by layer and, if asked, a SavedModel of each graph."""
    np.savez(work / WEIGHTS, **_weights(captioner))  # type: ignore[arg-type]
    if saved_models:
        for graph in deployable_graphs(captioner, Graph.STEP):
            _save_endpoint(graph, work / graph.name)


def _weights(captioner: Captioner) -> dict[str, NDArray[Any]]:
    """Arrays by "PART/LAYER/INDEX", indices in the order that both Kerases keep within a layer."""
    return {
        f"{part}/{layer.name}/{index}": array
        for part, model in (("encoder", captioner.encoder), ("decoder", captioner.decoder.sequence))
        for layer in model.layers
        for index, array in enumerate(layer.get_weights())
    }


def _save_endpoint(graph: GraphFunction, path: Path) -> None:
    """A SavedModel whose endpoint takes one dict.

    TFSMLayer passes one argument, which the signature of a graph with several inputs refuses
    (https://github.com/keras-team/keras/issues/20813).
    """
    tf = tensorflow()
    module = tf.Module()
    module.held = list(graph.model.variables)
    setattr(module, ENDPOINT, graph.function)
    tf.saved_model.save(module, str(path))


def _run_child(work: Path) -> None:
    """Raises ConversionError with the last thing that the child said."""
    # `models.keras` gives one Keras to a process, and this process has chosen the other.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    chosen = {"TF_USE_LEGACY_KERAS": "0", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = inherited | chosen | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-m", CHILD, str(work)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ConversionError(f"Keras 3 did not end within {TIMEOUT_SECONDS:.0f} s; export fewer graphs.") from None
    if done.returncode or not (work / OUTCOME).is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
        raise ConversionError(f"the process with Keras 3 ended with status {done.returncode}; it said: {said[-1]}")
