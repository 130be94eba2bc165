"""Two runs side by side: what is significant, what fails the gate, what raises an alarm, and what can't be compared."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.change import Change, Changes, Metric, Outcome, Verdict
from bench.changes import find_changes
from bench.measurement import Phase
from bench.pytest_benchmark_file import write_benchmarks
from bench.result import Coverage, Result, Results, Status, row_name
from bench.result_file import read_results, write_results
from bench.score_changes import changed_captions, difference_ci95
from bench.setting import RunPlan
from bench.statistics import summarise
from bench.time_changes import unpaired_difference
from bench.verdict import Evidence, judge
from models.errors import ConfigError
from reports.changes_text import change_text

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compare.md").read_text()
EXAMPLE = (ROOT / "docs" / "examples" / "github-actions.yml").read_text()
ONNX, TFLITE = "flickr8k.onnx.fp32 @ onnxruntime", "flickr8k.tflite.int8_static @ tflite"
TIMED = (Phase.CAPTION, Phase.ENCODE, Phase.STEP)
PHOTOS = ("dog.jpg", "rock.jpg", "swing.jpg")
Edit = Callable[[Result], Result]


@functools.cache
def golden() -> Results:
    return read_results(ROOT / "tests" / "golden" / "results.json")


def drawn_rounds(seed: int, *, factor: float = 1.0, rounds: int = 10) -> list[list[float]]:
    """Seconds as a quiet machine gives them: rounds differ by 1 %, samples by 3 %."""
    rng = np.random.default_rng(seed)
    return [(0.01 * factor * np.exp(rng.normal(0, 0.01) + rng.normal(0, 0.03, 6))).tolist() for _ in range(rounds)]


def run(seed: int, slow: Mapping[str, float] | None = None, *, rounds: int = 10, **head: Any) -> Results:
    """A run of the golden file's rows with fresh timings; `slow` has factors by row."""
    rows = []
    for place, row in enumerate(golden().rows):
        factor = (slow or {}).get(row_name(row), 1.0)
        if row.status is Status.VALID:
            times = {
                phase: summarise(drawn_rounds(seed * 1000 + place * 10 + index, factor=factor, rounds=rounds))
                for index, phase in enumerate(TIMED)
            }
            row = dataclasses.replace(row, latency_seconds=times)
        rows.append(row)
    fields: dict[str, Any] = {
        "rows": tuple(rows),
        "created": f"2026-01-01T00:00:{seed:02}Z",
        "noise_floor": 0.02,
        "noise": None,
        "hashes": {},
    }
    return dataclasses.replace(golden(), **fields | head)


def edited(results: Results, edit: Edit, name: str = ONNX) -> Results:
    return dataclasses.replace(results, rows=tuple(edit(row) if row_name(row) == name else row for row in results.rows))


def other_captions(row: Result) -> Result:
    return dataclasses.replace(row, captions={**row.captions, "dog.jpg": "a cat"})


def cider(change: float) -> Edit:
    def edit(row: Result) -> Result:
        assert row.quality
        low, high = row.quality.cider_ci95
        quality = dataclasses.replace(
            row.quality, cider=row.quality.cider + change, cider_ci95=(low + change, high + change)
        )
        return dataclasses.replace(other_captions(row), quality=quality)

    return edit


def size(**sizes: int) -> Edit:
    def edit(row: Result) -> Result:
        assert row.size_bytes
        return dataclasses.replace(row, size_bytes=dataclasses.replace(row.size_bytes, **sizes))

    return edit


def coverage(**shares: Any) -> Edit:
    return lambda row: dataclasses.replace(row, coverage=dataclasses.replace(row.coverage, **shares))


def said(**fields: Any) -> Edit:
    return lambda row: dataclasses.replace(row, **fields)


def verdicts(changes: Changes) -> dict[Metric, Verdict]:
    return {change.metric: change.verdict for change in changes.changes}


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "captionbench.py"), "compare", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, Results], Path]:
    """Writes a run into a folder and returns the folder."""

    def write(name: str, results: Results) -> Path:
        write_results(results, tmp_path / name / "results.json")
        return tmp_path / name

    return write


Written = Callable[[str, Results], Path]


def test_two_runs_of_the_same_code_have_no_significant_change(written: Written) -> None:
    before, after = written("a", run(1)), written("b", run(2))
    done = compare(before, after / "results.json")
    assert done.returncode == Outcome.PASSED, done.stderr
    assert "No significant change." in done.stdout
    listed = json.loads(compare(before, after, "--json").stdout)
    assert listed["changes"] == []
    assert listed["exit_status"] == 0


