"""When the hashes of a run change, and when they must not."""

import dataclasses
from pathlib import Path

import pytest

from bench.hashes import CODE, code_hash, run_hashes
from bench.suite import load_suite

HEX = 64


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    for folder in CODE:
        (tmp_path / folder / "inner").mkdir(parents=True)
        (tmp_path / folder / "inner" / "module.py").write_bytes(b"first = 1\nsecond = 2\n")
    return tmp_path


def test_hashes_are_whole_and_repeatable() -> None:
    found, again = (run_hashes(load_suite("scenes"), ["a", "b"], "fingerprint") for _ in range(2))
    assert found == again
    assert sorted(found) == ["code", "images", "suite"]
    assert all(len(value) == HEX for value in found.values())


def test_images_and_their_order_and_data_set_change_one_hash() -> None:
    suite = load_suite("scenes")
    first = run_hashes(suite, ["a", "b"], "fingerprint")
    for images, fingerprint in ((["b", "a"], "fingerprint"), (["a"], "fingerprint"), (["a", "b"], "another")):
        other = run_hashes(suite, images, fingerprint)
        assert other.pop("images") != first["images"]
        assert other.items() <= first.items()


def test_option_of_a_suite_changes_its_hash() -> None:
    suite = load_suite("scenes")
    plan = dataclasses.replace(suite.table.plan, rounds=suite.table.plan.rounds + 1)
    changed = dataclasses.replace(suite, table=dataclasses.replace(suite.table, plan=plan))
    assert run_hashes(changed, [], "")["suite"] != run_hashes(suite, [], "")["suite"]


def test_code_hash_follows_names_and_contents(sources: Path) -> None:
    first = code_hash(sources)
    module = sources / "convert" / "inner" / "module.py"
    module.write_bytes(b"first = 1\nsecond = 3\n")
    assert code_hash(sources) != first
    module.write_bytes(b"first = 1\nsecond = 2\n")
    assert code_hash(sources) == first
    module.rename(module.with_name("renamed.py"))
    assert code_hash(sources) != first


def test_line_endings_reports_and_bytecode_are_no_code(sources: Path) -> None:
    first = code_hash(sources)
    (sources / "models" / "inner" / "module.py").write_bytes(b"first = 1\r\nsecond = 2\r\n")
    (sources / "reports").mkdir()
    (sources / "reports" / "tables.py").write_text("drawn = 1\n", encoding="utf-8")
    (sources / "bench" / "inner" / "module.pyc").write_bytes(b"compiled")
    assert code_hash(sources) == first
