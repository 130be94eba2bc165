"""Bisection: graphs are cut without changing their numbers, and the layer whose weights were changed is found."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.captioning import load_sessions
from bench.launcher import Launcher
from bench.parity.bisect import Bisection, Bisector, Feeds, Side, default_tolerance
from bench.parity.bisect_command import run_bisect
from bench.parity.boundary_worker import run_part
from bench.parity.command import Selection
from bench.parity.reproduction import write_reproduction
from bench.preparing import Options
from bench.runtimes import find_runtime
from bench.suite import load_suite
from convert.artifact import ENCODER, Artifact
from convert.cut_tflite import input_indices
from convert.cuts import Place, cut, find_places, plain_path, shared_places
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Store
from convert.tflite_file import pack, unpack
from models.datasets import Dataset, Split
from models.errors import ConfigError
from models.vocabulary import START

Build = Callable[[Recipe], Artifact]
RUNTIMES = {Format.ONNX: "onnxruntime", Format.TFLITE: "tflite"}
FORMATS = list(RUNTIMES)
GRAPHS = [ENCODER, str(Graph.STEP)]


@pytest.fixture(scope="module")
def feeds(build: Build, dataset: Dataset) -> dict[str, list[Feeds]]:
    """Of two pictures: pixels for the encoder, and the first step's tensors."""
    artifact = build(Recipe("tiny-attention", Format.ONNX))
    with load_sessions(artifact, find_runtime("onnxruntime"), threads=1) as loaded:
        pixels = [loaded.preprocess(dataset.read(image.id)) for image in dataset.images(Split.TEST)[:2]]
        inputs = [dict(loaded.encode(one)) for one in pixels]
    token = np.array([START], np.int32)
    return {ENCODER: [{"image": one} for one in pixels], "step": [{"token": token, **one} for one in inputs]}


def side(artifact: Artifact, graph: str, path: Path | None = None) -> Side:
    found = path or artifact.graphs[graph]
    return Side(found, RUNTIMES[artifact.recipe.format], tuple(find_places(found)))


def bisect(reference: Side, own: Side, graph: str, feeds: dict[str, list[Feeds]], work: Path) -> Bisection:
    return Bisector(Launcher(), reference, own, feeds[graph], work).bisect(graph, 1e-3)


def renamed(path: Path, feeds: Feeds) -> Feeds:
    if path.suffix == ".onnx":
        return feeds
    return {input_indices(path)[name]: value for name, value in feeds.items() if name in input_indices(path)}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("format_", FORMATS)
def test_parts_compute_what_the_whole_does(
    build: Build, feeds: dict[str, list[Feeds]], tmp_path: Path, format_: Format, graph: str
) -> None:
    path = build(Recipe("tiny-attention", format_)).graphs[graph]
    places = find_places(path)
    given = renamed(path, feeds[graph][0])
    middle, last = places[len(places) // 2], places[-1]
    first_part = cut(path, tmp_path / f"a{path.suffix}", middle.entry)
    whole = cut(path, tmp_path / f"b{path.suffix}", last.tensor)
    second_part = cut(path, tmp_path / f"c{path.suffix}", last.tensor, [middle.entry])
    handed_on = {**given, middle.entry: run_part(first_part.path, given, 1)}
    np.testing.assert_allclose(
        run_part(second_part.path, handed_on, 1), run_part(whole.path, given, 1), rtol=1e-5, atol=1e-5
    )
    assert first_part.path.stat().st_size < path.stat().st_size


@pytest.mark.parametrize("graph", GRAPHS)
def test_runtimes_agree_at_every_place(build: Build, feeds: dict[str, list[Feeds]], tmp_path: Path, graph: str) -> None:
    onnx, tflite = (side(build(Recipe("tiny-attention", f)), graph) for f in FORMATS)
    found = bisect(onnx, tflite, graph, feeds, tmp_path)
    assert found.suspect is None
    assert len(found.boundaries) >= 8
    assert max(boundary.error for boundary in found.boundaries) < 1e-4


def perturbed_onnx(path: Path, out: Path, layer: str) -> Path:
    import onnx

    model = onnx.load(str(path))
    node = next(
        n for n in model.graph.node if layer in plain_path(n.name).split("/") and n.op_type in ("Conv", "MatMul")
    )
    weights = next(w for w in model.graph.initializer if w.name in node.input)
    changed = onnx.numpy_helper.to_array(weights) * np.float32(1.1)
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, weights.name))
    onnx.save(model, str(out))
    return out


