"""Fused graphs: one file from pixels to words that says what the step graph of the same precision says."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.captioning import caption_all, load_sessions
from bench.job import DatasetReference, Job
from bench.latency import FUSED_PHASES, TimedCaptioner
from bench.launcher import Launcher
from bench.measure import Bench
from bench.runtimes import find_runtime, runtimes_for
from bench.setting import RunPlan
from bench.suite import Cell
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder
from convert.fused import IDS, IMAGE, LOG_PROBABILITY, GreedyLoop, fuse
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Entry, Store
from models.datasets import Dataset, Split
from models.decoding import Caption, Search
from models.errors import ConfigError, ConversionError, UnsupportedError
from models.vocabulary import END, PAD

Build = Callable[[Recipe], Artifact]
DEPLOYED = [Format.TFLITE, Format.ONNX]
COMMON = (Precision.FP32, Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT8_STATIC)
RARE = tuple(precision for precision in Precision if precision not in COMMON)
QUANTIZED = Scheme(Precision.INT8_STATIC)
SCENES = DatasetReference("scenes", "", {"train": 48, "validation": 8, "test": 8})


def recipe(decoder: str, format_: Format, encoder: Scheme, step: Scheme, graph: Graph) -> Recipe:
    return Recipe(f"tiny-{decoder}", format_, encoder, step, graph)


def greedy_captions(artifact: Artifact, dataset: Dataset) -> list[Caption]:
    images = [(image.id, dataset.read(image.id)) for image in dataset.images(Split.TEST)]
    runtime = find_runtime(runtimes_for(artifact.recipe.format)[0])
    with load_sessions(artifact, runtime, threads=2) as loaded:
        return [found[Search.GREEDY] for _, found in caption_all(loaded, images, [Search.GREEDY])]


def assert_says_the_same(fused: Artifact, stepped: Artifact, dataset: Dataset) -> None:
    expected, found = greedy_captions(stepped, dataset), greedy_captions(fused, dataset)
    assert [caption.ids for caption in found] == [caption.ids for caption in expected]
    # The driver sums in float64, the graphs in float32: at most 12 words, each off by a few 1e-7.
    theirs = [caption.log_probability for caption in expected]
    assert [caption.log_probability for caption in found] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("precision", "decoder"), [*itertools.product(COMMON, ["attention", "merge"]), *((rare, "merge") for rare in RARE)]
)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_fused_file_says_what_the_step_of_its_precision_says(
    build: Build, dataset: Dataset, format_: Format, precision: Precision, decoder: str
) -> None:
    scheme = Scheme(precision)
    try:
        stepped = build(recipe(decoder, format_, scheme, scheme, Graph.STEP))
    except UnsupportedError:
        with pytest.raises(UnsupportedError):
            build(recipe(decoder, format_, scheme, scheme, Graph.FUSED))
        return
    fused = build(recipe(decoder, format_, scheme, scheme, Graph.FUSED))
    assert [path.name for path in fused.graphs.values()] == [f"fused.{format_}"]
    assert_says_the_same(fused, stepped, dataset)
    assert fused.weights_int8 == stepped.weights_int8


@pytest.mark.parametrize("format_", DEPLOYED)
def test_halves_of_a_fused_file_choose_their_precision_apart(build: Build, dataset: Dataset, format_: Format) -> None:
    fused, stepped = (
        build(recipe("attention", format_, QUANTIZED, Scheme(Precision.FP32), graph))
        for graph in (Graph.FUSED, Graph.STEP)
    )
    assert_says_the_same(fused, stepped, dataset)


@pytest.mark.parametrize("decoder", ["attention", "merge"])
def test_fused_saved_model_says_what_its_step_says(build: Build, dataset: Dataset, decoder: str) -> None:
    fused = build(Recipe(f"tiny-{decoder}", Format.SAVED_MODEL, graph=Graph.FUSED))
    assert_says_the_same(fused, build(Recipe(f"tiny-{decoder}", Format.SAVED_MODEL)), dataset)


def test_ranges_learned_in_training_are_fused_too(
    store: Store, dataset: Dataset, compressed: Callable[[str, str], Entry]
) -> None:
    technique = "none/qat(epochs=1)"
    with ArtifactBuilder(store, compressed(technique, "merge"), dataset) as builder:
        for format_ in DEPLOYED:
            fused, stepped = (
                load_artifact(builder.build(Recipe("tiny-merge", format_, QUANTIZED, QUANTIZED, graph, technique)).path)
                for graph in (Graph.FUSED, Graph.STEP)
            )
            assert_says_the_same(fused, stepped, dataset)


@pytest.mark.parametrize("format_", [*DEPLOYED, Format.SAVED_MODEL])
def test_ids_are_one_padded_row(build: Build, image: Path, format_: Format) -> None:
    artifact = build(Recipe("tiny-merge", format_, graph=Graph.FUSED))
    with load_sessions(artifact, find_runtime(runtimes_for(format_)[0]), threads=2) as loaded:
        outputs = loaded.encoder.run({IMAGE: loaded.preprocess(image.read_bytes())})
        spoken = loaded.caption(image.read_bytes()).ids
    length = artifact.contract.max_length
    assert set(outputs) == {IDS, LOG_PROBABILITY}
    assert (outputs[IDS].dtype.name, outputs[IDS].shape) == ("int32", (1, length))
    assert (outputs[LOG_PROBABILITY].dtype.name, outputs[LOG_PROBABILITY].shape) == ("float32", (1,))
    assert tuple(outputs[IDS][0]) == spoken + (PAD,) * (length - len(spoken))


def steps_of(artifact: Artifact, directory: Path, pixels: Any) -> Counter[str]:
    """How often each kind of operator of the loop's body ran, by ONNX Runtime's own profile."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(directory / "profile")
    session = onnxruntime.InferenceSession(str(artifact.graphs["fused"]), options, providers=["CPUExecutionProvider"])
    session.run(None, {IMAGE: pixels})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    return Counter(event["args"]["op_name"] for event in kernels if event["name"].startswith("step/"))


