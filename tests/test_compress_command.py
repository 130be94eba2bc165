"""`captionbench compress` and `techniques`: the folder, the lines for a reader, and the errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.compressing import compress_to_folder
from bench.suite import load_suite
from captionbench import app
from convert.store import Entry, Store
from models.captioner import load_captioner
from models.compression.registry import TECHNIQUES
from models.errors import ConfigError

SUITE = """
title = "tiny"
dataset = "scenes"
baseline = "tiny-merge.onnx.fp32 @ onnxruntime"
dataset_options = {train = 48, validation = 8, test = 8}
[[captioners]]
name = "tiny-merge"
encoder = "tiny"
decoder = "merge"
weights = "random"
encoder_training = "trained"
[[builds]]
captioner = "tiny-merge"
formats = ["onnx"]
precisions = ["fp32"]
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE)
    return str(path)


def test_captioner_of_a_folder_is_compressed_into_another(
    store: Store, trained: Callable[[str], Entry], suite: str, tmp_path: Path
) -> None:
    source, out = str(trained("merge").path), tmp_path / "out" / "small"
    lines = list(compress_to_folder(store, source, "none/prune80(epochs=4)", out, suite, None))
    assert lines[0].startswith("prune80(epochs=4) on the decoder: validation CIDEr")
    assert any("lstm/kernel: 80." in line and "zeros" in line for line in lines)
    assert lines[-1] == str(out)
    assert load_captioner(out).card["compressions"][0]["technique"] == "prune80(epochs=4)"
    assert [path.name for path in out.parent.iterdir()] == ["small"]


def test_existing_folder_is_not_overwritten(store: Store, suite: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already; name a new folder"):
        list(compress_to_folder(store, "tiny-merge", "prune80", tmp_path, suite, None))


def test_typo_in_a_technique_is_told_first(store: Store, suite: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'prune'"):
        list(compress_to_folder(store, "no such captioner", "prun80", tmp_path / "out", suite, None))


def test_captioner_that_is_neither_folder_nor_name_is_refused(store: Store, suite: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tiny-merge'"):
        list(compress_to_folder(store, "tiny-merg", "prune80", tmp_path / "out", suite, None))


def test_techniques_are_listed_with_their_options() -> None:
    listed = CliRunner().invoke(app, ["techniques"]).output
    assert all(name in listed for name in TECHNIQUES)
    assert "schedule" in listed


@pytest.mark.parametrize("suite", ["paper", "paper_scenes"])
def test_paper_suites_name_all_48_combinations_of_the_study(suite: str) -> None:
    cells = [cell for cell in load_suite(suite).cells if cell.note != "not of the study"]
    compared = [cell for cell in cells if cell.runtime in ("tflite", "onnxruntime")]
    combinations = {(c.recipe.captioner, c.recipe.technique, c.recipe.encoder, c.recipe.decoder) for c in compared}
    assert len(combinations) == 48
    assert len(compared) == 96
    ran = {c.recipe for c in compared if c.note == "run by the 2020 study" and c.runtime == "tflite"}
    assert len(ran) == 34
    assert {c.note for c in compared} == {"run by the 2020 study", "not run by the 2020 study"}