def test_times_of_the_same_code_raise_no_suspicion() -> None:
    for seed in range(1, 6):  # pairs of 6 rows with 3 times each
        assert not find_changes(run(seed), run(seed + 40)).changes


def test_worse_artifact_is_named_with_metric_change_and_interval(written: Written) -> None:
    def swap(row: Result) -> Result:
        return dataclasses.replace(cider(-0.1)(row), sha256="f" * 64)

    done = compare(written("a", run(1)), written("b", edited(run(2), swap)))
    assert done.returncode == Outcome.FAILED
    assert re.search(rf"{re.escape(ONNX)} +CIDEr +0\.431 +0\.331 +-0\.100 \[-0\.148, -0\.052\] +worse", done.stdout)
    assert "“a brown dog runs through the grass .” became “a cat”" in done.stdout
    assert "The gate failed" in done.stdout


def test_slower_row_is_suspected_and_then_confirmed(written: Written) -> None:
    before, slow, slow_again = (
        written("a", run(1)),
        written("b", run(2, {ONNX: 1.2})),
        written("c", run(3, {ONNX: 1.2})),
    )
    done = compare(before, slow)
    assert done.returncode == Outcome.SUSPECTED
    assert re.search(rf"{re.escape(ONNX)} +caption time .* \+\d\d\.\d% \[.*\] +slower, to be confirmed", done.stdout)
    assert "--confirm" in done.stdout
    confirmed = compare(before, slow, "--confirm", slow_again)
    assert confirmed.returncode == Outcome.SLOWER
    assert "slower, confirmed" in confirmed.stdout


def test_suspicion_that_is_not_confirmed_is_dropped_and_told() -> None:
    found = find_changes(run(1), run(2, {ONNX: 1.2}), run(3))
    assert found.outcome is Outcome.PASSED
    assert not found.changes
    assert any(f"caption time of {ONNX} was" in note for note in found.notes)


def test_suspicion_stays_when_the_confirming_run_can_not_be_judged() -> None:
    confirm = edited(run(3, {ONNX: 1.2}), said(status=Status.INVALID, reason="another process kept a core busy"))
    found = find_changes(run(1), run(2, {ONNX: 1.2}), confirm)
    assert found.outcome is Outcome.SUSPECTED


def test_faster_row_is_better() -> None:
    found = find_changes(run(1), run(2, {ONNX: 0.8}))
    assert verdicts(found)[Metric.CAPTION_TIME] is Verdict.BETTER
    assert found.outcome is Outcome.PASSED


def test_five_percent_slower_is_below_the_threshold() -> None:
    assert not find_changes(run(1), run(2, {ONNX: 1.05})).changes


