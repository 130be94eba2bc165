"""`captionbench parity` end to end on a tiny suite: rows, references, golden sets, refusals, resuming."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import TINY_SCENES, tiny_spec
from typer.testing import CliRunner

from bench.launcher import Launcher
from bench.parity import examining
from bench.parity.command import Selection, check_against, run_parity, save_golden
from bench.parity.parity_file import read_parity
from bench.parity.shown import shown_images
from bench.preparing import Options
from bench.suite import Suite, load_suite
from captionbench import app
from convert.artifact import Artifact
from convert.recipe import Format, Recipe
from convert.store import Store
from models.errors import ConfigError

KERAS = "tiny-attention.saved_model.fp32 @ tensorflow"
ONNX = "tiny-attention.onnx.fp32 @ onnxruntime"
INT8 = "tiny-attention.tflite.int8_static @ tflite"
MERGE = "tiny-merge.onnx.fp32 @ onnxruntime"


def _value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture(scope="module")
def suite_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two captioners; the names and training of the session's own, so that nothing is trained anew."""
    builds = [
        ("tiny-attention", "saved_model", "fp32"),
        ("tiny-attention", "onnx", "fp32"),
        ("tiny-attention", "tflite", "int8_static"),
        ("tiny-merge", "onnx", "fp32"),
    ]
    text = ['title = "tiny"', 'dataset = "scenes"', f'baseline = "{KERAS}"', "[dataset_options]"]
    text += [f"{key} = {value}" for key, value in TINY_SCENES.items()]
    for decoder in ("attention", "merge"):
        text += ["[[captioners]]", *(f"{key} = {_value(value)}" for key, value in asdict(tiny_spec(decoder)).items())]
    for captioner, format_, precision in builds:
        text += [
            "[[builds]]",
            f'captioner = "{captioner}"',
            f'formats = ["{format_}"]',
            f'precisions = ["{precision}"]',
        ]
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def suite(suite_path: Path) -> Suite:
    return load_suite(str(suite_path))


def test_rows_are_compared_with_their_twins(
    suite: Suite, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_parity(suite, store, Launcher(), tmp_path, Options(), Selection())
    assert read_parity(tmp_path / "parity.json") == run
    assert [row.name for row in run.rows] == [cell.name for cell in suite.cells]
    references = {row.name: row.greedy.reference for row in run.rows if row.greedy}
    assert references == {KERAS: KERAS, ONNX: KERAS, INT8: KERAS, MERGE: MERGE}
    onnx = next(row for row in run.rows if row.name == ONNX)
    assert onnx.greedy is not None
    assert onnx.greedy.captions_identical == onnx.greedy.graph_captions_identical == onnx.greedy.pixels_identical == 1
    assert {"features", "logits"} <= set(onnx.greedy.tensors)
    int8 = next(row for row in run.rows if row.name == INT8)
    assert int8.greedy is not None
    assert len(int8.greedy.divergences) == len(int8.greedy.causes)
    assert set(run.pictures) == set(shown_images(run.rows))
    assert all((tmp_path / picture).is_file() for picture in run.pictures.values())

    def no_worker(*arguments: object) -> None:
        raise AssertionError("what was found is kept")

    monkeypatch.setattr(examining, "run_worker", no_worker)
    again = run_parity(suite, store, Launcher(), tmp_path, Options(), Selection())
    assert replace(again, created="") == replace(run, created="")


def test_reference_of_another_captioner_is_refused(suite: Suite, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"another captioner \('tiny-attention', 'tiny-merge'\)"):
        run_parity(suite, store, Launcher(), tmp_path, Options(), Selection((ONNX,), MERGE))
    with pytest.raises(ConfigError, match="Did you mean"):
        run_parity(suite, store, Launcher(), tmp_path, Options(), Selection((ONNX + "s",)))
    assert not (tmp_path / "parity.json").exists()


def test_golden_set_is_checked_without_suite_and_data(
    suite: Suite, store: Store, build: Callable[[Recipe], Artifact], tmp_path: Path
) -> None:
    golden = tmp_path / "golden"
    save_golden(suite, store, Launcher(), golden, Options(images=3), "")
    assert len(json.loads((golden / "trace.json").read_text())["images"]) == 3
    artifact = build(Recipe("tiny-attention", Format.TFLITE))
    run = check_against(store, Launcher(), golden, str(artifact.path), "", 1, "")
    (row,) = run.rows
    assert row.greedy is not None
    assert row.beam3 is not None
    assert (row.greedy.reference, row.greedy.captions_identical, row.beam3.captions_identical) == (KERAS, 1, 1)
    with pytest.raises(ConfigError, match="its captioner is 'tiny-merge', and 'tiny-attention' there"):
        check_against(store, Launcher(), golden, str(build(Recipe("tiny-merge", Format.ONNX)).path), "", 1, "")
    with pytest.raises(ConfigError, match="--against needs --artifact"):
        check_against(store, Launcher(), golden, "", "", 1, "")
    with pytest.raises(ConfigError, match="it is not empty"):
        save_golden(suite, store, Launcher(), golden, Options(), "")


def test_command_writes_its_page_and_ends_with_the_status(suite_path: Path, store: Store, tmp_path: Path) -> None:
    arguments = [
        "parity",
        "--suite",
        str(suite_path),
        "--store",
        str(store.root),
        "--out",
        str(tmp_path),
        "--row",
        ONNX,
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "parity.md").read_text()
    assert "**1 fp32 or fp16 row: every caption is the reference's, with a beam too.**" in page
    assert f"| `{ONNX}` | 100 % | 100 % | 100 % | 100 % | 100 % | 100 % | – |" in page
    assert f"nox -s parity -- --suite {suite_path} --row '{ONNX}'" in page


def test_missing_interpreter_is_refused(suite: Suite, store: Store, tmp_path: Path) -> None:
    absent = Launcher({"tflite": tmp_path / "no-python"})
    with pytest.raises(ConfigError, match="no such file"):
        run_parity(suite, store, absent, tmp_path, Options(), Selection())
