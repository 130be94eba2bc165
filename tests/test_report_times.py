"""What a report says of measured times: differences, ranks and ties, noise, and changes in quality with intervals."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    with_quality,
)

from bench.measurement import Difference, Disturbance, Latency, Phase
from bench.result import Result, Results, Status, row_name
from bench.result_file import read_results, write_results
from reports.markdown import render_markdown
from reports.readme import readme_block, study_block
from reports.report import make_report
from reports.speed import Rank, group_ties, is_slower, rank_groups, rank_rows, speed_up, times_faster
from reports.tables import change_table, gate_text
from reports.terminal import print_report
from reports.timing import caption_table, runtime_table, throughput_table
from reports.trust import environment_rows, noise_text, trust_section
from reports.verdict import render_verdict


@pytest.fixture(scope="module")
def results() -> Results:
    """Numbers written by hand; nothing in this file measures time."""
    return read_results(GOLDEN / "results.json")


# --- differences in time, and ranks ---


def timed(*medians: float) -> Latency:
    """One sample a round."""
    return Latency(sorted(medians)[len(medians) // 2], (min(medians), max(medians)), len(medians), medians, (1,) * 10)


STEADY = (1.0, 1.3, 0.9, 1.1, 1.0, 1.2, 0.95, 1.05, 1.15, 1.0)  # of ten rounds on a machine that changes a lot


def test_rounds_are_paired_where_there_are_enough() -> None:
    """The medians' intervals overlap widely; round by round one is always a tenth slower."""
    mine, theirs = timed(*STEADY), timed(*(1.1 * value for value in STEADY))
    faster = times_faster(mine, theirs, 0.02)
    assert faster is not None
    assert faster.certain
    assert faster.ratio == pytest.approx(1.1)
    assert faster.ci99 == pytest.approx((1.1, 1.1))
    few = times_faster(replace(mine, rounds=()), theirs, 0.02)
    assert few is not None
    assert (few.certain, few.ci99) == (False, None)


def test_empty_round_is_left_out_of_the_pairs() -> None:
    mine = timed(*STEADY)
    holed = Latency(1.1, (1.0, 1.4), 9, tuple(1.1 * value for value in STEADY[1:]), (0,) + (1,) * 9)
    faster = times_faster(mine, holed, None)
    assert faster is not None
    assert faster.ratio == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("difference", "noise_floor", "certain"),
    [
        (Difference(0.10, (0.08, 0.12)), 0.02, True),
        (Difference(0.10, (-0.01, 0.20)), 0.02, False),  # the interval holds 0
        (Difference(0.10, (0.08, 0.12)), 0.11, False),  # identical artifacts differed by more
        (Difference(-0.10, (-0.12, -0.08)), None, True),
    ],
)
def test_measured_difference_to_the_baseline_goes_before_medians(
    results: Results, difference: Difference, noise_floor: float | None, certain: bool
) -> None:
    noisy = replace(results, noise_floor=noise_floor)
    report = make_report(change(noisy, INT8_ONNX, lambda row: replace(row, versus_baseline=difference)))
    item = next(item for item in report.rows if item.name == INT8_ONNX)
    assert item.speed_up is not None
    assert item.speed_up.certain is certain
    assert item.speed_up.ratio == pytest.approx(1 / (1 + difference.relative))
    low, high = item.speed_up.ci99 or (0.0, 0.0)
    assert low < item.speed_up.ratio < high


@given(st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)), min_size=10, max_size=10))
def test_speed_up_turns_round_with_the_rows(pairs: list[tuple[float, float]]) -> None:
    one, other = (timed(*side) for side in zip(*pairs, strict=True))
    there, back = times_faster(one, other, 0.02), times_faster(other, one, 0.02)
    assert there is not None
    assert back is not None
    assert there.ci99 is not None
    assert back.ci99 is not None
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.certain == back.certain
    assert there.ci99 == pytest.approx((1 / back.ci99[1], 1 / back.ci99[0]))


def test_speed_up_is_shown_with_its_interval(results: Results) -> None:
    page = render_markdown(make_report(results), {})
    line = next(line for line in page.splitlines() if f"**`{INT8_TFLITE}`**" in line)
    assert "| 11.2x [11.1, 11.2] | 1 | valid |" in line
    assert "speed-ups with 99 % intervals over paired rounds" in page


def test_rows_that_can_not_be_told_apart_share_a_rank(results: Results) -> None:
    """0.9 % apart, below the noise floor of 2.1 %, however narrow the interval."""
    ranks = make_report(results).ranks
    assert ranks[INT8_TFLITE] == Rank(1, tied=False)
    assert ranks[FP32_TFLITE] == ranks[INT8_ONNX] == Rank(2, tied=True)
    assert min(rank.place for name, rank in ranks.items() if rank.place > 2) == 4
    exact = rank_rows(replace(results, noise_floor=0.0))
    assert (exact[FP32_TFLITE].place, exact[INT8_ONNX].place) == (2, 3)


def test_rows_without_a_sound_time_have_no_rank(results: Results) -> None:
    report = make_report(change(results, INT8_TFLITE, lambda row: replace(row, status=Status.INVALID)))
    assert INT8_TFLITE not in report.ranks
    assert min(rank.place for rank in report.ranks.values()) == 1


