"""The history of several runs, from hand-written results."""

from dataclasses import replace

import pytest
from report_edits import (
    BASELINE,
    FP32_TFLITE,
    GOLDEN,
    INT8_TFLITE,
    change,
    keep,
    with_bytes,
    with_caption,
    with_quality,
)

from bench.result import Results, Status
from bench.result_file import read_results
from models.errors import ConfigError
from reports.history import render_history


@pytest.fixture(scope="module")
def results() -> Results:
    return keep(read_results(GOLDEN / "results.json"), BASELINE, INT8_TFLITE)


def later(results: Results, commit: str = "bbbbbbb") -> Results:
    return replace(results, created="2027-01-01T00:00:00+00:00", commit=commit)


def lines(page: str, name: str) -> list[str]:
    """The runs' lines of one row."""
    section = page.split(f"## `{name}`")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| 20")]


def test_equal_runs_have_no_marks(results: Results) -> None:
    page = render_history([results, later(results)])
    rows = lines(page, INT8_TFLITE)
    assert len(rows) == 2
    assert not any(mark in line for line in rows for mark in "▲▼")


def test_runs_stand_in_order_of_time(results: Results) -> None:
    rows = lines(render_history([later(results), results]), INT8_TFLITE)
    assert "bbbbbbb" in rows[1]
    assert "bbbbbbb" not in rows[0]


def test_what_changed_is_marked(results: Results) -> None:
    changed = change(results, INT8_TFLITE, lambda row: with_bytes(with_caption(row, 0.5), 1_000_000))
    changed = change(changed, INT8_TFLITE, lambda row: with_quality(row, cider=0.1, cider_ci95=(0.09, 0.11)))
    line = lines(render_history([results, later(changed)]), INT8_TFLITE)[1]
    assert "| 1.00 ▼ | 0.100 ▼ |" in line
    assert "500 [495, 505] ▲ |" in line


def test_noise_is_not_marked(results: Results) -> None:
    slightly = change(results, INT8_TFLITE, lambda row: with_quality(row, cider=row.quality.cider - 0.001))  # type: ignore[union-attr]
    assert "▼" not in lines(render_history([results, later(slightly)]), INT8_TFLITE)[1]
    invalid = change(results, INT8_TFLITE, lambda row: replace(with_caption(row, 0.5), status=Status.INVALID))
    assert "▲" not in lines(render_history([results, later(invalid)]), INT8_TFLITE)[1]


def test_row_that_a_run_lacks_is_told(results: Results) -> None:
    whole = keep(read_results(GOLDEN / "results.json"), BASELINE, FP32_TFLITE)
    page = render_history([results, later(whole)])
    assert "not in this run" in lines(page, FP32_TFLITE)[0]
    assert "not in this run" in lines(page, INT8_TFLITE)[1]


def test_runs_that_do_not_belong_together_are_refused(results: Results) -> None:
    with pytest.raises(ConfigError, match="different suites: flickr8k, other"):
        render_history([results, replace(results, suite="other")])
    with pytest.raises(ConfigError, match="two runs or more"):
        render_history([results])


def test_other_machines_are_warned_of(results: Results) -> None:
    elsewhere = replace(later(results), environment=replace(results.environment, cpu="Other CPU"))
    assert "Not all on one machine" in render_history([results, elsewhere])
