"""Replays: a row against itself differs in nothing, and each planted fault is found and called by its name."""

import dataclasses
import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_spec
from faults import FaultyRuntime, noisy, other_end, shifted_words, zero_state
from PIL import Image

from bench.captioning import load_sessions
from bench.job import DatasetReference
from bench.parity import comparison
from bench.parity.causes import judge, noise
from bench.parity.evidence import Evidence, Examined
from bench.parity.findings import examine
from bench.parity.job import ParityJob
from bench.parity.record import Cause
from bench.parity.replay import trace_images
from bench.parity.trace import Trace, TraceWriter, head_of, open_trace
from bench.parity.worker import main
from bench.quality import cider_mean
from bench.result_file import from_json
from bench.runtimes import find_runtime
from bench.runtimes.base import Runtime
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder, train
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Store
from models.datasets import Dataset, Split, open_dataset
from models.decoding import Search
from models.errors import ArtifactError
from models.preprocessing import Resample, Scaling
from models.vocabulary import END

Build = Callable[[Recipe], Artifact]
SCENES = DatasetReference("scenes", "", {"train": 48, "validation": 8, "test": 8})


@pytest.fixture(scope="module")
def talking(store: Store) -> Iterator[Build]:
    """Artifacts of a captioner that was trained for long enough to say something of each picture."""
    scenes = open_dataset("scenes", None, {"train": 240, "validation": 8, "test": 8})
    spec = replace(tiny_spec("attention"), name="talking", epochs=16, minimum_count=2, learning_rate=5e-3)
    with ArtifactBuilder(store, train(store, spec, scenes, cider_mean), scenes) as builder:
        yield lambda recipe: load_artifact(builder.build(recipe).path)


@pytest.fixture(scope="module")
def artifact(talking: Build) -> Artifact:
    return talking(Recipe("talking", Format.ONNX))


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> list[tuple[str, bytes]]:
    """Pictures that are not of the encoder's size, so that the way of resizing matters."""
    return [(image.id, _enlarged(dataset.read(image.id))) for image in dataset.images(Split.TEST)]


def _enlarged(encoded: bytes) -> bytes:
    file = BytesIO()
    Image.open(BytesIO(encoded)).resize((150, 131), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def trace(artifact: Artifact, images: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(artifact, images, tmp_path_factory.mktemp("trace") / "of")


def test_captioner_of_these_tests_says_something(trace: Trace) -> None:
    assert len({known.captions[Search.GREEDY].ids for known in trace.head.images.values()}) > 1


def job_of(artifact: Artifact, images: list[tuple[str, bytes]], runtime: str = "onnxruntime") -> ParityJob:
    names = tuple(name for name, _ in images)
    return ParityJob(str(artifact.path), runtime, 1, None, "", names, names)


def make_trace(artifact: Artifact, images: list[tuple[str, bytes]], folder: Path, *, keep: bool = False) -> Trace:
    runtime = "tflite" if artifact.recipe.format is Format.TFLITE else "onnxruntime"
    job = replace(job_of(artifact, images, runtime), keep_files=keep)
    with load_sessions(artifact, find_runtime(runtime), threads=1) as loaded:
        trace_images(loaded, job, images, TraceWriter(folder, head_of(artifact, runtime, "1", "")))
    return open_trace(folder)


def run(artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]], runtime: Runtime | None = None) -> Examined:
    chosen = runtime or find_runtime("tflite" if artifact.recipe.format is Format.TFLITE else "onnxruntime")
    with load_sessions(artifact, chosen, threads=1) as loaded:
        return examine(loaded, trace, job_of(artifact, images, chosen.name), images)


def causes(found: Examined, search: Search = Search.GREEDY) -> list[Cause]:
    return [
        judge(evidence, found.margin_rms, contract=found.contracts.get(evidence.image, ""))[0]
        for evidence in found.evidence.get(search, ())
    ]


