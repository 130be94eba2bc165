"""Rows as data: every format holds every row, numbers unrounded, and hostile texts as text."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_edits import GOLDEN, INT8_TFLITE, change

from bench.result import Results, Status, row_name
from bench.result_file import read_results, write_results
from models.errors import ConfigError
from reports.exporters import EXPORTERS, export_rows
from reports.flat import Record, flatten, render_csv, render_jsonl
from reports.report import make_report
from reports.summary import render_json


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


def test_csv_and_json_lines_hold_the_same_rows_and_numbers(results: Results) -> None:
    report = make_report(results)
    lines = list(csv.DictReader(io.StringIO(render_csv(report), newline="")))
    records = [json.loads(line) for line in render_jsonl(report).splitlines()]
    assert [line["row"] for line in lines] == [record["row"] for record in records] == [r.row for r in flatten(report)]
    assert {record["row"] for record in records} == {row_name(row) for row in results.rows}
    for line, record in zip(lines, records, strict=True):
        assert set(line) == set(record) == set(Record.__dataclass_fields__)
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        assert {name: float(line[name]) for name in numbers} == numbers
        assert all(line[name] == "" for name, value in record.items() if value is None)


def test_numbers_are_those_of_the_results(results: Results) -> None:
    rows = {row_name(row): row for row in results.rows}
    for record in flatten(make_report(results)):
        size, quality = rows[record.row].size_bytes, rows[record.row].quality
        assert record.size_bytes == (size.total if size else None)
        assert record.cider == (quality.cider if quality else None)
    (winner,) = [record for record in flatten(make_report(results)) if record.to_ship]
    assert winner.row == INT8_TFLITE


@given(st.text(alphabet='=+-@"\n\r,;|<>\u05d0\U0001f600ab', max_size=20))
def test_texts_come_back_as_they_were(reason: str) -> None:
    golden = read_results(GOLDEN / "results.json")
    report = make_report(change(golden, INT8_TFLITE, lambda row: replace(row, status=Status.FAILED, reason=reason)))
    (line,) = [r for r in csv.DictReader(io.StringIO(render_csv(report), newline="")) if r["row"] == INT8_TFLITE]
    assert not line["reason"].startswith(("=", "+", "-", "@"))
    assert line["reason"].removeprefix("'") == reason
    (record,) = [r for r in map(json.loads, render_jsonl(report).split("\n")[:-1]) if r["row"] == INT8_TFLITE]
    assert record["reason"] == reason


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_format_is_written_beside_the_results(results: Results, tmp_path: Path, name: str) -> None:
    write_results(results, tmp_path / "results.json")
    path = export_rows(tmp_path / "results.json", name)
    assert path == tmp_path / f"rows.{name}"
    assert path.read_text(encoding="utf-8").count(INT8_TFLITE) >= 1


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'csv'"):
        export_rows(tmp_path / "results.json", "csvs")


def test_no_rows_are_a_header(results: Results) -> None:
    empty = make_report(replace(results, rows=()))
    assert render_csv(empty).splitlines() == [",".join(Record.__dataclass_fields__)]
    assert render_jsonl(empty) == ""


def test_json_summary_says_what_the_report_says(results: Results) -> None:
    report = make_report(results)
    summary = json.loads(render_json(report))
    assert summary["ship"] == INT8_TFLITE
    assert summary["verdict"].startswith(f"Ship {INT8_TFLITE}: 5.59 MB")
    assert [row["row"] for row in summary["rows"]] == [item.name for item in report.rows]
    assert {caution["kind"] for caution in summary["cautions"]} == {str(c.kind) for c in report.cautions}
    assert all(caution["text"] and "`" not in caution["text"] for caution in summary["cautions"])


def test_json_summary_ships_nothing_where_nothing_can_be(results: Results) -> None:
    summary = json.loads(render_json(make_report(replace(results, rows=()))))
    assert summary["ship"] is None
    assert summary["rows"] == []
