"""Compares Keras 3's exports with this project's own: operators, bytes, outputs and captions."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.artifact import ENCODER
from convert.calibration import Calibration
from convert.exporters import EXPORTERS
from convert.graphs import deployable_graphs
from convert.keras3_route import FORMATS, Export, Route, export_with_keras3
from convert.ledger_onnx_file import load_onnx, nodes
from convert.recipe import Format, Graph
from convert.scheme import FLOAT
from convert.tflite_file import operator_name, unpack
from models.captioner import Captioner, initial_inputs
from models.datasets.base import Dataset
from models.decoding import Search, Tensors, decode
from models.preprocessing import preprocess
from models.vocabulary import START

Run = Callable[[Tensors], Tensors]
# Opens a file on the runtime of its format; `bench.runtimes` has them, and imports point left.
Load = Callable[[Path], Run]
BATCH = 32  # images at once, so that photographs by the hundred fit into memory


@dataclass(frozen=True)
class RouteComparison:
    """One graph in one format by one route; the numbers are None where the route does not work."""

    graph: str
    format: Format
    route: Route
    reason: str  # why it does not work, "" when it does
    size_bytes: int | None = None
    operators: tuple[tuple[str, int], ...] | None = None  # how often each occurs, by name
    opset: int | None = None  # ONNX only
    max_abs_difference: float | None = None  # of its outputs to those of Route.DIRECT on the same inputs
    captions_identical: float | None = None  # share 0..1 for encoder and step of this route together

    @property
    def works(self) -> bool:
        """Whether there is a file that the runtime runs."""
        return not self.reason


def compare_routes(
    captioner: Captioner, dataset: Dataset, images: Sequence[str], *, load: Load, folder: Path
) -> tuple[RouteComparison, ...]:
    """Every graph by every route in both formats, greedy captions over `images` (ids); files stay in `folder`.

    Raises ConversionError when a direct export fails or the process of Keras 3 ends early.
    """
    exports = (*_direct(captioner, folder), *export_with_keras3(captioner, folder))
    batches = [_pixels(captioner, dataset, images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    rows: list[RouteComparison] = []
    for format_ in FORMATS:
        by_route = {route: [e for e in exports if (e.route, e.format) == (route, format_)] for route in Route}
        ours = {export.graph: load(export.path) for export in by_route[Route.DIRECT]}
        seen = [_observe(captioner, ours, pixels) for pixels in batches]
        for chosen in by_route.values():
            rows += _compare(captioner, chosen, load, seen)
    return tuple(rows)


def _direct(captioner: Captioner, folder: Path) -> list[Export]:
    """The graphs by this project's exporters."""
    target = folder / Route.DIRECT
    target.mkdir(parents=True, exist_ok=True)
    return [
        Export(graph.name, format_, Route.DIRECT, target / EXPORTERS[format_](graph, FLOAT, Calibration(), target), "")
        for graph in deployable_graphs(captioner, Graph.STEP)
        for format_ in FORMATS
    ]


def _pixels(captioner: Captioner, dataset: Dataset, images: Sequence[str]) -> NDArray[np.float32]:
    """float32 (images, height, width, 3)."""
    return np.stack([preprocess(dataset.read(name), captioner.preprocessing, name=name) for name in images])


@dataclass(frozen=True)
class _Observed:
    """What the direct route takes and says for one batch."""

    feeds: dict[str, Tensors]  # by graph
    outputs: dict[str, Tensors]
    pixels: NDArray[np.float32]
    captions: list[tuple[int, ...]]


def _observe(captioner: Captioner, runs: dict[str, Run], pixels: NDArray[np.float32]) -> _Observed:
    image = {"image": pixels}
    prepared = runs[ENCODER](image)
    first = {"token": np.full(len(pixels), START, np.int32), **initial_inputs(prepared, captioner.config.units)}
    feeds: dict[str, Tensors] = {ENCODER: image, Graph.STEP: first}
    outputs = {ENCODER: prepared, Graph.STEP: runs[Graph.STEP](first)}
    return _Observed(feeds, outputs, pixels, _captions(captioner, runs, pixels))


def _captions(captioner: Captioner, runs: dict[str, Run], pixels: NDArray[np.float32]) -> list[tuple[int, ...]]:
    """Greedy token ids of a batch."""

    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[Any, Tensors]:
        outputs = dict(runs[Graph.STEP]({"token": token, **inputs}))
        return outputs.pop("logits"), outputs

    inputs = initial_inputs(runs[ENCODER]({"image": pixels}), captioner.config.units)
    decoded = decode(step, inputs, search=Search.GREEDY, max_length=captioner.max_length)
    return [caption.ids for caption in decoded]


def _compare(
    captioner: Captioner, exports: Sequence[Export], load: Load, seen: Sequence[_Observed]
) -> list[RouteComparison]:
    """The rows of one route in one format."""
    runs: dict[str, Run] = {}
    rows = [_compare_graph(export, load, seen, runs) for export in exports]
    if len(runs) < len(exports):
        return rows
    said = [ids for batch in seen for ids in _captions(captioner, runs, batch.pixels)]
    expected = [ids for batch in seen for ids in batch.captions]
    share = sum(map(operator.eq, said, expected)) / len(expected)
    return [replace(row, captions_identical=share) for row in rows]


def _compare_graph(export: Export, load: Load, seen: Sequence[_Observed], runs: dict[str, Run]) -> RouteComparison:
    """The row of one graph, whose session is added to `runs` when it works."""
    row = RouteComparison(export.graph, export.format, export.route, export.reason)
    if export.reason:
        return row
    try:
        run = load(export.path)
        difference = max(_difference(run(batch.feeds[export.graph]), batch.outputs[export.graph]) for batch in seen)
    except Exception as error:  # runtimes raise many types; all mean that the file is of no use
        return replace(row, reason=f"its file does not run as ours does: {error}")
    runs[export.graph] = run
    operators, opset = _READERS[export.format](export.path)
    size = export.path.stat().st_size
    counted = tuple(sorted(operators.items()))
    return replace(row, size_bytes=size, operators=counted, opset=opset, max_abs_difference=difference)


def _difference(outputs: Tensors, expected: Tensors) -> float:
    """The largest of all tensors. Raises ValueError when names or shapes differ, or when a number is not finite."""
    shapes = {name: value.shape for name, value in expected.items()}
    received = {name: value.shape for name, value in outputs.items()}
    if received != shapes:
        raise ValueError(f"outputs {received} instead of {shapes}")
    differences = [
        np.abs(outputs[name].astype(np.float64) - value.astype(np.float64)).max() for name, value in expected.items()
    ]
    largest = float(np.max(differences))  # Python's own max may skip a NaN
    if not np.isfinite(largest):
        raise ValueError("outputs hold numbers that are not finite")
    return largest


def _read_onnx(path: Path) -> tuple[Counter[str], int | None]:
    """Operators and opset."""
    model = load_onnx(path)
    opsets = {entry.domain: int(entry.version) for entry in model.opset_import}
    return Counter(node.op_type for node in nodes(model)), opsets.get("")


def _read_tflite(path: Path) -> tuple[Counter[str], int | None]:
    """Operators; the format has no opset."""
    model = unpack(path.read_bytes())
    return Counter(operator_name(model, each) for graph in model.subgraphs for each in graph.operators), None


_READERS = {Format.ONNX: _read_onnx, Format.TFLITE: _read_tflite}
