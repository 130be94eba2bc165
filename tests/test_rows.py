"""Rows of captioners that can't see: size and time stay, quality goes, and a report says why."""

from dataclasses import replace

import pytest
from report_edits import FP32_ONNX, GOLDEN, change

from bench.result import Results
from bench.result_file import read_results
from bench.rows import SIGHTLESS, without_quality
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
