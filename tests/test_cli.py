"""The command line as a user meets it: whole runs, help, and one clear sentence for every mistake."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY_SCENES, tiny_spec

from bench.measurement import Phase
from bench.pictures import read_picture
from bench.result import Status
from bench.result_file import read_results
from convert.artifact import Artifact
from convert.recipe import Format, Recipe
from convert.store import Store
from models.errors import ImageError

ROOT = Path(__file__).parent.parent
VERBS = [
    "train",
    "build",
    "bench",
    "report",
    "caption",
    "compress",
    "compare",
    "sensitivity",
    "techniques",
    "inspect",
    "matrix",
    "tune",
    "suites",
    "runtimes",
]
Build = Callable[[Recipe], Artifact]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(ROOT / "captionbench.py"), *map(str, arguments)]


def captionbench(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False
    )


def toml_value(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, str) else value)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The session's tiny captioner as a suite: what was built for other tests is found again."""
    spec = "\n".join(f"{key} = {toml_value(value)}" for key, value in asdict(tiny_spec("attention")).items())
    options = "\n".join(f"{key} = {value}" for key, value in TINY_SCENES.items())
    path = tmp_path / "tiny.toml"
    path.write_text(f"""
title = "Tiny"
dataset = "scenes"
baseline = "tiny-attention.saved_model.fp32 @ tensorflow"
[dataset_options]
{options}
[[captioners]]
{spec}
[[builds]]
captioner = "tiny-attention"
formats = ["saved_model", "tflite", "onnx"]
precisions = ["fp32"]
[[builds]]
captioner = "tiny-attention"
formats = ["saved_model"]
precisions = ["int8_static"]
""")
    return path


