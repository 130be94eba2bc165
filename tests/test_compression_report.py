"""What a report says about compression in Keras: what was reached, what it cost, and which captioner collapsed."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.compression_record import Captioner, Compression, Reached
from bench.result import FORMAT_VERSION, Part, Result, Results, row_name
from bench.result_file import read_results, write_results
from reports.cautions import CautionKind
from reports.comparison import full_precision_twin
from reports.markdown import render_markdown
from reports.report import make_report
from reports.tables import headline_table
from reports.terminal import print_report
from reports.verdict import render_verdict

GOLDEN = Path(__file__).parent / "golden"
FP32_TFLITE = "flickr8k.tflite.fp32 @ tflite"
PRUNED = Compression(
    technique="prune80",
    scope="captioner",
    reached=(Reached("lstm", "kernel", 1000, 0.8, 201), Reached("words", "kernel", 5000, 0.812, 940)),
    epochs=6,
    steps=750,
    seconds=61.4,
    cider_before=0.431,
    cider_compressed=0.012,
    cider=0.442,
    distinct_before=700,
    distinct=690,
    parameters_before=5_000_000,
    parameters=5_000_000,
    multiply_adds_before={"encoder": 300, "step": 20},
    multiply_adds={"encoder": 300, "step": 20},
    notes={},
)
CLUSTERED = replace(
    PRUNED,
    technique="cluster16",
    scope="decoder",
    reached=(Reached("lstm", "kernel", 1000, 0.8, 16), Reached("words", "kernel", 5000, 0.812, 15)),
    multiply_adds={"encoder": 150, "step": 20},
)


@pytest.fixture
def results() -> Results:
    """The golden numbers, with a pruned and a pruned and clustered captioner and one row of the latter."""
    dense = read_results(GOLDEN / "results.json")
    captioner = dense.captioners[0]
    added = (
        replace(captioner, technique="prune80", compressions=(PRUNED,)),
        replace(captioner, technique="prune80+cluster16", compressions=(PRUNED, CLUSTERED)),
    )
    row = next(row for row in dense.rows if row_name(row) == FP32_TFLITE)
    return replace(dense, captioners=(*dense.captioners, *added), rows=(*dense.rows, _compressed(row, 1.0)))


def _compressed(row: Result, distinct_share: float) -> Result:
    assert row.quality is not None
    part = Part("prune80+cluster16", "fp32")
    distinct = round(row.quality.distinct_captions * distinct_share)
    quality = replace(row.quality, distinct_captions=distinct)
    recipe = "flickr8k.prune80+cluster16.tflite.fp32"
    return replace(row, recipe=recipe, encoder=part, decoder=part, quality=quality, note="run by the 2020 study")


def collapse(results: Results, distinct_share: float) -> Results:
    return replace(results, rows=(*results.rows[:-1], _compressed(results.rows[-1], distinct_share)))


def lines_of(results: Results, beginning: str) -> list[str]:
    page = render_markdown(make_report(results), {})
    section = page.split("## What compression reached\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if beginning in line]


def test_each_technique_stands_once_with_what_it_reached(results: Results) -> None:
    (pruned,) = [line for line in lines_of(results, "`prune80`") if "after" not in line]
    assert "| 80.0 % | – | 5,000,000 | 100 % and 100 % | 0.431 | 0.012 | 0.442 | 690 (was 700) |" in pruned
    assert "6 epochs, 61 s" in pruned
    (clustered,) = lines_of(results, "`cluster16`")
    assert "`cluster16` of the decoder, after `prune80` | 80.0 % | 16 | 5,000,000 | 50.0 % and 100 % |" in clustered


def test_student_has_no_score_before_its_training(results: Results) -> None:
    student = replace(PRUNED, technique="student50", cider_compressed=None, reached=())
    captioner = replace(results.captioners[-1], technique="student50", compressions=(student,))
    (line,) = lines_of(replace(results, captioners=(captioner,)), "`student50`")
    assert "| – | – | 5,000,000 | 100 % and 100 % | 0.431 | – | 0.442 |" in line


def test_nothing_is_said_where_nothing_was_compressed() -> None:
    page = render_markdown(make_report(read_results(GOLDEN / "results.json")), {})
    assert "What compression reached" not in page


def test_note_of_a_row_is_shown(results: Results) -> None:
    assert "run by the 2020 study" in render_markdown(make_report(results), {})


@pytest.mark.parametrize(("share", "collapsed"), [(1.0, False), (0.51, False), (0.49, True)])
def test_captioner_that_lost_half_of_its_captions_has_collapsed(
    results: Results, share: float, collapsed: bool
) -> None:
    report = make_report(collapse(results, share))
    warned = [c.text for c in report.cautions if c.kind is CautionKind.COLLAPSED and "cluster16" in c.text]
    assert bool(warned) is collapsed
    assert [item.collapsed for item in report.rows if "cluster16" in item.name] == [collapsed]
    (line,) = [item for item in headline_table(report).splitlines() if "cluster16" in item]
    assert ("**collapsed**" in line) is collapsed


def test_run_ends_with_the_name_of_what_collapsed(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(collapse(results, 0.2), tmp_path / "results.json")
    print_report(make_report(read_results(tmp_path / "results.json")))
    assert "Collapsed captions: flickr8k.prune80+cluster16.tflite.fp32 @ tflite" in capsys.readouterr().out


def test_compressions_are_written_and_read(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    read = read_results(tmp_path / "results.json")
    assert read.captioners == results.captioners
    assert isinstance(read.captioners[-1], Captioner)


def test_results_of_the_first_format_are_still_read() -> None:
    assert read_results(GOLDEN / "results_v1.json").format_version == FORMAT_VERSION


def quantized(row: Result, technique: str) -> Result:
    part = Part(technique, "int8_static")
    return replace(row, recipe=f"flickr8k.{technique}.tflite.int8_static", encoder=part, decoder=part)


def test_quantized_row_is_timed_against_the_uncompressed_fp32_row_not_another_technique(results: Results) -> None:
    rows = (results.rows[-1], *results.rows[:-1], quantized(results.rows[-1], "qat"))
    report = make_report(replace(results, rows=rows))
    (item,) = [item for item in report.rows if "qat" in item.name]
    twin = full_precision_twin(item, report.rows)
    assert twin is not None
    assert twin.name == FP32_TFLITE


def test_verdict_never_compares_a_winner_with_itself(results: Results) -> None:
    winner = make_report(results).winner
    assert winner is not None
    assert winner.row.parity is not None
    alone = replace(winner.row, parity=replace(winner.row.parity, reference=winner.name))
    rows = tuple(alone if row_name(row) == winner.name else row for row in results.rows)
    assert "compared with no other runtime" in render_verdict(make_report(replace(results, rows=rows)))
    other = next(row for row in rows if row.parity and row is not alone and row_name(row) != results.baseline)
    assert other.parity is not None
    follows = replace(other, parity=replace(other.parity, reference=winner.name, captions_identical=0.91))
    rows = tuple(follows if row is other else row for row in rows)
    sentence = render_verdict(make_report(replace(results, rows=rows)))
    assert f"91.0 % of its captions are those of `{row_name(follows)}` word for word" in sentence
