"""Every format at every precision, built by the real converters and run on the real runtimes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.captioning import LoadedCaptioner, caption_all, load_sessions
from bench.runtimes import RUNTIMES, find_runtime, runtimes_for
from bench.runtimes.base import PlainSession
from convert.artifact import Artifact, load_artifact
from convert.calibration import CalibrationPlan, record_calibration
from convert.exporters import EXPORTERS
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Store
from models.captioner import Captioner
from models.datasets import Dataset, Split
from models.decoding import Search
from models.errors import ArtifactError, ConfigError, UnsupportedError
from models.vocabulary import START

Build = Callable[[Recipe], Artifact]
DEPLOYED = [Format.TFLITE, Format.ONNX]
# Distance of features and logits to the Keras graph's, as a share of their norm. fp32 sums in
# another order; fp16 rounds weights to 11 bits; INT8 rounds to 8 bits, and ranges come from a few images.
TOLERANCES = {
    Precision.FP32: 1e-5,
    Precision.FP16: 1e-2,
    Precision.INT8_DYNAMIC: 0.1,
    Precision.INT8_STATIC: 0.25,
}


@contextmanager
def loaded(artifact: Artifact) -> Iterator[LoadedCaptioner]:
    runtime = find_runtime(runtimes_for(artifact.recipe.format)[0])
    with load_sessions(artifact, runtime, threads=2) as captioner:
        yield captioner


def outputs(captioner: LoadedCaptioner, dataset: Dataset, images: int = 4) -> dict[str, Any]:
    """Encoder outputs and first logits of some test images, as one batch."""
    names = [image.id for image in dataset.images(Split.TEST)[:images]]
    pixels = np.concatenate([captioner.preprocess(dataset.read(name)) for name in names])
    inputs = dict(captioner.encode(pixels))
    logits, state = captioner.step(np.full(images, START, np.int32), inputs)
    assert set(state) == {"state_h", "state_c"}
    return {"features": inputs["features"], "logits": logits}


def relative_difference(ours: Any, theirs: Any) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("decoder", ["attention", "merge"])
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("format_", DEPLOYED)
def test_artifact_agrees_with_keras(
    build: Build, dataset: Dataset, format_: Format, precision: Precision, decoder: str
) -> None:
    name = f"tiny-{decoder}"
    with loaded(build(Recipe(name, Format.SAVED_MODEL))) as reference:
        expected = outputs(reference, dataset)
    with loaded(build(Recipe(name, format_, Scheme(precision), Scheme(precision)))) as captioner:
        found = outputs(captioner, dataset)
    for key, value in expected.items():
        assert relative_difference(found[key], value) < TOLERANCES[precision], key


@pytest.mark.parametrize("decoder", ["attention", "merge"])
@pytest.mark.parametrize("search", Search)
def test_fp32_captions_are_identical_on_all_runtimes(
    build: Build, dataset: Dataset, search: Search, decoder: str
) -> None:
    images = [(image.id, dataset.read(image.id)) for image in dataset.images(Split.TEST)]
    captions = []
    for format_ in (Format.SAVED_MODEL, *DEPLOYED):
        with loaded(build(Recipe(f"tiny-{decoder}", format_))) as captioner:
            captions.append({name: found[search].ids for name, found in caption_all(captioner, images, [search])})
    assert captions[0] == captions[1] == captions[2]


def test_study_loop_says_what_the_step_says(build: Build, dataset: Dataset) -> None:
    image = dataset.read(dataset.images(Split.TEST)[0].id)
    with loaded(build(Recipe("tiny-merge", Format.KERAS, graph=Graph.PREFIX))) as study:
        expected = study.caption(image)
    with loaded(build(Recipe("tiny-merge", Format.ONNX))) as step:
        found = step.caption(image)
    assert found.ids == expected.ids
    # fp32, summed in another order at each of the words
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-4)


@pytest.mark.parametrize("format_", DEPLOYED)
def test_halves_choose_their_precision_apart(build: Build, format_: Format) -> None:
    whole = build(Recipe("tiny-attention", format_))
    mixed = build(Recipe("tiny-attention", format_, Scheme(Precision.INT8_STATIC)))
    assert mixed.size_bytes["encoder"] < 0.5 * whole.size_bytes["encoder"]
    # tf2onnx numbers its nodes by how much it has converted before, so a few bytes may differ.
    assert mixed.size_bytes["decoder"] == pytest.approx(whole.size_bytes["decoder"], rel=0.01)


@pytest.mark.parametrize("format_", DEPLOYED)
@pytest.mark.parametrize(
    ("precision", "share"), [(Precision.FP32, 0.0), (Precision.FP16, 0.0), (Precision.INT8_DYNAMIC, 0.8)]
)
def test_coverage_says_what_is_int8(build: Build, format_: Format, precision: Precision, share: float) -> None:
    found = build(Recipe("tiny-attention", format_, Scheme(precision), Scheme(precision))).weights_int8
    assert found is not None
    assert found == 0 if share == 0 else found > share


@pytest.mark.parametrize("format_", Format)
def test_every_format_has_an_exporter_and_a_runtime(format_: Format) -> None:
    assert format_ in EXPORTERS
    assert runtimes_for(format_)


@pytest.mark.parametrize("format_", [Format.SAVED_MODEL, Format.KERAS])
def test_impossible_precision_is_refused_with_the_upstream_page(build: Build, format_: Format) -> None:
    with pytest.raises(UnsupportedError, match="only on the way to TFLite") as caught:
        build(Recipe("tiny-merge", format_, Scheme(Precision.INT8_STATIC), Scheme(Precision.INT8_STATIC)))
    assert caught.value.thread.startswith("https://")


def test_calibration_sees_training_images_only(captioner: Callable[[str], Captioner], dataset: Dataset) -> None:
    class Watched:
        read_ids: list[str] = []  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            return getattr(dataset, name)

        def read(self, image_id: str) -> bytes:
            self.read_ids.append(image_id)
            return dataset.read(image_id)

    watched = Watched()
    calibration = record_calibration(captioner("attention"), watched, CalibrationPlan(6))
    training = [image.id for image in dataset.images(Split.TRAIN)[:6]]
    assert watched.read_ids == training
    assert len(list(calibration.feeds("encoder"))) == 6
    assert watched.read_ids == [*training, *training]  # read anew, not kept
    assert {"token", "features", "keys", "state_h", "state_c"} == set(next(calibration.feeds("step")))


def test_artifact_is_built_once(build: Build, store: Store) -> None:
    first = build(Recipe("tiny-merge", Format.ONNX))
    before = first.graphs["encoder"].stat().st_mtime_ns
    assert build(Recipe("tiny-merge", Format.ONNX)).graphs["encoder"].stat().st_mtime_ns == before


def test_corrupt_artifact_is_refused_by_checksum(build: Build, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "artifact"
    shutil.copytree(build(Recipe("tiny-merge", Format.ONNX)).path, copy)
    assert load_artifact(copy).recipe.format is Format.ONNX
    content = bytearray((copy / "step.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "step.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"step\.onnx is corrupt: its checksum"):
        load_artifact(copy)


def test_artifact_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact at"):
        load_artifact(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        load_artifact(tmp_path)


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime_refuses_a_format_it_does_not_read(build: Build, name: str) -> None:
    runtime = find_runtime(name)
    artifact = build(Recipe("tiny-merge", Format.ONNX))
    if Format.ONNX in runtime.formats:
        return
    with (
        pytest.raises(ConfigError, match="received an artifact of format 'onnx'"),
        load_sessions(artifact, runtime, threads=1),
    ):
        pass


@pytest.mark.parametrize(("name", "suffix"), [("onnxruntime", ".onnx"), ("tflite", ".tflite")])
def test_runtime_refuses_a_file_that_is_no_model(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"step{suffix}"
    path.write_bytes(b"this is not a model" * 10)
    with pytest.raises(ArtifactError, match="can't load"):
        find_runtime(name).load(path, threads=1)


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime_is_free_to_construct_and_says_what_it_reads(name: str) -> None:
    runtime = type(RUNTIMES[name])()
    assert runtime.name == name
    assert runtime.formats
    assert runtime.package
    assert isinstance(PlainSession().__enter__(), PlainSession)
