"""The matrix names every technique, precision, format and runtime, and its page is that of the registries."""

import re
from pathlib import Path

import pytest

from bench.matrix import MatrixCell, Outcome, run_matrix
from bench.runtimes import runtimes_for
from bench.suite import Cell, Suite, load_suite
from convert.recipe import Format, Graph, Recipe
from convert.scheme import OPTIONS, Precision, Scheme
from convert.store import Store
from models.compression.registry import TECHNIQUES
from reports.matrix import render_matrix

PAGE = Path(__file__).parent.parent / "docs" / "matrix.md"


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("matrix")


def test_every_technique_precision_format_and_runtime_is_there(suite: Suite) -> None:
    """One line added to a registry must be one line more in the suite, or this fails."""
    whole = {
        (cell.recipe.technique.partition("/")[0], cell.recipe.encoder.precision, cell.recipe.format, cell.runtime)
        for cell in suite.cells
        if cell.recipe.encoder == cell.recipe.decoder and cell.recipe.graph is Graph.STEP
    }
    named = {re.match(r"[a-z_]+", technique.split("+")[-1])[0] for technique, *_ in whole}  # type: ignore[index]
    assert named == {*TECHNIQUES, "none"}
    techniques = {technique for technique, *_ in whole}
    pairs = {(format_, runtime) for format_ in Format for runtime in runtimes_for(format_)}
    wanted = {(t, p, f, r) for t in techniques for p in Precision for f, r in pairs}
    assert wanted <= whole


def test_every_option_of_a_precision_is_there(suite: Suite) -> None:
    used = {value for cell in suite.cells for value in cell.recipe.encoder.options.values()}
    assert used == {value for values in OPTIONS.values() for value in values}
    assert any(cell.recipe.decoder.float_layers for cell in suite.cells)
    assert {cell.recipe.graph for cell in suite.cells} == {Graph.STEP, Graph.FUSED}


def test_the_page_is_of_this_suite(suite: Suite) -> None:
    """`nox -s matrix` writes it anew; a cell that fails is mended or explained, not published."""
    page = PAGE.read_text()
    assert "failed [" not in page
    for cell in suite.cells:
        assert f"## {cell.recipe.format} on {cell.runtime}" in page
        technique = cell.recipe.technique.replace("_", r"\_")
        assert f"| {technique} |" in page or f"| `{cell.recipe.technique}` |" in page


def cells() -> tuple[MatrixCell, ...]:
    static = Scheme(Precision.INT8_STATIC)

    def cell(technique: str, scheme: Scheme, **found: object) -> MatrixCell:
        recipe = Recipe("tiny", Format.ONNX, scheme, scheme, technique=technique)
        return MatrixCell(Cell(recipe, "onnxruntime"), **found)  # type: ignore[arg-type]

    works = {"outcome": Outcome.WORKS, "size_ratio": 3.9, "captions_identical": 0.875, "cider": 0.4}
    why = {"outcome": Outcome.UNSUPPORTED, "reason": "no | way", "thread": "https://example.org/1"}
    return (
        cell("none", Scheme(), **(works | {"size_ratio": 1.0, "captions_identical": 1.0})),
        cell("none", static, **works),
        cell("qat", Scheme(), **why),
        cell("qat", static, **works),
        MatrixCell(Cell(Recipe("tiny", Format.ONNX, static, Scheme()), "onnxruntime"), Outcome.FAILED, reason="broke"),
    )


def test_a_cell_says_what_it_is_worth_or_why_not() -> None:
    page = render_matrix(cells(), images=8)
    assert "| `none` | 1.0x, 100 % | 3.9x, 87.5 % |" in page
    assert "| `qat` | [1](#why-not) | 3.9x, 87.5 % |" in page
    assert "| `int8_static+fp32` | failed [2](#why-not) |" in page
    assert r"1. no \| way ([upstream](https://example.org/1))" in page
    assert "captioned 8 test images" in page


def test_cells_run_and_one_that_can_not_does_not_stop_the_others(suite: Suite, store: Store, tmp_path: Path) -> None:
    from bench.building import open_suite_dataset

    path = tmp_path / "few.toml"
    text = Path("bench/suites/matrix.toml").read_text()
    head = text[: text.index("[[builds]]")]
    build = '[[builds]]\ncaptioner = "tiny"\nformats = ["saved_model", "onnx"]\nprecisions = ["fp32", "int16x8"]\n'
    path.write_text(head + build)
    few = load_suite(str(path))
    found = {cell.cell.recipe.name: cell for cell in run_matrix(few, store, open_suite_dataset(few, None))}
    assert found["tiny.onnx.fp32"].outcome is Outcome.WORKS
    assert found["tiny.onnx.fp32"].captions_identical == 1
    assert found["tiny.saved_model.fp32"].outcome is Outcome.WORKS
    assert found["tiny.onnx.int16x8"].outcome is Outcome.UNSUPPORTED
    assert found["tiny.onnx.int16x8"].thread.startswith("https://")
