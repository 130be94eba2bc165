"""The way from the baseline to the one to ship: one change a step, a runtime's gain never sold as compression."""

from dataclasses import replace
from math import prod

import pytest
from report_edits import BASELINE, FP32_ONNX, FP32_TFLITE, GOLDEN, INT8_ONNX, INT8_TFLITE, change, keep, with_bytes

from bench.result import Result, Results, Status
from bench.result_file import read_results
from convert.recipe import Graph
from reports.points import Point, find_frontier, find_points, find_unbeaten
from reports.report import make_report
from reports.waterfall import Change, find_way
from reports.waterfall_text import waterfall_section


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


def way_of(results: Results) -> list[tuple[tuple[Change, ...], str]]:
    return [(step.changes, step.after.name) for step in find_way(make_report(results))]


def renamed(row: Result, recipe: str, **values: object) -> Result:
    return replace(row, recipe=recipe, **values)  # type: ignore[arg-type]


def test_runtime_comes_apart_from_precision(results: Results) -> None:
    assert way_of(results) == [((Change.RUNTIME,), FP32_TFLITE), ((Change.PRECISION,), INT8_TFLITE)]


def test_changes_with_no_row_between_stay_one_step_that_says_so(results: Results) -> None:
    few = keep(results, BASELINE, INT8_TFLITE)
    assert way_of(few) == [((Change.RUNTIME, Change.PRECISION), INT8_TFLITE)]
    text = waterfall_section(make_report(few), "")
    assert "| runtime and precision |" in text
    assert "were measured together" in text


def test_rows_without_a_sound_time_are_no_stops(results: Results) -> None:
    few = keep(results, BASELINE, FP32_TFLITE, INT8_TFLITE)
    doubtful = change(few, FP32_TFLITE, lambda row: replace(row, status=Status.INVALID))
    assert way_of(doubtful) == [((Change.RUNTIME, Change.PRECISION), INT8_TFLITE)]


def test_a_baseline_that_asks_by_prefix_shows_what_the_step_bought(results: Results) -> None:
    """The study's loop decodes the whole prefix for every word: that gain is decoding's, not the runtime's."""
    step = next(row for row in results.rows if f"{row.recipe} @ {row.runtime}" == BASELINE)
    prefix = renamed(step, "flickr8k.saved_model.fp32.prefix", graph=Graph.PREFIX)
    longer = replace(results, rows=(prefix, *results.rows), baseline="flickr8k.saved_model.fp32.prefix @ tensorflow")
    assert [changes for changes, _ in way_of(longer)] == [
        (Change.DECODING,),
        (Change.RUNTIME,),
        (Change.PRECISION,),
    ]


def test_a_way_may_pass_through_a_third_runtime(results: Results) -> None:
    """The study's loop has no TFLite file: what the step bought is measured on TensorFlow, then the runtime changes."""
    step = next(row for row in results.rows if f"{row.recipe} @ {row.runtime}" == BASELINE)
    loop = renamed(step, "flickr8k.keras.fp32.prefix", format="keras", runtime="keras_predict", graph=Graph.PREFIX)
    graph = renamed(step, "flickr8k.saved_model.fp32.prefix", graph=Graph.PREFIX)
    longer = replace(results, rows=(loop, graph, *results.rows), baseline="flickr8k.keras.fp32.prefix @ keras_predict")
    assert way_of(longer) == [
        ((Change.RUNTIME,), "flickr8k.saved_model.fp32.prefix @ tensorflow"),
        ((Change.DECODING,), BASELINE),
        ((Change.RUNTIME,), FP32_TFLITE),
        ((Change.PRECISION,), INT8_TFLITE),
    ]


def test_of_several_orders_the_one_with_most_rows_is_taken(results: Results) -> None:
    """Pruned in TensorFlow first, then converted: no fp32 TFLite row, so the runtime can only come after."""
    pruned = replace(results.rows[0].encoder, technique="prune80")
    base = next(row for row in results.rows if f"{row.recipe} @ {row.runtime}" == BASELINE)
    halfway = renamed(base, "flickr8k.saved_model.prune80", encoder=pruned, decoder=pruned)
    edited = change(results, INT8_TFLITE, lambda row: replace(row, encoder=pruned, decoder=pruned))
    kept = keep(edited, BASELINE, INT8_TFLITE)
    assert way_of(replace(kept, rows=(*kept.rows, halfway))) == [
        ((Change.STRUCTURE,), "flickr8k.saved_model.prune80 @ tensorflow"),
        ((Change.RUNTIME,), INT8_TFLITE),
    ]


def test_steps_multiply_to_the_whole(results: Results) -> None:
    report = make_report(results)
    steps = find_way(report)
    assert report.winner is not None
    assert report.winner.size_ratio is not None
    assert prod(step.size_ratio or 0.0 for step in steps) == pytest.approx(report.winner.size_ratio)


@pytest.mark.parametrize("names", [(BASELINE,), (INT8_TFLITE,), ()])
def test_no_way_without_both_ends(results: Results, names: tuple[str, ...]) -> None:
    report = make_report(keep(results, *names))
    assert find_way(report) == ()
    assert waterfall_section(report, "![picture](waterfall.svg)") == ""


def points_of(results: Results) -> dict[str, Point]:
    return {point.item.name: point for point in find_points(make_report(results))}


def test_frontier_is_what_nothing_beats_in_all_three(results: Results) -> None:
    points = list(points_of(results).values())
    unbeaten = find_unbeaten(points)
    assert unbeaten
    for point in points:
        if point.item.row.status not in (Status.VALID, Status.QUICK) or point.seconds is None:
            assert point not in unbeaten
            continue
        better = [
            other
            for other in points
            if other.item.row.status in (Status.VALID, Status.QUICK)
            and other.seconds is not None
            and (other.megabytes, -other.cider, other.seconds) != (point.megabytes, -point.cider, point.seconds)
            and other.megabytes <= point.megabytes
            and other.cider >= point.cider
            and other.seconds <= point.seconds
        ]
        assert (point in unbeaten) == (not better)


def test_a_slower_row_of_the_same_bytes_and_score_leaves_the_frontier(results: Results) -> None:
    tied = change(results, FP32_ONNX, lambda row: with_bytes(row, 20_504_000))
    assert FP32_ONNX not in {point.item.name for point in find_unbeaten(list(points_of(tied).values()))}


def test_frontier_by_size_rises_in_quality(results: Results) -> None:
    frontier = find_frontier(list(points_of(results).values()))
    assert [p.megabytes for p in frontier] == sorted(p.megabytes for p in frontier)
    assert [p.cider for p in frontier] == sorted(p.cider for p in frontier)
    assert INT8_ONNX not in {point.item.name for point in frontier}  # larger than int8 TFLite, and no better
