"""results.json: what is written is read back, and anything else is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.result import FORMAT_VERSION, Phase, Results, Status, row_name
from bench.result_file import read_results, write_results
from models.errors import ArtifactError

GOLDEN = Path(__file__).parent / "golden" / "results.json"


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


def test_every_field_of_the_schema_is_in_the_golden_file(table: dict[str, Any]) -> None:
    assert set(table) == {field.name for field in dataclasses.fields(Results)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.update(format_version=FORMAT_VERSION + 1), "Run the suite again"),
        (lambda t: t.pop("format_version"), "has results format None"),
        (lambda t: t.update(colour="red"), "Results has no field colour"),
        (lambda t: t["rows"][0].update(status="fine"), "'fine' is not a valid Status"),
        (lambda t: t.pop("rows"), "does not match"),
        (lambda t: t["rows"][0].update(quality=3), "does not match"),
        (lambda t: t.update(environment=[]), "does not match"),
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


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\udcff"])
def test_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError):
        read_results(path)


def test_captions_of_the_baseline_are_written_once(results: Results, tmp_path: Path) -> None:
    baseline = next(row for row in results.rows if row_name(row) == results.baseline)
    image = next(iter(baseline.captions))
    captions = dict.fromkeys(baseline.captions, "a caption like no other")
    rows = [dataclasses.replace(baseline, recipe=name, captions=captions) for name in (baseline.recipe, "same")]
    other = dataclasses.replace(baseline, recipe="other", captions={**captions, image: "something else"})
    changed = dataclasses.replace(results, rows=(*rows, other))
    path = tmp_path / "results.json"
    write_results(changed, path)
    assert path.read_text().count("a caption like no other") == len(captions)
    assert read_results(path) == changed


def test_folder_instead_of_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a results file"):
        read_results(tmp_path)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run `captionbench bench` first"):
        read_results(tmp_path / "results.json")
