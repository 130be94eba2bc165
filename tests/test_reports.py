"""The report: what it decides, what it warns of, and that it says so exactly."""

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_edits import (
    BASELINE,
    FP32_ONNX,
    FP32_TFLITE,
    GOLDEN,
    INT8_ONNX,
    INT8_TFLITE,
    change,
    keep,
    with_bytes,
    with_caption,
    with_quality,
)

from bench.measurement import Disturbance
from bench.result import Quality, Result, Results, Status, row_name
from bench.result_file import read_results, write_results
from models.errors import MissingPackageError
from reports import text
from reports.cautions import CautionKind
from reports.figures import render_figure
from reports.labels import Box, Label, place_labels
from reports.markdown import render_markdown
from reports.points import find_frontier, find_points
from reports.report import Report, make_report
from reports.verdict import render_choice, render_verdict
from reports.write import write_report

FIGURES = {"figure": "figure.svg", "waterfall": "waterfall.svg"}


@pytest.fixture(scope="module")
def results() -> Results:
    """Numbers written by hand; nothing in this file measures time."""
    return read_results(GOLDEN / "results.json")


def kinds(results: Results) -> set[CautionKind]:
    return {caution.kind for caution in make_report(results).cautions}


def verdict(results: Results) -> str:
    return render_verdict(make_report(results))


# --- the page ---


def test_page_equals_golden_file(results: Results) -> None:
    """After a wanted change: UPDATE_GOLDEN=1 pytest tests/test_reports.py, then read the difference."""
    page = render_markdown(make_report(results), FIGURES)
    path = GOLDEN / "report.md"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(page, encoding="utf-8")
    assert page == path.read_text(encoding="utf-8")


