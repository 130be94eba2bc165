"""Rows of captioners that can't see: size and time stay, quality goes, and a report says why."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from report_edits import FP32_ONNX, GOLDEN, change

from bench.head import EXAMPLES, choose_examples
from bench.measure import Captioned
from bench.result import Results
from bench.result_file import read_results
from bench.rows import SIGHTLESS, length_change, score_search, without_quality
from bench.suite import Cell
from bench.versus_dense import compare_with_dense
from convert.recipe import Format, Recipe
from models.datasets import Split, open_dataset
from models.decoding import Search
from reports.markdown import render_markdown
from reports.report import make_report


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


def test_sightless_row_keeps_what_it_weighs_and_takes(results: Results) -> None:
    before = next(row for row in results.rows if f"{row.recipe} @ {row.runtime}" == FP32_ONNX)
    after = without_quality(replace(before, note="the suite's own"))
    assert (after.size_bytes, after.latency_seconds, after.parity) == (
        before.size_bytes,
        before.latency_seconds,
        before.parity,
    )
    assert after.quality is None
    assert after.quality_beam3 is None
    assert after.note == f"the suite's own; {SIGHTLESS}"


def test_report_shows_a_sightless_row_with_its_reason(results: Results) -> None:
    report = make_report(change(results, FP32_ONNX, without_quality))
    line = next(line for line in render_markdown(report, {}).splitlines() if line.startswith(f"| `{FP32_ONNX}"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1] == "20.61"
    assert cells[3] == cells[4] == "–"
    assert SIGHTLESS in cells[-1]
    assert report.winner is not None
    assert report.winner.name != FP32_ONNX


IMAGES = {"a": "a dog runs", "b": "a dog sits", "c": "a cat sleeps"}
REFERENCES = {image: (text, f"{text} here") for image, text in IMAGES.items()}


def captioned(images: Mapping[str, str]) -> Captioned:
    """A quality run that said these captions greedily."""
    said = {image: {"caption": text, "ids": text.split()} for image, text in images.items()}
    return Captioned({Search.GREEDY: said}, {}, 0, 0, "1", {})


def test_row_that_captioned_fewer_images_is_scored_over_those() -> None:
    baseline, few = captioned(IMAGES), captioned({image: IMAGES[image] for image in "ab"})
    quality = score_search(few, baseline, REFERENCES, Search.GREEDY)
    assert quality is not None
    assert quality.images == 2
    assert quality.cider_difference_ci95 is None


def test_row_of_the_same_images_is_compared_with_the_baseline() -> None:
    quality = score_search(captioned(IMAGES), captioned(IMAGES), REFERENCES, Search.GREEDY)
    assert quality is not None
    assert quality.cider_difference_ci95 == (0.0, 0.0)
    assert score_search(captioned(IMAGES), None, REFERENCES, Search.BEAM3) is None


DENSE = Cell(Recipe("a", Format.ONNX), "onnxruntime")


def test_row_is_compared_with_its_own_captioner_uncompressed() -> None:
    worse = captioned({**IMAGES, "a": "a horse"})
    found = compare_with_dense(worse, (DENSE, captioned(IMAGES)), REFERENCES)
    assert found is not None
    assert found.reference == "a.onnx.fp32 @ onnxruntime"
    assert found.cider_ci95[0] < found.cider_ci95[1] <= 0
    same = compare_with_dense(captioned(IMAGES), (DENSE, captioned(IMAGES)), REFERENCES)
    assert same is not None
    assert same.cider_ci95 == same.bleu_4_ci95 == (0.0, 0.0)


def test_row_of_other_images_is_not_compared() -> None:
    assert compare_with_dense(captioned({"a": "a dog"}), (DENSE, captioned(IMAGES)), REFERENCES) is None
    assert compare_with_dense(captioned(IMAGES), None, REFERENCES) is None


def test_captions_are_longer_than_the_baselines_of_the_same_images() -> None:
    baseline, few = captioned(IMAGES), captioned({"a": "a dog runs", "b": "a big brown dog sits here"})
    assert length_change(few, baseline) == pytest.approx(9 / 6 - 1)
    assert length_change(baseline, baseline) == 0.0


def test_examples_are_not_chosen_by_rows_without_quality(results: Results, tmp_path: Path) -> None:
    dataset = open_dataset("scenes", None, {})
    images = list(dataset.images(Split.TEST))
    seeing = replace(results.rows[0], captions={image.id: "a dog" for image in images})
    blind = replace(without_quality(seeing), captions={images[-1].id: "a cat"})
    chosen = choose_examples(dataset, images, [seeing, blind], tmp_path)
    assert [example.image for example in chosen] == [image.id for image in images[:EXAMPLES]]
