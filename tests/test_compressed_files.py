"""What was asked of a technique is read back from the exported TFLite and ONNX files, not from Keras."""

from collections.abc import Callable

import pytest

from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder
from convert.readback import (
    StoredWeight,
    distinct_values,
    follows_two_of_four,
    multiply_adds,
    read_weights,
    sparsity,
)
from convert.recipe import Format, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Entry, Store
from models.compression.weights import MINIMUM_ELEMENTS
from models.datasets import Dataset
from models.errors import UnsupportedError

Export = Callable[..., Artifact]
FORMATS = (Format.TFLITE, Format.ONNX)
PRUNED, CLUSTERED = "prune80(epochs=4)", "prune80(epochs=4)+cluster16(epochs=1)"
QUANTIZED = f"{CLUSTERED}+qat(epochs=1)"


@pytest.fixture
def export(store: Store, dataset: Dataset, compressed: Callable[[str, str], Entry]) -> Export:
    """The artifact of a chain on the tiny merge captioner, through the store as a suite does it."""

    def export(chain: str, format_: Format, precision: Precision = Precision.FP32) -> Artifact:
        entry = compressed(chain, "merge")
        recipe = Recipe("tiny-merge", format_, Scheme(precision), Scheme(precision), technique=chain)
        with ArtifactBuilder(store, entry, dataset) as builder:
            return load_artifact(builder.build(recipe).path)

    return export


def large_weights(artifact: Artifact) -> list[StoredWeight]:
    weights = [weight for path in artifact.graphs.values() for weight in read_weights(path)]
    large = [weight for weight in weights if weight.values.size >= MINIMUM_ELEMENTS]
    assert len(large) >= 8
    return large


@pytest.mark.parametrize(
    ("format_", "precision"),
    [
        (Format.TFLITE, Precision.FP32),
        (Format.TFLITE, Precision.INT8_STATIC),
        (Format.ONNX, Precision.FP32),
        (Format.ONNX, Precision.FP16),
        (Format.ONNX, Precision.INT8_DYNAMIC),
    ],
)
def test_pruned_files_have_the_zeros(export: Export, format_: Format, precision: Precision) -> None:
    for weight in large_weights(export(PRUNED, format_, precision)):
        assert sparsity(weight) >= 0.8 - 2 / weight.values.size, weight.name


@pytest.mark.parametrize("format_", FORMATS)
def test_two_of_four_files_have_the_pattern(export: Export, format_: Format) -> None:
    products = [w for w in large_weights(export("two_of_four(epochs=1)", format_)) if w.operator in ("conv", "dense")]
    assert len(products) >= 8
    assert all(follows_two_of_four(weight) for weight in products)


@pytest.mark.parametrize("format_", FORMATS)
def test_clustered_files_have_as_many_values_and_the_zeros(export: Export, format_: Format) -> None:
    for weight in large_weights(export(CLUSTERED, format_)):
        assert distinct_values(weight, per_channel=False) <= 16, weight.name
        assert sparsity(weight) >= 0.8 - 2 / weight.values.size, weight.name


@pytest.mark.parametrize("format_", FORMATS)
def test_integers_of_a_quantized_file_keep_zeros_and_clusters(export: Export, format_: Format) -> None:
    for weight in large_weights(export(QUANTIZED, format_, Precision.INT8_STATIC)):
        assert weight.integers is not None, weight.name
        assert distinct_values(weight, per_channel=True) <= 16, weight.name
        assert sparsity(weight) >= 0.8 - 2 / weight.values.size, weight.name


@pytest.mark.parametrize("format_", FORMATS)
def test_slim_files_multiply_as_little_as_asked(export: Export, format_: Format) -> None:
    dense, slim = export("none", format_), export("slim50(epochs=1)", format_)
    for graph in dense.graphs:
        assert multiply_adds(slim.graphs[graph]) <= 0.55 * multiply_adds(dense.graphs[graph]), graph
    assert slim.size_bytes["total"] < 0.7 * dense.size_bytes["total"]


@pytest.mark.parametrize("format_", FORMATS)
def test_tied_files_are_smaller(export: Export, format_: Format) -> None:
    """The shared table is stored once."""
    tied = export("tie(epochs=1)", format_)
    tables = [w for w in read_weights(tied.decoder_graph) if 16 in w.values.shape and 59 in w.values.shape]
    assert len(tables) == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_quantized_half_is_exported_in_no_other_precision(export: Export, format_: Format) -> None:
    with pytest.raises(UnsupportedError, match="its only precision is int8_static"):
        export(QUANTIZED, format_, Precision.FP16)


def test_what_chains_have_in_common_is_compressed_once(
    compressed: Callable[[str, str], Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    for chain in (PRUNED, CLUSTERED, QUANTIZED):
        compressed(chain, "merge")
    capsys.readouterr()
    compressed(QUANTIZED, "merge")
    assert capsys.readouterr().err.count("reused") == 4  # trained, pruned, clustered, quantized