def test_onnx_loop_multiplies_in_integers(build: Build, image: Path, tmp_path: Path) -> None:
    artifact = build(recipe("attention", Format.ONNX, QUANTIZED, QUANTIZED, Graph.FUSED))
    with load_sessions(artifact, find_runtime("onnxruntime"), threads=1) as loaded:
        pixels = loaded.preprocess(image.read_bytes())
        words = len(loaded.caption(image.read_bytes()).ids)
    ran = steps_of(artifact, tmp_path, pixels)
    # Two of the LSTM, question, energy, context, hidden, words.
    assert ran["QLinearMatMul"] == 7 * words
    assert not ran["MatMul"] + ran["Gemm"]


def unpacked(path: Path) -> Any:
    from convert.tflite_file import unpack

    return unpack(path.read_bytes())


def test_tflite_loop_multiplies_in_integers_and_works_no_shapes_out(build: Build) -> None:
    from convert.tflite_file import operator_name, schema

    model = unpacked(build(recipe("attention", Format.TFLITE, QUANTIZED, QUANTIZED, Graph.FUSED)).graphs["fused"])
    main, _, body = model.subgraphs
    kinds = [operator_name(model, operator) for graph in (main, body) for operator in graph.operators]
    assert kinds.count("WHILE") == 1
    assert not {"SHAPE", "STRIDED_SLICE", "PACK"} & set(kinds)
    dense = [operator for operator in body.operators if operator_name(model, operator) == "FULLY_CONNECTED"]
    assert len(dense) == 6
    assert {body.tensors[operator.inputs[1]].type for operator in dense} == {schema().TensorType.INT8}


def test_tflite_constants_are_aligned(build: Build) -> None:
    from convert.tflite_file import schema

    content = build(Recipe("tiny-merge", Format.TFLITE, graph=Graph.FUSED)).graphs["fused"].read_bytes()
    model = schema().Model.GetRootAsModel(content, 0)
    base = np.frombuffer(content, np.uint8).ctypes.data
    constants = [model.Buffers(index).DataAsNumpy() for index in range(model.BuffersLength())]
    assert {(data.ctypes.data - base) % 16 for data in constants if isinstance(data, np.ndarray)} == {0}


def test_fused_file_is_searched_greedily_only(build: Build, image: Path) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX, graph=Graph.FUSED))
    with (
        load_sessions(artifact, find_runtime("onnxruntime"), threads=1) as loaded,
        pytest.raises(ConfigError, match="received 'beam3'"),
    ):
        loaded.caption(image.read_bytes(), Search.BEAM3)


def test_quality_run_of_a_fused_file_has_what_it_offers(build: Build, dataset: Dataset, tmp_path: Path) -> None:
    images = tuple(image.id for image in dataset.images(Split.TEST))
    versions = {"onnxruntime": "1"}
    bench = Bench(Store(tmp_path), Launcher(), SCENES, dataset.fingerprint, images, RunPlan(), versions)
    fused, stepped = (
        bench.caption(Cell(artifact.recipe, "onnxruntime"), artifact)
        for artifact in (build(Recipe("tiny-merge", Format.ONNX, graph=graph)) for graph in (Graph.FUSED, Graph.STEP))
    )
    assert list(fused.captions) == [Search.GREEDY]
    assert not fused.probe
    assert fused.ids(Search.GREEDY) == stepped.ids(Search.GREEDY)
    assert all(ids[-1] == END or len(ids) == 12 for ids in fused.ids(Search.GREEDY).values())


def test_whole_captions_get_the_time_of_phases_that_a_fused_file_lacks(build: Build, dataset: Dataset) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX, graph=Graph.FUSED))
    images = tuple(image.id for image in dataset.images(Split.TEST)[:1])
    with ExitStack() as stack:
        timed = TimedCaptioner(Job(str(artifact.path), "onnxruntime", 1, SCENES, images), stack)
        timed.load()
        assert set(timed.shares) == FUSED_PHASES
        assert sum(timed.shares.values()) == pytest.approx(1)
        for phase in timed.shares:
            timed.phase(phase)()
    assert list(timed.captions) == list(images)


def test_fused_keras_file_is_refused(build: Build) -> None:
    with pytest.raises(UnsupportedError, match="format 'keras' has no fused graph"):
        build(Recipe("tiny-merge", Format.KERAS, graph=Graph.FUSED))


@pytest.mark.parametrize("format_", DEPLOYED)
def test_parts_that_do_not_fit_are_refused(build: Build, format_: Format) -> None:
    encoder = build(Recipe("tiny-merge", format_)).graphs["encoder"]
    step = build(Recipe("tiny-attention", format_)).graphs["step"]
    with pytest.raises(ConversionError, match="takes 'keys', which the encoder does not give"):
        fuse(format_, encoder, step, GreedyLoop(12, 32, 40))
