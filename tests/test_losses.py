"""What compression cost each captioner: beside its own uncompressed row, not beside the suite's baseline."""

from dataclasses import replace

import pytest
from report_edits import BASELINE, FP32_ONNX, FP32_TFLITE, GOLDEN, INT8_ONNX, INT8_TFLITE, change, with_quality

from bench.result import DenseDifference, Result, Results
from bench.result_file import read_results
from reports.losses import losses_section
from reports.report import make_report


def compared(row: Result, ci95: tuple[float, float], cider: float) -> Result:
    return replace(
        with_quality(row, cider=cider, bleu_4=0.18, distinct_captions=300),
        versus_dense=DenseDifference(FP32_ONNX, ci95, (-0.01, 0.02)),
    )


@pytest.fixture
def results() -> Results:
    """The golden numbers: a row that surely lost, one that may have, one that says the same."""
    found = read_results(GOLDEN / "results.json")
    found = change(found, FP32_ONNX, lambda row: with_quality(row, cider=0.5, bleu_4=0.2, distinct_captions=400))
    found = change(found, INT8_TFLITE, lambda row: compared(row, (-0.04, -0.02), 0.47))
    found = change(found, INT8_ONNX, lambda row: compared(row, (-0.01, 0.008), 0.499))
    return change(found, FP32_TFLITE, lambda row: compared(row, (0.0, 0.0), 0.5))


def line(section: str, name: str) -> list[str]:
    (found,) = (each for each in section.splitlines() if each.startswith(f"| `{name}`"))
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_change_is_a_share_of_the_uncompressed_score(results: Results) -> None:
    section = losses_section(make_report(results))
    assert line(section, INT8_TFLITE)[1:] == [
        "0.500",
        "0.470",
        "−6.0 % [−8.0 %, −4.0 %]",
        "8.0 %",
        "≈ −10.0 % [−5.0 %, +10.0 %]",
        "300 (of 400)",
        "missed",
    ]
    assert line(section, INT8_ONNX)[3:5] == ["≈ −0.2 % [−2.0 %, +1.6 %]", "2.0 %"]
    assert line(section, INT8_ONNX)[-1] == "kept, but not beyond doubt"


def test_what_lost_least_stands_first(results: Results) -> None:
    section = losses_section(make_report(results))
    assert section.index(INT8_ONNX) < section.index(INT8_TFLITE)


def test_rows_that_score_the_same_are_counted(results: Results) -> None:
    section = losses_section(make_report(results))
    assert FP32_TFLITE not in section
    assert BASELINE not in section
    assert section.endswith("1 more compressed rows score just what their uncompressed row does.")


def test_runs_that_know_no_difference_have_no_section() -> None:
    assert losses_section(make_report(read_results(GOLDEN / "results.json"))) == ""


def test_uncompressed_score_of_zero_has_no_shares(results: Results) -> None:
    worthless = change(results, FP32_ONNX, lambda row: with_quality(row, cider=0.0))
    assert losses_section(make_report(worthless)) == ""
    flat = change(results, FP32_ONNX, lambda row: with_quality(row, bleu_4=0.0))
    assert line(losses_section(make_report(flat)), INT8_ONNX)[5] == "–"
