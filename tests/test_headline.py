"""The table that opens a report: whole where it can be read, else what a choice needs."""

from dataclasses import replace

import pytest
from report_edits import BASELINE, GOLDEN

from bench.result import Results
from bench.result_file import read_results
from reports.headline import LONGEST, SHOWN, choose_rows, every_row, opening_table
from reports.markdown import render_markdown
from reports.points import find_points, find_unbeaten
from reports.report import make_report
from reports.tables import headline_table


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


@pytest.fixture(scope="module")
def many(results: Results) -> Results:
    """As many rows as a grid has, copies of the golden ones under other names."""
    copies = [replace(results.rows[i % 8], recipe=f"flickr8k.tflite.variant{i}") for i in range(3 * LONGEST)]
    return replace(results, rows=(*results.rows, *copies))


def test_short_run_opens_with_every_row(results: Results) -> None:
    report = make_report(results)
    assert opening_table(report) == headline_table(report)
    assert every_row(report) == ""
    assert "Every row" not in render_markdown(report, {})


def test_long_run_opens_with_what_a_choice_needs(many: Results) -> None:
    report = make_report(many)
    shown = choose_rows(report)
    names = [item.name for item in shown]
    assert report.winner is not None
    assert {BASELINE, report.winner.name} <= set(names)
    assert {point.item.name for point in find_unbeaten(find_points(report))} <= set(names)
    assert SHOWN <= len(names) < LONGEST
    assert names == [item.name for item in report.rows if item.name in set(names)]
    assert all(item.row.quality for item in shown)


def test_long_run_lists_the_others_further_down(many: Results) -> None:
    report = make_report(many)
    page = render_markdown(report, {})
    opening, rest = page.split("## Before you trust this")
    assert f"{len(choose_rows(report))} of {len(report.rows)} rows" in opening
    assert every_row(report) in rest.split("## Every row")[1]
    assert all(f"{item.name}`" in every_row(report) for item in report.rows)
