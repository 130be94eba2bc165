"""What to ship within limits, from hand-written results."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_edits import BASELINE, FP32_ONNX, FP32_TFLITE, GOLDEN, INT8_TFLITE, change, keep, with_bytes, with_caption
from typer.testing import CliRunner

from bench.result import Results, row_name
from bench.result_file import read_results
from captionbench import app
from models.errors import ConfigError
from reports.recommend import Limits, describe, parse_latency, recommend


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


def test_every_row_is_an_answer_or_has_a_reason(results: Results) -> None:
    found = recommend(results, Limits())
    named = [answer.row for answer in found.answers] + [out.row for out in found.excluded]
    assert sorted(named) == sorted(row_name(row) for row in results.rows)
    assert all(out.reasons for out in found.excluded)


def test_first_answer_is_what_the_report_ships(results: Results) -> None:
    assert recommend(results, Limits()).answers[0].row == INT8_TFLITE


def test_each_limit_is_a_reason(results: Results) -> None:
    small = change(results, FP32_ONNX, lambda row: with_bytes(with_caption(row, 0.03), 5_000_000))
    told = {out.row: out.reasons for out in recommend(small, Limits(size=4_000_000, seconds=0.02)).excluded}
    assert told[FP32_ONNX] == ("5.00 MB, over 4.00 MB", "30.0 ms a caption, over 20.0 ms")
    strict = recommend(results, Limits(cider_drop=0.0))
    assert any("of the baseline's CIDEr, over 0 %" in reason for out in strict.excluded for reason in out.reasons)


def test_ties_share_a_place_and_fewer_bytes_come_first(results: Results) -> None:
    alike = keep(results, BASELINE, FP32_TFLITE, FP32_ONNX)
    for name, size in ((FP32_TFLITE, 9_000_000), (FP32_ONNX, 9_000_001)):
        alike = change(alike, name, lambda row, size=size: with_bytes(with_caption(row, 0.01), size))  # type: ignore[misc]
    first, second, *_ = recommend(alike, Limits()).answers
    assert (first.row, second.row) == (FP32_TFLITE, FP32_ONNX)
    assert (first.place, first.tied, second.place, second.tied) == (1, True, 1, True)


def test_without_baseline_nothing_is_recommended(results: Results) -> None:
    found = recommend(keep(results, INT8_TFLITE), Limits())
    assert not found.answers
    assert found.excluded[0].reasons == ("there is no baseline to judge it by",)
    assert "No row keeps these limits." in describe(found)
    assert not recommend(keep(results), Limits()).answers


def test_times_that_may_be_over_are_doubted(results: Results) -> None:
    close = change(results, INT8_TFLITE, lambda row: with_caption(row, 0.00999))
    found = {answer.row: answer.doubts for answer in recommend(close, Limits(seconds=0.01)).answers}
    assert "its time may be 10.1 ms" in found[INT8_TFLITE]


def test_ratios_are_those_of_the_rows(results: Results) -> None:
    found = recommend(results, Limits())
    rows = {row_name(row): row for row in results.rows}
    base = rows[BASELINE].size_bytes
    for answer in found.answers:
        size = rows[answer.row].size_bytes
        assert base is not None
        assert size is not None
        assert answer.size_ratio == base.total / size.total


def test_command_ends_with_1_when_nothing_passes() -> None:
    arguments = ["recommend", str(GOLDEN / "results.json"), "--max-size", "1kB"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "No row keeps these limits." in done.output
    done = CliRunner().invoke(app, [*arguments[:2], "--json"])
    assert done.exit_code == 0
    assert json.loads(done.output)["answers"][0]["row"] == INT8_TFLITE


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("0.5 s", 0.5), ("800us", 8e-4), (".5S", 0.5)])
def test_latencies_are_read(text: str, seconds: float) -> None:
    assert parse_latency(text) == pytest.approx(seconds)


@given(st.sampled_from(["", "20", "ms", "-5ms", "0ms", "20 min", "1e3ms", "nan s"]))
def test_other_latencies_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-latency is a time above zero with a unit"):
        parse_latency(text)