@given(
    st.lists(st.floats(0.9, 1.5), min_size=1, max_size=8, unique=True),
    st.floats(0, 0.2),
    st.randoms(use_true_random=False),
)
def test_ranks_are_those_of_the_times_in_whatever_order_rows_come(
    results: Results, factors: list[float], noise_floor: float, random: Random
) -> None:
    template = results.rows[0]
    latency = {Phase.CAPTION: timed(*STEADY)}
    rows = [
        replace(
            template,
            recipe=f"row{i}",
            latency_seconds={Phase.CAPTION: timed(*(factor * value for value in STEADY))} if i else latency,
        )
        for i, factor in enumerate(factors)
    ]
    made = replace(results, rows=tuple(rows), noise_floor=noise_floor)
    ranks = rank_rows(made)
    random.shuffle(rows)
    assert rank_rows(replace(made, rows=tuple(rows))) == ranks
    places = sorted(rank.place for rank in ranks.values())
    assert len(ranks) == len(rows)
    for rank in ranks.values():  # as in a race: a place is the number of rows before it, plus 1
        assert rank.place == 1 + sum(place < rank.place for place in places)
        assert rank.tied == (places.count(rank.place) > 1)
    for row in rows:
        ahead = [other for other in rows if ranks[row_name(other)].place < ranks[row_name(row)].place]
        leaders = {ranks[row_name(other)].place: other for other in sorted(ahead, key=caption_median, reverse=True)}
        assert all(is_slower(row, leader, made) for leader in leaders.values())


def caption_median(row: Result) -> float:
    return row.latency_seconds[Phase.CAPTION].median


def test_chain_of_small_steps_is_not_one_tie() -> None:
    groups = group_ties([0, 1, 2, 3, 4, 9], lambda first, item: item - first <= 1)
    assert groups == [[0, 1], [2, 3], [4], [9]]
    assert [(item, rank.place, rank.tied) for item, rank in rank_groups(groups)] == [
        (0, 1, True),
        (1, 1, True),
        (2, 3, True),
        (3, 3, True),
        (4, 5, False),
        (9, 6, False),
    ]


def test_winner_and_row_whose_times_can_not_be_told_apart_are_as_good(results: Results) -> None:
    """The ONNX row gains 4 % more, above the floor, but its rounds are all over the place: fewer bytes decide."""
    unsteady = (0.90, 1.30, 0.80, 1.20, 1.00, 1.10, 0.85, 0.95, 1.15, 0.96)

    def with_rounds(row: Result, total: int, factors: tuple[float, ...]) -> Result:
        rounds = timed(*(0.01 * factor for factor in factors))
        latency = {**row.latency_seconds, Phase.CAPTION: rounds}
        return replace(with_bytes(row, total), latency_seconds=latency, versus_baseline=None)

    tie = keep(results, BASELINE, INT8_TFLITE, INT8_ONNX)
    tie = change(tie, INT8_TFLITE, lambda row: with_rounds(row, 5_000_000, (1.0,) * 10))
    tie = change(tie, INT8_ONNX, lambda row: with_rounds(row, 5_100_000, tuple(0.94 * value for value in unsteady)))
    report = make_report(tie)
    assert report.winner is not None
    assert report.winner.name == INT8_TFLITE
    assert [item.name for item in report.tied] == [INT8_ONNX]


def test_times_of_rows_that_are_both_not_the_baseline_are_paired(results: Results) -> None:
    rows = {row_name(row): row for row in results.rows}
    faster = speed_up(rows[INT8_TFLITE], rows[FP32_TFLITE], results)
    assert faster is not None
    assert faster.ci99 is not None
    assert faster.ci99[0] < faster.ratio < faster.ci99[1]


# --- changes in quality ---


@pytest.mark.parametrize(
    ("cider", "lost", "said"),
    [
        (1.0, (-0.004, 0.009), "kept"),
        (1.0, (-0.01, 0.02), "kept, but not beyond doubt"),
        (0.98, (0.005, 0.03), "missed, but not beyond doubt"),
        (0.9, (0.08, 0.12), "missed"),
    ],
)
def test_gate_text_says_whether_the_whole_interval_agrees(cider: float, lost: tuple[float, float], said: str) -> None:
    assert gate_text(cider, 1.0, lost) == said


def test_changes_have_intervals_and_are_about_equal_where_these_hold_zero(results: Results) -> None:
    lines = {line.split("|")[1].strip(): line for line in change_table(make_report(results)).splitlines()}
    assert "| ≈ [−0.003, +0.013] | ≈ [−0.002, +0.006] | 0.7 % | kept |" in lines[f"`{INT8_TFLITE}`, greedy"]
    assert "| none | none | nothing | kept |" in lines[f"`{FP32_ONNX}`, greedy"]
    collapsed = lines["`flickr8k.onnx.int8_static+fp32 @ onnxruntime`, greedy"]
    assert "| −0.133 [−0.145, −0.120] | −0.051 [−0.055, −0.047] | 33.8 % | missed |" in collapsed
    assert f"`{BASELINE}`, greedy" not in lines