def faulty(**changes: object) -> FaultyRuntime:
    return FaultyRuntime(find_runtime("onnxruntime"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["attention", "merge"])
@pytest.mark.parametrize("format_", [Format.ONNX, Format.TFLITE])
def test_row_differs_in_nothing_from_itself(
    build: Build, images: list[tuple[str, bytes]], tmp_path: Path, decoder: str, format_: Format
) -> None:
    artifact = build(Recipe(f"tiny-{decoder}", format_))
    found = run(artifact, make_trace(artifact, images, tmp_path / "trace"), images)
    assert not found.evidence
    assert not found.pixels_differ
    assert found.margin_rms == 0
    assert {difference.max_abs for difference in found.tensors.values()} == {0}
    assert {"features", "logits"} <= set(found.tensors)


def test_two_runtimes_agree_but_for_rounding(talking: Build, trace: Trace, images: list[tuple[str, bytes]]) -> None:
    found = run(talking(Recipe("talking", Format.TFLITE)), trace, images)
    assert set(causes(found)) <= {Cause.TIE_FLIP}
    assert found.tensors["logits"].tolerance < 1e-4
    assert found.tensors["logits"].snr_db is not None
    assert found.tensors["logits"].snr_db > 80


def test_prefix_and_fused_graphs_are_compared_with_the_step_graph(
    build: Build, images: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    trace = make_trace(build(Recipe("tiny-merge", Format.ONNX)), images, tmp_path / "trace")
    prefix = run(build(Recipe("tiny-merge", Format.ONNX, graph=Graph.PREFIX)), trace, images)
    fused = run(build(Recipe("tiny-merge", Format.ONNX, graph=Graph.FUSED)), trace, images)
    assert set(causes(prefix)) <= {Cause.TIE_FLIP}
    assert prefix.tensors["logits"].max_abs < 1e-3
    assert not prefix.tensors.keys() & {"prefix", "position"}
    assert set(causes(fused)) <= {Cause.TIE_FLIP}
    assert fused.margin_rms is not None
    assert fused.margin_rms < 1e-3
    assert Search.BEAM3 not in fused.captions


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"encoded": noisy(("features", "keys", "state_h", "state_c"), 2.0)}, Cause.ENCODER),
        ({"stepped": noisy(("logits",), 1.5)}, Cause.DECODER),
        ({"stepped": shifted_words}, Cause.VOCABULARY),
        ({"stepped": zero_state}, Cause.MASKING),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_planted_fault_is_named(
    artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]], changes: dict[str, object], cause: Cause
) -> None:
    found = causes(run(artifact, trace, images, faulty(**changes)))
    assert found
    # A large enough error may also move the end, or fall where the reference hardly chose.
    assert max(set(found), key=found.count) is cause
    assert set(found) <= {cause, Cause.END_OF_SENTENCE, Cause.TIE_FLIP}


def test_changed_id_of_the_end_is_named(artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]]) -> None:
    said = [word for caption in trace.head.images.values() for word in caption.captions[Search.GREEDY].ids]
    word = max({w for w in said if w != END}, key=said.count)
    found = run(artifact, trace, images, faulty(stepped=other_end(word)))
    assert set(causes(found)) == {Cause.END_OF_SENTENCE}
    assert all(set(evidence.moved) == {END, word} for evidence in found.evidence[Search.GREEDY])


def test_error_that_grows_in_the_state_is_drift(
    artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]]
) -> None:
    found = run(artifact, trace, images, faulty(stepped=noisy(("state_h", "state_c"), 1.0)))
    assert Cause.DRIFT in causes(found)
    assert set(causes(found)) <= {Cause.DRIFT, Cause.END_OF_SENTENCE, Cause.TIE_FLIP}
    growth = found.evidence[Search.GREEDY][0].growth
    assert growth[0] < 1e-6 < growth[-1]


