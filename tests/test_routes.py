"""The route through Keras 3: the same outputs and captions as the direct one, or a named reason."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bench.runtimes import RUNTIMES
from convert import keras3_route
from convert.artifact import ENCODER
from convert.keras3_route import KERAS3, Route, export_with_keras3
from convert.keras3_route_compare import RouteComparison, Run, compare_routes
from convert.recipe import Format, Graph
from models.captioner import Captioner
from models.datasets import Dataset, Split
from models.encoders import FeatureKind, build_encoder
from models.errors import ConversionError, UnsupportedError
from models.keras import keras

RUNTIME = {".onnx": "onnxruntime", ".tflite": "tflite"}
Compared = Callable[[str], dict[tuple[str, str, str], RouteComparison]]


def load(path: Path) -> Run:
    return RUNTIMES[RUNTIME[path.suffix]].load(path, threads=2).run


@pytest.fixture(scope="module")
def compared(
    captioner: Callable[[str], Captioner], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Compared:
    """Every comparison of a decoder by graph, format and route."""
    images = [image.id for image in dataset.images(Split.TEST)]

    @cache
    def compare(decoder: str) -> dict[tuple[str, str, str], RouteComparison]:
        folder = tmp_path_factory.mktemp(decoder)
        rows = compare_routes(captioner(decoder), dataset, images, load=load, folder=folder)
        return {(row.graph, row.format, row.route): row for row in rows}

    return compare


@pytest.mark.parametrize("route", KERAS3)
@pytest.mark.parametrize("format_", [Format.ONNX, Format.TFLITE])
@pytest.mark.parametrize("graph", [ENCODER, Graph.STEP])
@pytest.mark.parametrize("decoder", ["merge", "attention"])
def test_keras_3_exports_what_the_direct_route_exports(
    compared: Compared, decoder: str, graph: str, format_: str, route: str
) -> None:
    row = compared(decoder)[graph, format_, route]
    assert row.works, row.reason
    # The same sums in another order: both routes convert fp32 graphs that Keras traced differently.
    assert row.max_abs_difference is not None
    assert row.max_abs_difference < 1e-4
    assert row.captions_identical == 1.0


@pytest.mark.parametrize(("route", "wraps"), [(Route.DIRECT, 0), (Route.REBUILT, 1), (Route.WRAPPED, 0)])
def test_keras_3_lets_an_embedding_count_from_its_end(compared: Compared, route: str, wraps: int) -> None:
    operators = dict(compared("merge")[Graph.STEP, Format.ONNX, route].operators or ())
    assert operators.get("Less", 0) == wraps
    assert operators["Sigmoid"] == 3  # an LSTM step of single operators by every route
    assert "LSTM" not in operators


def test_parent_keeps_its_own_keras(compared: Compared) -> None:
    assert compared("merge")
    assert keras().__name__ == "tf_keras"
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"


def test_rebuilding_names_the_layer_that_differs_and_wrapping_works(
    captioner: Callable[[str], Captioner], tmp_path: Path
) -> None:
    other = build_encoder("tiny_vgg", FeatureKind.VECTOR, weights="random")
    changed = replace(captioner("merge"), encoder=other)  # as after `slim50`: not what its card names
    exports = export_with_keras3(changed, tmp_path, formats=[Format.TFLITE])
    reasons = {(export.graph, export.route): export.reason for export in exports}
    assert "the encoder is not as its builder builds it: layer 'block1_conv1'" in reasons.pop((ENCODER, Route.REBUILT))
    assert set(reasons.values()) == {""}
    assert all(export.path.is_file() != bool(export.reason) for export in exports)


def test_other_formats_are_refused(captioner: Callable[[str], Captioner], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="onnx and tflite; received 'keras'"):
        export_with_keras3(captioner("merge"), tmp_path, formats=[Format.KERAS])


def test_a_process_that_fails_is_told_with_what_it_said(
    captioner: Callable[[str], Captioner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras3_route, "CHILD", "convert.no_such_module")
    with pytest.raises(ConversionError, match=r"status 1; it said: .*no_such_module"):
        export_with_keras3(captioner("merge"), tmp_path, routes=[Route.REBUILT])