def test_time_within_a_noisy_runs_floor_is_no_suspicion() -> None:
    assert not find_changes(run(1, noise_floor=0.3), run(2, {ONNX: 1.2})).changes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: dataclasses.replace(r, run_plan=dataclasses.replace(r.run_plan, quick=True)), "--quick"),
        (lambda r: dataclasses.replace(r, run_plan=dataclasses.replace(r.run_plan, threads=1)), "threads 2 and 1"),
        (lambda r: dataclasses.replace(r, environment=dataclasses.replace(r.environment, cpu="Other")), "'Other'"),
        (lambda r: dataclasses.replace(r, noise_floor=None), "noise floor of the second is not known"),
        (lambda _: read_results(ROOT / "tests" / "golden" / "results_v1.json"), "which sample is of which round"),
        (lambda r: edited(r, said(runtime_version="9.9")), f"another version: {ONNX} (onnxruntime 1.32.0 and 9.9)"),
        (lambda r: edited(r, said(status=Status.INVALID, reason="drifted")), f"invalid: {ONNX} (drifted)"),
        (lambda _: run(2, {ONNX: 1.5}, rounds=2), "too few rounds"),
    ],
)
def test_times_that_say_nothing_are_not_compared(change: Callable[[Results], Results], told: str) -> None:
    found = find_changes(run(1), change(run(2, {ONNX: 1.5})))
    assert not found.changes
    assert any(told in note for note in found.notes), found.notes


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (other_captions, {Metric.CAPTIONS: Verdict.WORSE}),
        (said(captions={}), {Metric.CAPTIONS: Verdict.WORSE}),
        (cider(0.1), {Metric.CAPTIONS: Verdict.CHANGED, Metric.CIDER: Verdict.BETTER}),
        (cider(-0.1), {Metric.CAPTIONS: Verdict.WORSE, Metric.CIDER: Verdict.WORSE}),
        (cider(-0.01), {Metric.CAPTIONS: Verdict.WORSE}),
        (said(quality=None), {Metric.CIDER: Verdict.WORSE}),
        (said(sha256="f" * 64), {Metric.SHA256: Verdict.CHANGED}),
        (size(total=99_000_000), {Metric.SIZE: Verdict.WORSE}),
        (size(total=1000), {Metric.SIZE: Verdict.BETTER}),
        (size(deflated=99_000_000), {Metric.ZIPPED: Verdict.WORSE}),
        (said(size_bytes=None), {Metric.SIZE: Verdict.WORSE}),
        (coverage(weights_int8=0.8), {Metric.INTEGER_WEIGHTS: Verdict.WORSE}),
        (coverage(weights_int8=0.95), {Metric.INTEGER_WEIGHTS: Verdict.BETTER}),
        (coverage(weights_int8=0.5, weights_int4=0.4), {}),
        (coverage(weights_int8=None), {Metric.INTEGER_WEIGHTS: Verdict.WORSE}),
        (coverage(macs_int8=0.7), {Metric.INTEGER_MACS: Verdict.WORSE}),
        (coverage(macs_int8=0.896), {}),  # what longer captions do
        (coverage(leftover_pairs=3), {Metric.LEFTOVER_PAIRS: Verdict.WORSE}),
        (coverage(overflow_possible=2), {Metric.OVERFLOWS: Verdict.WORSE}),
        (coverage(lstm="loop"), {Metric.LSTM: Verdict.CHANGED}),
        (said(status=Status.FAILED, reason="it crashed"), {Metric.STATUS: Verdict.WORSE}),
        (said(status=Status.INVALID, reason="drifted"), {}),
    ],
)
def test_each_metric_has_its_verdict(edit: Edit, expected: dict[Metric, Verdict]) -> None:
    known = Coverage(
        weights_int8=0.9, weights_int4=0.0, macs_int8=0.9, leftover_pairs=0, overflow_possible=0, lstm="explicit_step"
    )
    before = edited(run(1), said(coverage=known))
    found = find_changes(before, edited(dataclasses.replace(before, created="later"), edit))
    assert verdicts(found) == expected
    assert found.outcome is (Outcome.FAILED if Verdict.WORSE in expected.values() else Outcome.PASSED)


def test_row_that_vanished_fails_and_a_new_one_is_reported() -> None:
    less = dataclasses.replace(run(2), rows=run(2).rows[:-1])
    assert find_changes(run(1), less).outcome is Outcome.FAILED
    more = find_changes(less, run(3))
    assert verdicts(more) == {Metric.STATUS: Verdict.CHANGED}
    assert more.outcome is Outcome.PASSED


def test_notes_count_rows_instead_of_listing_all() -> None:
    found = find_changes(run(1), run(2, rounds=2))
    assert len([note for note in found.notes if "too few rounds" in note]) == 1
    assert any(note.endswith("; and 3 more.") for note in found.notes)


def test_row_that_works_again_is_better() -> None:
    broken = edited(run(1), said(status=Status.FAILED, reason="it crashed"))
    assert verdicts(find_changes(broken, run(2))) == {Metric.STATUS: Verdict.BETTER}


@pytest.mark.parametrize("evidence", [{"differing": 3}, {"repeat_gain": 0.5}])
def test_wrong_timed_captions_fail_though_the_row_is_only_invalid(evidence: dict[str, Any]) -> None:
    status, reason = judge(RunPlan(), Evidence(samples=99, seconds=99.0, rounds=10, **evidence))
    found = find_changes(run(1), edited(run(2), said(status=status, reason=reason)))
    assert verdicts(found) == {Metric.STATUS: Verdict.WORSE}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: dataclasses.replace(r, suite="other"), "suite is 'flickr8k' before and 'other' after"),
        (lambda r: dataclasses.replace(r, dataset="scenes"), "dataset is"),
        (lambda r: dataclasses.replace(r, test_images=9), "test_images is 1000 before and 9 after"),
        (lambda r: dataclasses.replace(r, hashes={"images": "b"}), "hashes.images is a before and b after"),
        (lambda r: edited(r, said(captions={"cat.jpg": "a cat"})), "captioned images of .* with cat.jpg after"),
        (lambda r: edited(r, _other_protocol), "quality.protocol of"),
    ],
)
def test_runs_that_measure_something_else_are_refused(change: Callable[[Results], Results], told: str) -> None:
    before = dataclasses.replace(run(1), hashes={"images": "a"})
    with pytest.raises(ConfigError, match=told):
        find_changes(before, change(dataclasses.replace(run(2), hashes={"images": "a"})))