def test_verdict_says_when_the_images_are_too_few_for_the_gate(results: Results) -> None:
    wide = change(results, INT8_TFLITE, lambda row: with_quality(row, cider_difference_ci95=(-0.02, 0.03)))
    assert "may lose up to 4.6 % of the baseline's CIDEr (95 %): 1000 images can't prove" in render_verdict(
        make_report(wide)
    )
    assert "loses at most 0.7 % of the baseline's CIDEr (95 %), within the gate." in render_verdict(
        make_report(results)
    )


# --- what stands around the times ---


def test_noise_floor_is_explained_with_its_interval(results: Results) -> None:
    assert noise_text(results).startswith(
        "Noise floor 2.1 %: one artifact measured as two differed from itself by +0.4 % (99 %: −1.2 % to +2.1 %"
    )
    assert noise_text(replace(results, noise=None)).startswith("Noise floor: identical artifacts differed by 2.1 %;")


def test_natural_and_equal_length_stand_side_by_side_with_percentiles(results: Results) -> None:
    header, _, *lines = caption_table(make_report(results)).splitlines()
    assert header == "| recipe @ runtime | caption (ms) | p90 | p95 | 12 steps each (ms) | p90, 12 steps each |"
    assert len(lines) == 8
    few = next(line for line in lines if "int8_static+fp32" in line)  # a quick row: too few samples
    assert few.count("| – |") == 2


def test_throughput_has_a_column_for_each_batch_and_one_offline(results: Results) -> None:
    header = throughput_table(make_report(results)).splitlines()[0]
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [
        "batch 1 (images/s)",
        "batch 8 (images/s)",
        "batch 32 (images/s)",
        "offline, 32 files (images/s)",
    ]


def test_harness_cost_is_a_share_of_the_fastest_caption(results: Results) -> None:
    slow = replace(results, harness_seconds=0.0000643)
    assert "Timing itself adds 64 µs to a caption: 1.0 % of the fastest, 6.43 ms" in trust_section(make_report(slow))


def test_what_disturbed_the_rows_is_told_as_a_range(results: Results) -> None:
    said = trust_section(make_report(results))
    assert "12.0 % to 57.0 % of a row's samples were left out" in said
    assert "other processes kept 0.02 to 0.71 of 2 cores busy and the hypervisor gave 0.01 to 0.03 cores" in said
    held = change(results, BASELINE, lambda row: replace(row, disturbance=Disturbance(0.0, 0.0, 0.25)))
    assert "quota held processes back for 0 % to 25.0 % of the time" in trust_section(make_report(held))


def test_environment_says_what_bears_on_the_times_and_shortens_hashes(results: Results) -> None:
    rows = dict(environment_rows(results))
    assert rows["container limits"] == "2 cores, 8.0 GB"
    assert rows["pinned to CPUs"] == "0, 1"
    assert "seed 2012" in rows["run plan"]
    assert re.findall("[0-9a-f]{12,}", rows["hashes"]) == [value[:12] for _, value in sorted(results.hashes.items())]


@pytest.mark.parametrize("published", ["flickr8k", "study_loop", "precisions"])
def test_results_of_older_formats_render_without_what_they_lack(published: str) -> None:
    results = read_results(Path(__file__).parents[1] / "reports" / "published" / published / "results.json")
    if results.harness_seconds is not None:
        pytest.skip("published in the present format")
    report = make_report(results)
    page = render_markdown(report, {})
    assert "How far to trust the times" not in page
    assert "What a runtime costs" not in page
    assert "steps each (ms)" not in page
    assert "garbage collection" not in dict(environment_rows(results))
    assert caption_table(report) == runtime_table(report) == trust_section(report) == ""


def test_first_format_renders_the_same_rows_and_verdict(results: Results) -> None:
    old = make_report(read_results(GOLDEN / "results_v1.json"))
    assert {item.name for item in old.rows} == {row_name(row) for row in results.rows}
    assert render_verdict(old).startswith(f"**Ship `{INT8_TFLITE}`**: 5.59 MB (3.8x smaller) and 6.43 ms a caption")
    assert all(item.speed_up is None or item.speed_up.ci99 is None for item in old.rows)


def test_readme_blocks_explain_ranks_and_pair_decoding_times(results: Results) -> None:
    assert "rows of one rank (“2=”)" in readme_block(make_report(results), None)
    assert f"| `{INT8_TFLITE}` | 0.530 |" in study_block(results)
    assert "| 77.9x [77.6, 78.2] |" in study_block(results)


def test_terminal_shows_about_equal_speeds_and_ranks(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = change(results, FP32_ONNX, lambda row: replace(row, versus_baseline=Difference(0.001, (-0.01, 0.01))))
    write_results(same, tmp_path / "results.json")
    print_report(make_report(read_results(tmp_path / "results.json")))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "@" in line.split("  ")[0]}
    assert " ≈ " in lines["onnx.fp32"]
    assert " 2= " in lines["tflite.fp32"]
    assert " 11.2x [11.1, 11.2] " in lines["tflite.int8_static"]