def test_every_table_of_the_page_has_as_many_cells_as_headers(results: Results) -> None:
    page = render_markdown(make_report(results), FIGURES)
    tables = [block for block in page.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 16
    for lines in (block.splitlines() for block in tables):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_every_table_of_speeds_is_followed_by_its_conditions(results: Results) -> None:
    sections = render_markdown(make_report(results), {}).split("\n## ")
    for section in (s for s in sections if "caption (ms)" in s):
        after = section.split("caption (ms)", 1)[1]
        assert "2 threads on Example CPU" in after
        assert "`tflite 2.3.0`" in after


def test_page_without_figure_says_how_to_get_one(results: Results) -> None:
    assert "pip install matplotlib" in render_markdown(make_report(results), {})


def test_page_of_results_without_rows_is_still_a_page(results: Results) -> None:
    empty = replace(results, rows=(), constant_caption=None, examples=(), captioners=(), noise_floor=None)
    page = render_markdown(make_report(empty), {})
    assert "Ship nothing from this run." in page
    assert "is not among the rows" in page


def test_failing_rows_come_last_with_reason_and_thread(results: Results) -> None:
    report = make_report(results)
    assert [item.row.status for item in report.rows[-3:]] == [Status.INVALID, Status.FAILED, Status.UNSUPPORTED]
    page = render_markdown(report, {})
    assert "failed: ConversionError: TensorListReserve needs element\\_shape" in page
    assert "([thread](https://github.com/" in page


def test_thread_that_is_no_web_address_is_not_linked(results: Results) -> None:
    bad = change(
        results,
        "flickr8k.saved_model.int8_static @ tensorflow",
        lambda row: replace(row, thread="javascript:alert(1)"),
    )
    assert "](javascript" not in render_markdown(make_report(bad), {})


def test_row_that_failed_while_timing_shows_its_quality_but_no_speed(results: Results) -> None:
    broken = change(
        results, INT8_ONNX, lambda row: replace(row, status=Status.FAILED, reason="killed", latency_seconds={})
    )
    line = next(line for line in render_markdown(make_report(broken), {}).splitlines() if "killed" in line)
    assert "| 0.434 ± 0.034 |" in line
    assert "| – | – | failed: killed |" in line


def test_examples_join_rows_that_say_the_same(results: Results) -> None:
    page = render_markdown(make_report(results), {})
    assert page.count("“a man climbs a rock wall”") == 1
    assert "- all 8 rows: “a man climbs a rock wall”" in page


def test_rows_that_are_slow_for_one_reason_share_a_caution(results: Results) -> None:
    row = next(row for row in results.rows if row_name(row) == INT8_ONNX)
    slow = [with_caption(replace(row, recipe=f"{row.recipe}({n})"), 0.05 * n) for n in (1, 2, 3)]
    found = make_report(replace(results, rows=(*results.rows, *slow))).cautions
    (caution,) = [each for each in found if each.kind is CautionKind.SLOWER and "times the time of their" in each.text]
    assert all(f"int8_static({n}) @" in caution.text for n in (1, 2, 3))
    assert re.search(r"quantized, yet \d\.\d\d to \d+\.\d\d times", caution.text)


def test_two_hundred_rows_render_within_seconds(results: Results) -> None:
    rows = tuple(replace(results.rows[i % 8], recipe=f"flickr8k.tflite.variant{i}") for i in range(200))
    started = time.process_time()
    report = make_report(replace(results, rows=(results.rows[0], *rows)))
    page = render_markdown(report, FIGURES)
    render_figure(report)
    assert time.process_time() - started < 20  # 3 on a quiet core; what grows with the square of the rows takes minutes
    assert all(f"variant{i} @" in page for i in range(200))


# --- the verdict ---


def test_verdict_names_a_clear_winner_with_its_gains_and_its_captions(results: Results) -> None:
    said = verdict(results)
    assert said.startswith(f"**Ship `{INT8_TFLITE}`**: 5.59 MB (3.8x smaller) and 6.43 ms a caption (11x faster)")
    assert "CIDEr is 0.436 ± 0.034 against 0.431 ± 0.034" in said
    assert f"64.2 % of its captions equal those of `{BASELINE}`" in said


def test_choice_separates_what_the_runtime_gave_from_what_compression_gave(results: Results) -> None:
    said = render_choice(make_report(results))
    assert f"changing the runtime gives 5.9x (`{FP32_TFLITE}`) and compression 1.9x" in said


def test_another_captioner_and_another_loop_are_not_said_to_be_the_runtimes_gain(results: Results) -> None:
    other = change(results, BASELINE, lambda row: replace(row, captioner="another", graph="prefix"))
    assert "changing the runtime, decoding and captioner gives 5.9x" in render_choice(make_report(other))


def test_smaller_row_below_the_gate_does_not_win(results: Results) -> None:
    tiny = change(results, INT8_TFLITE, lambda row: with_quality(with_bytes(row, 1_000), cider=0.98 * 0.431))
    report = make_report(tiny)
    assert report.winner is not None
    assert report.winner.name == INT8_ONNX


@pytest.mark.parametrize("status", [Status.INVALID, Status.FAILED])
def test_row_with_unsound_timing_neither_wins_nor_claims_a_speed(results: Results, status: Status) -> None:
    report = make_report(change(results, INT8_TFLITE, lambda row: replace(row, status=status)))
    item = next(item for item in report.rows if item.name == INT8_TFLITE)
    assert item.speed_up is None
    assert report.winner is not item


def test_verdict_is_provisional_when_the_winner_was_measured_quickly(results: Results) -> None:
    quick = change(results, INT8_TFLITE, lambda row: replace(row, status=Status.QUICK, reason="5 samples"))
    assert verdict(quick).startswith(f"**Provisionally ship `{INT8_TFLITE}`**")


def test_verdict_says_so_when_no_compressed_artifact_passes_the_gate(results: Results) -> None:
    few = change(keep(results, BASELINE, FP32_TFLITE, INT8_ONNX), INT8_ONNX, lambda row: with_quality(row, cider=0.4))
    said = verdict(few)
    assert said.startswith(f"**Ship `{FP32_TFLITE}`**: 20.50 MB (about the same size)")
    assert (
        f"no compressed artifact keeps 99 % of the baseline's CIDEr; the nearest is `{INT8_ONNX}` with 0.400." in said
    )


def test_verdict_is_the_baseline_when_nothing_else_was_measured(results: Results) -> None:
    assert verdict(keep(results, BASELINE)).startswith(f"**Ship `{BASELINE}`**, the baseline: 21.08 MB")
    assert verdict(keep(results, BASELINE)).endswith("No smaller artifact was measured.")


def test_verdict_is_nothing_when_the_baseline_does_not_beat_a_constant_caption(results: Results) -> None:
    said = verdict(change(results, BASELINE, lambda row: with_quality(row, cider=0.09)))
    assert said.startswith("**Ship nothing from this run.**")
    assert "does not beat one fixed sentence" in said


def test_verdict_is_nothing_when_the_baseline_failed(results: Results) -> None:
    failed = change(
        results,
        BASELINE,
        lambda row: replace(
            row, status=Status.FAILED, reason="out of memory", quality=None, size_bytes=None, latency_seconds={}
        ),
    )
    assert "(failed: out of memory)" in verdict(failed)
    assert make_report(failed).winner is None


def test_tie_within_noise_goes_to_fewer_bytes_and_is_told(results: Results) -> None:
    """The ONNX row's gain is 1 % larger, below the noise floor of 2.1 %; the TFLite row has fewer bytes."""
    tie = keep(results, BASELINE, INT8_TFLITE, INT8_ONNX)
    tie = change(tie, INT8_TFLITE, lambda row: with_caption(with_bytes(row, 5_000_000), 0.010))
    tie = change(tie, INT8_ONNX, lambda row: with_caption(with_bytes(row, 5_500_000), 0.009))
    report = make_report(tie)
    assert report.winner is not None
    assert report.winner.name == INT8_TFLITE
    assert f"As good within noise: `{INT8_ONNX}`." in render_choice(report)


def test_exact_tie_goes_to_higher_cider(results: Results) -> None:
    tie = keep(results, BASELINE, INT8_TFLITE, INT8_ONNX)
    equal = {INT8_TFLITE: 0.432, INT8_ONNX: 0.433}
    rows = tuple(
        with_quality(with_caption(with_bytes(row, 5_000_000), 0.01), cider=equal[row_name(row)])
        if row_name(row) in equal
        else row
        for row in tie.rows
    )
    winner = make_report(replace(tie, rows=rows)).winner
    assert winner is not None
    assert winner.name == INT8_ONNX


@pytest.mark.parametrize(
    ("faster", "noise_floor", "certain"),
    [
        (1.001, 0.02, False),  # far below the floor
        (1.015, None, False),  # intervals overlap
        (1.04, 0.05, False),  # intervals are apart, but identical artifacts differed by more
        (1.04, 0.02, True),
        (0.5, 0.02, True),
    ],
)
def test_speed_up_is_only_claimed_above_noise_and_overlap(
    results: Results, faster: float, noise_floor: float | None, certain: bool
) -> None:
    noisy = replace(results, noise_floor=noise_floor)
    report = make_report(change(noisy, FP32_ONNX, lambda row: with_caption(row, 0.0718 / faster)))
    item = next(item for item in report.rows if item.name == FP32_ONNX)
    assert item.speed_up is not None
    assert item.speed_up.certain is certain
    line = next(line for line in render_markdown(report, {}).splitlines() if f"| `{FP32_ONNX}`" in line)
    assert (" ≈ " in line) is not certain


# --- the cautions ---


def test_clean_results_have_no_caution(results: Results) -> None:
    assert kinds(keep(results, BASELINE, FP32_ONNX, INT8_ONNX, INT8_TFLITE)) == set()


@pytest.mark.parametrize(
    ("kind", "name", "edit"),
    [
        (CautionKind.QUICK, INT8_ONNX, lambda row: replace(row, status=Status.QUICK, reason="9 samples")),
        (CautionKind.INVALID, INT8_ONNX, lambda row: replace(row, status=Status.INVALID, reason="drift")),
        (CautionKind.CONSTANT, INT8_ONNX, lambda row: with_quality(row, cider=0.09)),
        (CautionKind.WIDE, BASELINE, lambda row: with_quality(row, cider_ci95=(0.3, 0.56))),
        (CautionKind.LENGTH, INT8_ONNX, lambda row: with_quality(row, caption_length_mean=8.0)),
        (CautionKind.LENGTH, INT8_ONNX, lambda row: with_quality(row, caption_length_mean=11.5)),
        (CautionKind.SLOWER, INT8_ONNX, lambda row: with_caption(row, 0.05)),
        (
            CautionKind.MISMATCH,
            FP32_ONNX,
            lambda row: replace(row, parity=replace(row.parity, captions_identical=0.999)),
        ),
    ],
)
def test_caution_is_given_with_a_remedy(
    results: Results, kind: CautionKind, name: str, edit: Callable[[Result], Result]
) -> None:
    report = make_report(change(keep(results, BASELINE, FP32_ONNX, INT8_ONNX), name, edit))
    assert [caution.kind for caution in report.cautions] == [kind]
    assert report.cautions[0].remedy.endswith(".")
    assert report.cautions[0].remedy in render_markdown(report, {})


def test_high_noise_floor_is_a_caution_with_what_it_hides(results: Results) -> None:
    report = make_report(replace(keep(results, BASELINE), noise_floor=0.12))
    (caution,) = report.cautions
    assert caution.kind is CautionKind.NOISY
    assert "a speed-up below 1.12x means nothing here" in caution.text


def test_rows_that_lost_most_of_their_samples_are_named_worst_first(results: Results) -> None:
    few = keep(results, BASELINE, FP32_ONNX, INT8_ONNX)
    for name, slowed in ((FP32_ONNX, 0.6), (INT8_ONNX, 0.7)):
        few = change(few, name, lambda row, slowed=slowed: replace(row, disturbance=Disturbance(0, 0, 0, slowed)))  # type: ignore[misc]
    (caution,) = make_report(few).cautions
    assert caution.kind is CautionKind.LEFT_OUT
    assert caution.text.startswith(f"`{INT8_ONNX}`, `{FP32_ONNX}`: up to 70.0 % of the samples")


def test_rows_of_one_captioner_share_the_line_about_their_length(results: Results) -> None:
    few = keep(results, BASELINE, FP32_ONNX, INT8_ONNX)
    mean = next(row.quality.caption_length_mean for row in few.rows if row.quality)
    for name, ratio in ((FP32_ONNX, 0.8), (INT8_ONNX, 0.7)):
        few = change(few, name, lambda row, ratio=ratio: with_quality(row, caption_length_mean=ratio * mean))  # type: ignore[misc]
    (caution,) = make_report(few).cautions
    assert caution.kind is CautionKind.LENGTH
    assert f"`{FP32_ONNX}`" in caution.text
    assert f"`{INT8_ONNX}`" in caution.text
    assert caution.text.endswith("captions are 20.0 % to 30.0 % shorter than the baseline's")


def test_length_is_not_told_twice(results: Results) -> None:
    def shorten(row: Result) -> Result:
        reason = (
            "captions are 18% shorter than fp32's, which takes another time for that alone: compare at equal length"
        )
        return replace(with_quality(row, caption_length_mean=8.0), status=Status.INVALID, reason=reason)

    assert kinds(change(keep(results, BASELINE, INT8_ONNX), INT8_ONNX, shorten)) == {CautionKind.INVALID}


def test_unknown_noise_floor_is_a_caution(results: Results) -> None:
    assert kinds(replace(keep(results, BASELINE), noise_floor=None)) == {CautionKind.NOISE}


# --- text that comes from data ---

ANY_TEXT = st.text(max_size=60) | st.text(alphabet="|`*_<>[]()#&\\~!$@-+=.1\n\t :/wh\u202e\u05d0😀", max_size=40)


def rendered(markdown: str) -> str:
    """What a reader sees; fails on anything but text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    children = [child for token in tokens if token.type == "inline" for child in token.children or []]
    assert {child.type for child in children} <= {"text"}
    assert {token.type for token in tokens if not token.type.startswith(("paragraph", "t"))} <= {"inline"}
    return "".join(child.content for child in children)


@given(ANY_TEXT)
def test_escaped_text_reads_as_itself_in_a_paragraph(data: str) -> None:
    assert rendered(text.escape(data)) == text.plain(data)


@given(ANY_TEXT)
def test_escaped_text_stays_in_its_table_cell(data: str) -> None:
    table = text.table(("a", "b"), [["x", text.escape(data)]])
    assert rendered(table) == f"abx{text.plain(data)}"


@pytest.mark.parametrize("data", ["\ud800", "a\x00b", "\u202eabc"])
def test_what_can_not_be_shown_is_replaced(data: str) -> None:
    assert "�" in text.plain(data)
    assert text.plain(data).encode("utf-8")


def test_right_to_left_captions_are_isolated_and_empty_ones_named() -> None:
    assert text.caption_text("כלב רץ") == "“\u2068כלב רץ\u2069”"
    assert text.caption_text(" \n") == "*(empty caption)*"


def test_hostile_captions_stay_text_on_the_page(results: Results) -> None:
    hostile = '<script>alert("|`*")</script>\n\n# heading'
    bad = change(results, BASELINE, lambda row: replace(row, captions={"dog.jpg": hostile}))
    page = render_markdown(make_report(bad), {})
    assert "<script" not in page
    assert "\n# heading" not in page


def test_names_are_code_only_when_safe() -> None:
    assert text.name_text("a.b_c(d=e)+f @ g") == "`a.b_c(d=e)+f @ g`"
    assert text.name_text("a|`b") == "a\\|\\`b"


def test_command_with_backticks_can_not_leave_its_block() -> None:
    assert text.code_block("echo ```").startswith("````sh\n")


# --- numbers ---


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.000_085_31, "0.0853"), (0.001_234, "1.23"), (0.0123, "12.3"), (2.31, "2310"), (0.0, "0"), (None, "–")],
)
def test_milliseconds_have_three_significant_digits(seconds: float | None, shown: str) -> None:
    assert text.milliseconds(seconds) == shown


@pytest.mark.parametrize(("size", "shown"), [(5_593_000, "5.59"), (100_000, "0.10"), (45_300, "45.3 kB"), (None, "–")])
def test_small_sizes_are_in_kilobytes(size: int | None, shown: str) -> None:
    assert text.megabytes(size) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.534, "0.53x"), (3.74, "3.7x"), (23.9, "24x"), (None, "–")])
def test_ratios_have_sensible_digits(value: float | None, shown: str) -> None:
    assert text.ratio(value) == shown


@pytest.mark.parametrize(("share", "shown"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.00001, "0.1 %"), (0.0, "0 %")])
def test_only_all_of_it_is_100_percent(share: float, shown: str) -> None:
    assert text.percent(share) == shown


# --- the figure ---


@pytest.fixture(scope="module")
def report(results: Results) -> Report:
    return make_report(results)


def test_figure_is_accessible_and_refers_to_nothing_outside(report: Report) -> None:
    svg = render_figure(report)
    root = ElementTree.fromstring(svg)
    names = [child.tag.rpartition("}")[2] for child in root]
    assert names[:2] == ["title", "desc"]
    assert INT8_TFLITE in (root[1].text or "")
    addresses = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("href")]
    assert all(address.startswith("#") for address in addresses)
    assert "<!DOCTYPE" not in svg
    assert "url(http" not in svg


def test_figure_is_the_same_each_time_and_names_the_winner(report: Report) -> None:
    assert render_figure(report) == render_figure(report)
    assert "ship: tflite.int8_static, 6.43 ms" in render_figure(report)


@pytest.mark.parametrize("recipe", ["$x$ & <b>", "a" * 300, "כלב\n😀"])
def test_figure_takes_any_name(results: Results, recipe: str) -> None:
    odd = change(results, INT8_TFLITE, lambda row: replace(row, recipe=recipe))
    ElementTree.fromstring(render_figure(make_report(odd)))


def test_figure_of_nothing_measured_says_so(results: Results) -> None:
    assert "no row was measured" in render_figure(make_report(replace(results, rows=())))


def test_frontier_keeps_what_nothing_beats(report: Report) -> None:
    assert [point.item.name for point in find_frontier(find_points(report))] == [
        "flickr8k.tflite.int8_dynamic @ tflite",
        INT8_TFLITE,
    ]


def test_labels_cover_neither_marks_nor_each_other() -> None:
    labels = [Label(f"label {i}", 100 + i, 100) for i in range(12)]
    marks = [Box.around(label.x, label.y, 7) for label in labels]
    boxes = [box for _, box in place_labels(labels, marks, [], Box(0, 0, 400, 200))]
    assert len(boxes) > 4
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in [*marks, *boxes[:index]])


def test_bold_label_is_placed_even_on_a_crowded_canvas() -> None:
    marks = [Box(0, 0, 400, 200)]
    labels = [Label("plain", 100, 100), Label("winner", 100, 100, bold=True)]
    placed = place_labels(labels, marks, [], Box(0, 0, 400, 200))
    assert [label.text for label, _ in placed] == ["winner"]


# --- files ---


def test_report_and_figure_are_written_beside_the_results(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    path = write_report(tmp_path / "results.json")
    assert path == tmp_path / "report.md"
    assert path.read_text(encoding="utf-8") == (GOLDEN / "report.md").read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "figure.svg", "report.html", "report.md", "results.json", "waterfall.svg",
    ]  # fmt: skip


def test_pictures_are_found_from_another_folder(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "run" / "results.json")
    path = write_report(tmp_path / "run" / "results.json", tmp_path / "published" / "flickr8k")
    assert 'src="../../run/pictures/dog.jpg"' in path.read_text(encoding="utf-8")


def test_report_is_written_where_matplotlib_is_missing(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError):
        render_figure(make_report(results))
    write_results(results, tmp_path / "results.json")
    assert "pip install matplotlib" in write_report(tmp_path / "results.json").read_text(encoding="utf-8")
    assert not (tmp_path / "figure.svg").exists()


def test_constant_caption_has_a_row_in_the_quality_table(results: Results) -> None:
    constant = results.constant_caption
    assert constant is not None
    assert isinstance(constant.quality, Quality)
    assert f"| *constant caption* “{constant.caption}” |" in render_markdown(make_report(results), {})