def _other_protocol(row: Result) -> Result:
    assert row.quality
    return dataclasses.replace(row, quality=dataclasses.replace(row.quality, protocol="other"))


def test_refusal_is_one_sentence_and_status_2(written: Written) -> None:
    done = compare(written("a", run(1)), written("b", run(2, test_images=9)))
    assert done.returncode == 2
    assert done.stderr.startswith("error: these runs can't be compared: test_images")


@pytest.mark.parametrize(
    ("confirm", "told"),
    [
        (lambda: run(2, {ONNX: 1.2}), "is the second run itself"),
        (lambda: run(3, commit="abc"), "is of other code"),
        (lambda: run(3, suite="other"), "in the confirming run"),
    ],
)
def test_confirming_run_must_be_a_fresh_one_of_the_same_code(confirm: Callable[[], Results], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find_changes(run(1), run(2, {ONNX: 1.2}), confirm())


def test_other_hashes_and_packages_are_told_but_no_change() -> None:
    packages = {**golden().environment.packages, "numpy": "9"}
    after = run(
        2,
        hashes={"code": "b" * 64, "suite": "s"},
        environment=dataclasses.replace(golden().environment, packages=packages),
    )
    found = find_changes(run(1, hashes={"code": "a" * 64, "suite": "s"}), after)
    assert not found.changes
    assert "code changed: hash aaaaaaaaaaaa, then bbbbbbbbbbbb." in found.notes
    assert "packages changed: numpy 2.2.1 → 9." in found.notes


def test_same_captions_are_worth_the_same_whatever_their_intervals() -> None:
    def complete(row: Result, change: float = 0.0) -> Result:
        assert row.quality
        quality = dataclasses.replace(row.quality, images=len(row.captions), cider=row.quality.cider + change)
        return dataclasses.replace(row, quality=quality)

    after = edited(run(2), lambda row: complete(row, -0.4))
    assert not find_changes(edited(run(1), complete), after).changes


@pytest.mark.parametrize(
    "path", sorted((ROOT / "reports/published").glob("*/results.json")), ids=lambda p: p.parent.name
)
def test_interval_of_a_score_is_hardly_narrower_than_the_paired_bootstraps(path: Path) -> None:
    """The rows of a report hold the paired bootstrap of their difference to the baseline, which has references."""
    results = read_results(path)
    base = next(row for row in results.rows if row_name(row) == results.baseline)
    for row in results.rows:
        changed = len(changed_captions(base, row))
        if changed and row.quality and base.quality and row.quality.cider_difference_ci95:
            share = changed / len(base.captions)
            scores = [(quality.cider, quality.cider_ci95) for quality in (base.quality, row.quality)]
            _, (low, high) = difference_ci95(scores[0], scores[1], share)
            paired = row.quality.cider_difference_ci95
            assert high - low > 0.8 * (paired[1] - paired[0]), row_name(row)


def test_interval_of_a_shift_covers_it_at_the_stated_rate() -> None:
    def covers(seed: int) -> bool:
        found = unpaired_difference(drawn_rounds(seed, factor=1.15), drawn_rounds(seed + 10_000, rounds=8))
        assert found
        return found.ci99[0] <= 0.15 <= found.ci99[1]

    # Of 300 draws 297 are expected to cover; fewer than 290 would happen once in thousands of such tests.
    assert sum(covers(seed) for seed in range(300)) >= 290


@given(st.lists(st.floats(1e-4, 10), min_size=5, max_size=8), st.lists(st.floats(1e-4, 10), min_size=5, max_size=8))
def test_shift_is_inverted_when_runs_are_swapped(mine: list[float], theirs: list[float]) -> None:
    rounds = [[value] for value in mine], [[value] for value in theirs]
    one, other = unpaired_difference(*rounds), unpaired_difference(rounds[1], rounds[0])
    assert one
    assert other
    assert (1 + one.relative) * (1 + other.relative) == pytest.approx(1)
    assert (1 + one.ci99[0]) * (1 + other.ci99[1]) == pytest.approx(1)
    assert one.ci99[0] <= one.relative <= one.ci99[1]


@pytest.mark.parametrize(("mine", "theirs"), [(4, 4), (0, 10), (1, 10)])
def test_too_few_rounds_have_no_interval(mine: int, theirs: int) -> None:
    assert unpaired_difference(drawn_rounds(1, rounds=mine), drawn_rounds(2, rounds=theirs)) is None


def test_change_is_written_in_its_unit() -> None:
    def text(metric: Metric, before: float, after: float, difference: float) -> str:
        return change_text(Change("row", metric, Verdict.WORSE, before, after, difference))

    assert text(Metric.SIZE, 1000, 1001, 0.001) == "+1 bytes (+0.10%)"
    assert text(Metric.INTEGER_MACS, 0.9, 0.8, -0.1) == "-10.0 points"
    assert text(Metric.LEFTOVER_PAIRS, 0, 3, 3) == "+3"
    assert text(Metric.CAPTION_TIME, 0.01, 0.012, 0.2) == "+20.0%"


def test_pytest_benchmark_compares_the_times_of_two_runs(tmp_path: Path) -> None:
    for name, results in (("a", run(1)), ("b", run(2, {ONNX: 1.2}))):
        write_benchmarks(results, tmp_path / name / "benchmarks.json")
    files = ["a/benchmarks.json", "b/benchmarks.json"]
    command = [sys.executable, "-m", "pytest_benchmark", "compare", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "benchmark 'caption'" in done.stdout
    for source in "ab":
        assert f"caption[{ONNX}] ({source}/benchmarks)" in done.stdout
    between = [*command, "--between", "median", "-k", "caption", "--csv", "out.csv"]
    done = subprocess.run(between, capture_output=True, text=True, check=True, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if f"caption[{ONNX}]" in line)
    assert 15 < float(line.split()[-1].strip("+%")) < 25


def test_benchmarks_hold_raw_seconds_and_what_the_row_is_worth(tmp_path: Path) -> None:
    results = run(1)
    write_benchmarks(results, tmp_path / "benchmarks.json")
    table = json.loads((tmp_path / "benchmarks.json").read_text())
    listed = {benchmark["name"]: benchmark for benchmark in table["benchmarks"]}
    assert len(listed) == sum(len(row.latency_seconds) for row in results.rows)
    row = next(row for row in results.rows if row_name(row) == ONNX)
    one = listed[f"caption[{ONNX}]"]
    assert one["stats"]["data"] == list(row.latency_seconds[Phase.CAPTION].samples)
    assert one["stats"]["rounds"] == 60
    assert one["extra_info"]["samples_by_round"] == [6] * 10
    assert one["extra_info"]["status"] == "valid"
    assert table["commit_info"]["id"] == results.commit


def test_page_and_help_list_the_exit_statuses() -> None:
    told = compare("--help").stdout
    assert "Example: captionbench compare" in told
    for status in sorted({*Outcome, 2}):
        assert f"| {int(status)} | " in PAGE
        assert re.search(rf"^\s+{int(status)}  \w", told, re.MULTILINE)


def test_example_runs_once_more_on_a_suspicion_and_ends_with_what_that_says(tmp_path: Path) -> None:
    """The example's own script, with a `nox` that finds the third run already measured."""
    script = re.search(r"run once more.*?run: \|\n(.*?)\n      - uses", EXAMPLE, re.DOTALL)
    assert script
    for name, results in (("base", run(1)), ("head", run(2, {ONNX: 1.2})), ("third", run(3, {ONNX: 1.2}))):
        write_results(results, tmp_path / "runs" / name / "results.json")
    _program(tmp_path / "bin" / "nox", "mv ../runs/third ../runs/confirm")
    program = tmp_path / "head" / ".nox" / "env-tensorflow" / "bin" / "captionbench"
    _program(program, f'exec "{sys.executable}" "{ROOT / "captionbench.py"}" "$@"')
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "BENCH_OPTIONS": ""}
    done = subprocess.run(
        ["bash", "-e", "-c", script[1]], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == Outcome.SLOWER, done.stderr
    assert "slower, to be confirmed" in done.stdout
    assert "slower, confirmed" in done.stdout


def _program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
