"""Contract of every precision and option: built by the real converter, run on the real runtime, captions scored."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.captioning import LoadedCaptioner, caption_all, load_sessions
from bench.coverage import caption_coverage
from bench.quality import score_captions
from bench.runtimes import find_runtime, runtimes_for
from convert.artifact import Artifact
from convert.readback import StoredWeight, read_weights
from convert.recipe import Format, Recipe
from convert.scheme import Scheme, parse_scheme
from models.datasets import Dataset, Split
from models.decoding import Search
from models.errors import ConfigError, UnsupportedError

Build = Callable[[Recipe], Artifact]
DEPLOYED = (Format.TFLITE, Format.ONNX)
TEXTS = (
    "fp16",
    "int8_dynamic",
    "int8_dynamic(per_tensor)",
    "int8_dynamic(reduce_range)",
    "int8_static",
    "int8_static(entropy)",
    "int8_static(percentile)",
    "int8_static(per_tensor)",
    "int8_static(qoperator)",
    "int8_static(s8s8)",
    "int8_static(qoperator,s8s8)",
    "int8_static(reduce_range)",
    "int16x8",
    "int4_weights",
)
REFUSED = {
    *((Format.TFLITE, text) for text in TEXTS if any(option in text for option in ("qoperator", "s8s8", "reduce"))),
    (Format.ONNX, "int16x8"),
}
# Cosine of the logits with those of fp32: the tiny captioner is hardly trained, so 8 bits cost it little.
ALIKE = 0.97
IMAGES = 6


def scheme_of(text: str) -> Scheme:
    return parse_scheme(text)[0]


def first_logits(loaded: LoadedCaptioner, dataset: Dataset) -> np.ndarray:
    from models.vocabulary import START

    pixels = [loaded.preprocess(dataset.read(image.id)) for image in dataset.images(Split.TEST)[:IMAGES]]
    inputs = loaded.encode(np.concatenate(pixels))
    return loaded.step(np.full(IMAGES, START, np.int32), inputs)[0]


def distinct_extremes(weight: StoredWeight) -> int:
    """How many values the largest integer of a weight stands for: one for each scale, twice if both signs occur."""
    assert weight.integers is not None
    magnitudes = np.abs(weight.integers)
    return int(np.unique(np.abs(weight.values[magnitudes == magnitudes.max()])).size)


def run(artifact: Artifact, dataset: Dataset) -> tuple[np.ndarray, float]:
    """(first logits, CIDEr of the captions) on the format's runtime."""
    runtime = find_runtime(runtimes_for(artifact.recipe.format)[0])
    images = dataset.images(Split.TEST)[:IMAGES]
    with load_sessions(artifact, runtime, threads=1) as loaded:
        encoded = ((image.id, dataset.read(image.id)) for image in images)
        captions = {
            name: loaded.sentence(found[Search.GREEDY]) for name, found in caption_all(loaded, encoded, [Search.GREEDY])
        }
        logits = first_logits(loaded, dataset)
    return logits, score_captions(captions, {image.id: image.references for image in images}).cider


@pytest.mark.parametrize("format_", DEPLOYED)
@pytest.mark.parametrize("text", TEXTS)
def test_every_precision_captions_or_says_why_not(build: Build, dataset: Dataset, format_: Format, text: str) -> None:
    scheme = scheme_of(text)
    recipe = Recipe("tiny-merge", format_, scheme, scheme)
    if (format_, text) in REFUSED:
        with pytest.raises(UnsupportedError, match=r"TFLite has no|onnxruntime") as caught:
            build(recipe)
        assert caught.value.thread.startswith("https://")
        return
    artifact = build(recipe)
    whole = run(build(Recipe("tiny-merge", format_)), dataset)[0]
    logits, cider = run(artifact, dataset)
    assert np.isfinite(cider)
    cosine = np.sum(whole * logits) / (np.linalg.norm(whole) * np.linalg.norm(logits))
    assert cosine > ALIKE
    assert artifact.recipe.encoder == scheme