def test_tie_is_a_tie_only_within_the_noise() -> None:
    tie = Evidence("a.jpg", Search.GREEDY, 3, 10, 11, True, margin=1e-4, replayed_token=11, token_from_features=10)
    assert judge(tie, 1e-3)[0] is Cause.TIE_FLIP
    assert judge(tie, 1e-6)[0] is Cause.ENCODER
    assert judge(replace(tie, margin=0.2), 1.0)[0] is Cause.ENCODER  # whatever the noise: no choice of 20 % is a tie
    assert noise(None) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"resample": Resample.NEAREST}, "nearest"),
        ({"scaling": Scaling.CAFFE}, "BGR"),
        ({"scaling": Scaling.TF}, "[-1, 1]"),
    ],
)
def test_other_preparation_is_named(
    artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]], change: dict[str, object], told: str
) -> None:
    contract = artifact.contract
    prepared = replace(contract.preprocessing, **change)  # type: ignore[arg-type]
    wrong = replace(artifact, contract=replace(contract, preprocessing=prepared))
    found = run(wrong, trace, images)
    assert len(found.pixels_differ) == len(images)
    assert told in " ".join(found.contracts.values())
    assert set(causes(found)) <= {Cause.PREPROCESSING}
    graph = found.graph_captions[Search.GREEDY]
    assert graph == {name: known.captions[Search.GREEDY].ids for name, known in trace.head.images.items()}


def test_examining_keeps_no_tensor_of_a_past_image(
    artifact: Artifact, trace: Trace, images: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = []
    init = comparison.Comparison.__init__

    def counted(self: object, *arguments: object) -> None:
        gc.collect()
        most.append(len(alive))
        alive.add(self)
        init(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison.Comparison, "__init__", counted)
    run(artifact, trace, images)
    assert max(most) <= 1


def test_int8_differs_as_its_rows_say(talking: Build, trace: Trace, images: list[tuple[str, bytes]]) -> None:
    int8 = Scheme(Precision.INT8_STATIC)
    found = run(talking(Recipe("talking", Format.TFLITE, int8, int8)), trace, images)
    assert Cause.UNKNOWN not in [*causes(found), *causes(found, Search.BEAM3)]
    assert found.tensors["features"].snr_db is not None
    assert 5 < found.tensors["features"].snr_db < 60


def test_worker_traces_and_examines(artifact: Artifact, dataset: Dataset, tmp_path: Path) -> None:
    names = tuple(image.id for image in dataset.images(Split.TEST))
    job = replace(job_of(artifact, []), dataset=SCENES, images=names, probes=names[:2], keep_files=True)
    assert main(["trace", str(job.write(tmp_path / "job.json")), str(tmp_path / "golden")]) == 0
    # On another machine: no data set, the files of the golden set.
    away = replace(job, dataset=None).write(tmp_path / "away.json")
    assert main(["examine", str(away), str(tmp_path / "golden"), str(tmp_path / "out.json")]) == 0
    found: Examined = from_json(Examined, json.loads((tmp_path / "out.json").read_text()))
    assert set(found.captions[Search.GREEDY]) == set(names)
    assert not found.evidence
    assert dataclasses.asdict(found)["margin_rms"] == 0


def test_worker_refuses_another_captioner(
    artifact: Artifact,
    build: Build,
    images: list[tuple[str, bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_trace(artifact, images, tmp_path / "golden", keep=True)
    other = job_of(build(Recipe("tiny-merge", Format.ONNX)), images).write(tmp_path / "job.json")
    assert main(["examine", str(other), str(tmp_path / "golden"), str(tmp_path / "out.json")]) == 2
    assert "its captioner is 'tiny-merge', and 'talking' there" in capsys.readouterr().err


@pytest.fixture
def damaged(trace: Trace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trace.folder, tmp_path / "damaged"))


def test_damaged_trace_is_refused(damaged: Path) -> None:
    opened = open_trace(damaged)
    first, second = list(opened.head.images)[:2]
    with np.load(damaged / "0000.npz") as file:
        arrays = dict(file)
    np.savez(damaged / "0000.npz", **(arrays | {"pixels": arrays["pixels"] ^ 1}))
    with pytest.raises(ArtifactError, match=f"the pixels of {first} are not those saved"):
        opened.read(first)
    (damaged / "0001.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ArtifactError, match=f"damaged at image {second}"):
        opened.read(second)
    (damaged / "trace.json").write_text('{"format_version": 99}')
    with pytest.raises(ArtifactError, match="has format 99; this version reads 1"):
        open_trace(damaged)
    (damaged / "trace.json").unlink()
    with pytest.raises(ArtifactError, match=r"it has no trace\.json"):
        open_trace(damaged)


def test_every_cause_is_told_in_the_docs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "parity.md").read_text(encoding="utf-8")
    assert all(f"\n### {str(cause).capitalize()}\n" in page for cause in Cause)
