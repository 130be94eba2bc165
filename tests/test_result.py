"""results.json: what is written is read back, and anything else is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.caption_storage import IMAGES, TEXTS
from bench.measurement import Phase
from bench.pytest_benchmark_file import write_benchmarks
from bench.result import FORMAT_VERSION, Result, Results, Status, row_name
from bench.result_file import read_results, write_results
from models.errors import ArtifactError

FOLDER = Path(__file__).parent / "golden"
GOLDEN = FOLDER / "results.json"
PUBLISHED = Path(__file__).parent.parent / "reports" / "published"


@pytest.fixture
def results() -> Results:
    return read_results(GOLDEN)


@pytest.fixture
def table() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(GOLDEN.read_text())
    return loaded


def test_results_come_back_as_they_were_written(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def test_results_have_their_types_back(results: Results) -> None:
    row = next(row for row in results.rows if row.latency_seconds)
    assert isinstance(row.status, Status)
    assert all(isinstance(phase, Phase) for phase in row.latency_seconds)
    assert row.quality is not None
    assert isinstance(row.quality.cider_ci95, tuple)
    assert row_name(row) == f"{row.recipe} @ {row.runtime}"


def test_every_field_of_the_schema_is_written(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert set(written) == {field.name for field in dataclasses.fields(Results)} | {IMAGES, TEXTS}
    assert set(written["rows"][0]) == {field.name for field in dataclasses.fields(Result)}


def test_format_6_is_upgraded(results: Results, tmp_path: Path) -> None:
    """It wrote captions and causes by image, as all formats before 7."""
    table = dataclasses.asdict(results) | {"format_version": 6}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(table))
    assert read_results(path) == results


@pytest.mark.parametrize("version", [1, 2])
def test_older_format_is_upgraded(version: int, tmp_path: Path) -> None:
    old = FOLDER / f"results_v{version}.json"
    assert json.loads(old.read_text())["format_version"] == version
    results = read_results(old)
    assert results.format_version == FORMAT_VERSION
    latencies = [(phase, latency) for row in results.rows for phase, latency in row.latency_seconds.items()]
    assert latencies
    for _, latency in latencies:
        assert latency.rounds == ()  # not known
        assert len(latency.by_round) == 1
        assert set(latency.percentiles) == ({"p90"} if latency.n >= 64 else set())
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def test_format_2_keeps_what_compression_reached() -> None:
    compressed = [
        captioner for captioner in read_results(FOLDER / "results_v2.json").captioners if captioner.compressions
    ]
    assert [step.technique for step in compressed[0].compressions] == ["prune80", "cluster16"]


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*/results.json")), ids=lambda path: path.parent.name)
def test_published_results_are_readable(path: Path) -> None:
    results = read_results(path)
    assert results.rows
    assert results.format_version == FORMAT_VERSION


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update(format_version=FORMAT_VERSION + 1), "of a newer captionbench.*Update captionbench"),
        (
            lambda t: t.update(format_version=0),
            "has results format 0; this version reads 1, 2, 3, 4, 5, 6, 7. Run the suite again",
        ),
        (lambda t: t.pop("format_version"), "has results format None"),
        (lambda t: t.update(colour="red"), "Results has no field colour"),
        (lambda t: t["rows"][0].update(status="fine"), "'fine' is not a valid Status"),
        (lambda t: t.pop("rows"), "it lacks 'rows'"),
        (lambda t: t["rows"][0].pop("status"), "Result lacks status"),
        (lambda t: t["rows"][0].update(quality=3), "expected Quality as an object; received 3"),
        (lambda t: t.update(environment=[]), "expected Environment as an object"),
        (lambda t: t.update(title=None), "expected str; received None"),
        (lambda t: t.update(test_images=9.7), r"expected int; received 9\.7"),
        (lambda t: t["environment"].update(isa="avx2"), "expected a list; received 'avx2'"),
    ],
)
def test_other_files_are_refused(table: dict[str, Any], tmp_path: Path, change: Any, told: str) -> None:
    change(table)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(table))
    with pytest.raises(ArtifactError, match=told):
        read_results(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\xff\xfe", "is not a results file"),
        (b"{'suite': 1}", "it is not JSON"),
        (b"[" * 100_000, "is not a results file"),
        (b"1" * 5000, "is not a results file"),
    ],
    ids=["empty", "binary", "python", "nested", "number"],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=told):
        read_results(path)


def test_truncated_file_is_said_to_be_cut_off_wherever_that_is(tmp_path: Path) -> None:
    content = GOLDEN.read_bytes().rstrip()
    path = tmp_path / "results.json"
    letters = [place for place, byte in enumerate(content) if byte > 127]  # of which a half may be left
    for place in [*range(1, len(content), 499), *letters[:4], len(content) - 1]:
        path.write_bytes(content[:place])
        with pytest.raises(ArtifactError, match="it is cut off at its end"):
            read_results(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "a JSON list"),
        (3, "a JSON number"),
        (None, "a JSON null"),
        ({}, "an empty JSON object"),
        ({"name": "left-pad", "version": "1.0.0", "dependencies": {}}, "a package.json of Node"),
        ({"colour": "red", "format_version": 3}, "a JSON object with 'colour', 'format_version'"),
        ({"machine_info": {}, "benchmarks": [], "version": "5.1"}, "times of pytest-benchmark"),
        ({"files": {}, "facts": {}}, "the manifest of an artifact"),
        ({"format_version": 1, "gate": {}, "trials": []}, "a tuning.json"),
        ({"exit_status": 0, "changes": []}, "what `captionbench compare --json` printed"),
    ],
)
def test_foreign_file_is_refused_with_what_it_seems_to_be(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"is not a results file: it seems to be {told}.*Give a results.json"):
        read_results(path)


def test_times_for_pytest_benchmark_are_not_taken_for_results(results: Results, tmp_path: Path) -> None:
    write_benchmarks(results, tmp_path / "benchmarks.json")
    with pytest.raises(ArtifactError, match="times of pytest-benchmark"):
        read_results(tmp_path / "benchmarks.json")


def test_a_sentence_is_written_once(results: Results, tmp_path: Path) -> None:
    baseline = next(row for row in results.rows if row_name(row) == results.baseline)
    image = next(iter(baseline.captions))
    captions = dict.fromkeys(baseline.captions, "a caption like no other")
    rows = [dataclasses.replace(baseline, recipe=name, captions=captions) for name in (baseline.recipe, "same")]
    other = dataclasses.replace(baseline, recipe="other", captions={**captions, image: "something else"})
    changed = dataclasses.replace(results, rows=(*rows, other))
    path = tmp_path / "results.json"
    write_results(changed, path)
    assert path.read_text().count("a caption like no other") == 1
    assert read_results(path) == changed


def test_folder_instead_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a results file"):
        read_results(tmp_path)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run `captionbench bench` first"):
        read_results(tmp_path / "results.json")