@pytest.mark.parametrize("format_", DEPLOYED)
def test_named_layers_stay_in_float(build: Build, format_: Format) -> None:
    scheme = scheme_of("int8_static(float=words|embedding)")
    artifact = build(Recipe("tiny-merge", format_, decoder=scheme))
    everything = build(Recipe("tiny-merge", format_, decoder=scheme_of("int8_static")))
    kept = [w for w in read_weights(artifact.decoder_graph) if w.integers is None]
    assert not [w for w in read_weights(everything.decoder_graph) if w.integers is None]
    assert {59} <= {size for weight in kept for size in weight.values.shape}  # the vocabulary
    assert len(kept) == 2


@pytest.mark.parametrize("format_", DEPLOYED)
def test_a_layer_that_is_none_is_refused_before_converting(build: Build, format_: Format) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'words'"):
        build(Recipe("tiny-merge", format_, decoder=scheme_of("int8_static(float=word)")))


@pytest.mark.parametrize("format_", DEPLOYED)
def test_per_tensor_weights_share_one_scale(build: Build, format_: Format) -> None:
    def scales(text: str) -> list[int]:
        artifact = build(Recipe("tiny-merge", format_, scheme_of(text)))
        weights = [
            w for w in read_weights(artifact.graphs["encoder"]) if w.integers is not None and w.operator != "embedding"
        ]
        assert weights
        return [distinct_extremes(w) for w in weights]

    assert max(scales("int8_static(per_tensor)")) == 1
    assert max(scales("int8_static")) > 1


def test_reduced_weights_take_seven_bits(build: Build) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX, scheme_of("int8_static(reduce_range)")))
    integers = [w.integers for w in read_weights(artifact.graphs["encoder"]) if w.integers is not None]
    assert integers
    assert max(int(np.abs(found).max()) for found in integers) <= 64


def test_manifest_names_route_and_warnings(build: Build) -> None:
    from convert.store import read_manifest

    slow = scheme_of("int8_static(qoperator,s8s8)")
    facts = read_manifest(build(Recipe("tiny-merge", Format.ONNX, slow)).path)["facts"]
    assert "tf2onnx" in facts["route"]
    from convert.machine import machine_kind, slow_choice

    assert facts["warnings"] == [reason for reason in [slow_choice(slow, machine_kind())] if reason]


def test_overflow_on_other_cpus_is_known_from_this_one(build: Build) -> None:
    full = build(Recipe("tiny-merge", Format.ONNX, scheme_of("int8_static"), scheme_of("int8_static")))
    reduced = scheme_of("int8_static(reduce_range)")
    safe = build(Recipe("tiny-merge", Format.ONNX, reduced, reduced))
    assert set(full.saturation) == set(safe.saturation) == {"encoder", "step"}
    assert sum(risk.possible for risk in full.saturation.values()) > 0
    assert sum(risk.possible for risk in safe.saturation.values()) == 0
    assert caption_coverage(safe, 8.0).overflow_possible == 0
    assert not build(Recipe("tiny-merge", Format.TFLITE, scheme_of("int8_static"))).saturation


@pytest.mark.parametrize("format_", DEPLOYED)
def test_coverage_of_a_caption_says_what_is_integer(build: Build, format_: Format) -> None:
    half = build(Recipe("tiny-merge", format_, scheme_of("int8_static")))
    whole = build(Recipe("tiny-merge", format_, scheme_of("int8_static"), scheme_of("int8_static")))
    assert caption_coverage(whole, 8.0).macs_int8 == 1
    assert caption_coverage(whole, 8.0).floats == {}
    mixed = caption_coverage(half, 8.0)
    assert mixed.macs_int8 is not None
    assert 0 < mixed.macs_int8 < 1
    longer = caption_coverage(half, 20.0).macs_int8
    assert longer is not None
    assert longer < mixed.macs_int8  # more words, more steps in float
    assert mixed.floats
    assert all(part.startswith("step: ") for part in mixed.floats)
    assert caption_coverage(build(Recipe("tiny-merge", Format.SAVED_MODEL)), 8.0).macs_int8 is None