def test_bench_goes_from_pictures_to_a_report(suite: Path, tmp_path: Path, store: Store) -> None:
    out = tmp_path / "report"
    done = captionbench("bench", "--suite", suite, "--store", store.root, "--out", out, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    results = read_results(out / "results.json")
    assert len(results.rows) == 4
    printed = json.loads(done.stdout)  # and nothing beside it
    assert printed["baseline"] == results.baseline
    assert {row["size_bytes"] for row in printed["rows"]} == {r.size_bytes and r.size_bytes.total for r in results.rows}
    *rows, impossible = results.rows
    assert impossible.status is Status.UNSUPPORTED
    assert "TFLite" in impossible.reason
    for row in rows:
        assert row.status is Status.QUICK
        assert row.parity is not None
        assert row.parity_beam3 is not None
        assert row.parity.captions_identical == row.parity_beam3.captions_identical == 1
        assert set(row.latency_seconds) == set(Phase)
        assert row.memory is not None
        assert len(row.captions) == 8
    for page in ((out / "report.md").read_text(), (out / "report.html").read_text()):
        assert all(row.recipe in page for row in results.rows)
    assert all((out / example.picture).is_file() for example in results.examples)
    again = captionbench("build", "--suite", suite, "--store", store.root)
    assert "captioner tiny-attention: reused" in again.stderr
    assert again.stderr.count(": reused") == 4
    assert ": built" not in again.stderr


def test_report_is_written_again_from_results_alone(tmp_path: Path) -> None:
    source = ROOT / "tests" / "golden" / "results.json"
    done = captionbench("report", source, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.md").read_text()


def test_killed_training_resumes(suite: Path, tmp_path: Path) -> None:
    """kill -9 after the first epoch's checkpoint; the next run goes on from it."""
    store = tmp_path / "store"
    text = suite.read_text().replace("epochs = 2", "epochs = 4").replace("patience = 3", "patience = 9")
    suite.write_text(text)
    arguments = command("train", "--suite", suite, "--store", store)
    run = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list(store.glob("unfinished/*/checkpoint.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not list(store.glob("captioners/*/manifest.json"))
    done = captionbench("train", "--suite", suite, "--store", store)
    assert done.returncode == 0, done.stderr
    assert "training resumes after epoch" in done.stderr
    assert "epoch 1:" not in done.stderr
    assert list(store.glob("captioners/*/manifest.json"))
    assert not list(store.glob("unfinished/captioners-*"))


def test_interrupted_run_says_that_it_can_go_on(suite: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = subprocess.Popen(
        command("train", "--suite", suite, "--store", store),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A job in the background, as CI may be, is started with Ctrl-C ignored, and passes that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(store.glob("unfinished/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "run the same command again" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str) -> None:
    done = captionbench(verb, "--help")
    assert done.returncode == 0
    assert f"Example: captionbench {verb}" in done.stdout


def test_help_lists_all_verbs() -> None:
    listed = captionbench("--help").stdout
    assert all(verb in listed for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bench", "--suite", "scense"], "unknown suite 'scense'. Did you mean 'scenes'?"),
        (["build", "--suite", "absent.toml"], "can't read suite absent.toml"),
        (["bench", "--python", "onxruntime=python3"], "Did you mean 'onnxruntime'?"),
        (["bench", "--python", "onnxruntime"], "--python takes RUNTIME=INTERPRETER"),
        (["bench", "--cpus", "0,one"], "--cpus takes numbers of CPUs, as in 0,1; received '0,one'"),
        (["report", "absent/results.json"], "no results at absent/results.json"),
        (["caption", "absent", "a.jpg"], "no artifact 'absent'"),
        (["train", "--suite", "flickr8k", "--data", "absent"], "absent"),
        (["bench", "--sweet", "scenes"], "No such option"),
    ],
)
def test_mistake_is_one_sentence_and_status_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = captionbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_full_disk_is_said(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a device that is always full")
    code = (
        "import captionbench, errno, reports.write\n"
        "def fail(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "reports.write.write_report = fail\n"
        "captionbench.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", "x.json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full")


def test_caption_takes_files_and_folders_and_names_what_it_cannot_read(
    build: Build, image: Path, tmp_path: Path
) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX))
    (image.parent / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (image.parent / "notes.txt").write_text("no picture")
    done = captionbench("caption", artifact.path, image.parent, tmp_path / "absent.png")
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 2
    assert [line.split("\t")[0] for line in lines] == [str(image)]
    assert "broken.jpg" in done.stderr
    assert "absent.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_caption_finds_an_artifact_by_its_recipe(build: Build, store: Store, image: Path) -> None:
    build(Recipe("tiny-merge", Format.TFLITE))
    for runtime in ("", "tflite"):
        options = ["--runtime", runtime] if runtime else []
        done = captionbench("caption", "tiny-merge.tflite.fp32", image, "--store", store.root, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{image}\t")


def test_caption_refuses_a_runtime_of_another_format(build: Build, image: Path) -> None:
    artifact = build(Recipe("tiny-merge", Format.ONNX))
    done = captionbench("caption", artifact.path, image, "--runtime", "tflite")
    assert done.returncode == 2
    assert "received an artifact of format 'onnx'" in done.stderr


@pytest.fixture
def address(image: Path) -> Iterator[str]:
    """A server of the folder with one picture, on this machine."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(image.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_picture_is_fetched_from_an_address(address: str, image: Path) -> None:
    assert read_picture(f"{address}/{image.name}") == image.read_bytes()


def test_picture_that_is_not_there_or_too_large_is_refused(
    address: str, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError, match="404"):
        read_picture(f"{address}/absent.png")
    monkeypatch.setattr("bench.pictures.MAXIMUM_BYTES", 10)
    with pytest.raises(ImageError, match="is larger than"):
        read_picture(f"{address}/{image.name}")


def test_picture_that_drips_is_given_up(address: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.pictures.DEADLINE_SECONDS", -1.0)
    with pytest.raises(ImageError, match="not finished"):
        read_picture(f"{address}/{image.name}")


def test_address_without_a_server_is_refused() -> None:
    with pytest.raises(ImageError, match="can't fetch"):
        read_picture("http://127.0.0.1:9/a.png")