def perturbed_tflite(path: Path, out: Path, layer: str) -> Path:
    model = unpack(path.read_bytes())
    graph = model.subgraphs[0]
    place = next(p for p in find_places(path) if any(layer in name.split("/") for name in p.names))
    operator = next(o for o in graph.operators if int(place.tensor) in map(int, o.outputs))
    buffer = model.buffers[graph.tensors[int(operator.inputs[1])].buffer]
    buffer.data = np.frombuffer((np.frombuffer(bytes(buffer.data), np.float32) * np.float32(1.1)).tobytes(), np.uint8)
    out.write_bytes(pack(model))
    return out


@pytest.mark.parametrize(
    ("graph", "layer"),
    [(ENCODER, "conv1"), (ENCODER, "conv3"), (ENCODER, "key"), ("step", "question"), ("step", "words")],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_perturbed_layer_is_found(
    build: Build, feeds: dict[str, list[Feeds]], tmp_path: Path, format_: Format, graph: str, layer: str
) -> None:
    artifact = build(Recipe("tiny-attention", format_))
    perturb = perturbed_onnx if format_ is Format.ONNX else perturbed_tflite
    path = perturb(artifact.graphs[graph], tmp_path / artifact.graphs[graph].name, layer)
    found = bisect(side(artifact, graph), side(artifact, graph, path), graph, feeds, tmp_path)
    assert found.suspect is not None
    names = next(p.names for p in find_places(path) if p.label == found.suspect.layer)
    assert any(layer in name.split("/") for name in names)
    assert found.suspect.local_error > 0.05

    folder = write_reproduction(found, found.suspect, tmp_path / "reproduction", said="")
    done = subprocess.run([sys.executable, folder / "reproduce.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "relative error" in done.stdout
    # With the layer as it should be, the same script is content.
    whole = cut(
        artifact.graphs[graph], tmp_path / f"good{path.suffix}", found.suspect.part.output, found.suspect.part.inputs
    )
    whole.path.replace(folder / f"model{path.suffix}")
    assert subprocess.run([sys.executable, folder / "reproduce.py"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("format_", FORMATS)
def test_integers_lose_little_at_each_layer(
    build: Build, feeds: dict[str, list[Feeds]], tmp_path: Path, format_: Format
) -> None:
    int8 = Scheme(Precision.INT8_STATIC)
    exact, own = build(Recipe("tiny-attention", format_)), build(Recipe("tiny-attention", format_, int8, int8))
    found = bisect(side(exact, ENCODER), side(own, ENCODER), ENCODER, feeds, tmp_path)
    assert len(found.boundaries) >= 8
    assert 1e-4 < found.boundaries[0].error < 0.2
    assert default_tolerance(exact, own) == 0.1
    assert default_tolerance(exact) == 1e-3


def test_last_of_several_operators_meets_one_that_does_them_all() -> None:
    product, bias, both = (
        Place(frozenset(names), name, name)
        for name, names in (("a", {"d/MatMul"}), ("b", {"d/BiasAdd"}), ("c", {"d/MatMul", "d/BiasAdd"}))
    )
    assert shared_places([product, bias], [both]) == [(bias, both)]
    assert shared_places([both], [product, bias]) == [(both, bias)]
    assert shared_places([product], [Place(frozenset({"other"}), "x", "x")]) == []


@pytest.mark.parametrize(
    ("rows", "reference", "told"),
    [
        ((), "", "takes one --row"),
        (("scenes.saved_model.fp32 @ tensorflow",), "", "can't be cut into layers"),
        (("scenes.onnx.fp32 @ onnxruntime",), "", "no other row to bisect"),
        (("scenes.onnx.fp32 @ onnxruntimes",), "", "Did you mean"),
    ],
)
def test_rows_that_can_not_be_bisected_are_refused(
    tmp_path: Path, rows: tuple[str, ...], reference: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run_bisect(load_suite("scenes"), Store(tmp_path), Launcher(), tmp_path, Options(), Selection(rows, reference))
