"""The harness: order of calls, resuming, failures as rows. The fake answers: nothing here depends on speed."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench.captioning import load_sessions
from bench.job import DatasetReference, Job
from bench.latency import TimedCaptioner, rounds_and_iterations
from bench.launcher import Launcher, WorkerError
from bench.measure import AGAIN, Bench, Captioned, representative_images, schedule
from bench.result import Phase, RunPlan
from bench.runtimes.fake import FakeRuntime
from bench.suite import Cell
from convert.artifact import Artifact
from convert.recipe import Format, Recipe
from convert.store import Store
from models.datasets import Dataset, Split
from models.decoding import Search
from models.errors import ConfigError

Build = Callable[[Recipe], Artifact]
SCENES = DatasetReference("scenes", "", {"train": 48, "validation": 8, "test": 8})


@pytest.fixture
def artifact(build: Build) -> Artifact:
    return build(Recipe("tiny-merge", Format.ONNX))


@pytest.fixture
def bench(store: Store, dataset: Dataset, tmp_path: Path) -> Bench:
    images = tuple(image.id for image in dataset.images(Split.TEST))
    plan = RunPlan(rounds=2, minimum_samples=4, minimum_seconds=0.2, warmup=1)
    versions = {"fake": "1", "onnxruntime": "1"}
    return Bench(Store(tmp_path), Launcher(), SCENES, dataset.fingerprint, images, plan, versions)


class ScriptedLauncher(Launcher):
    """Starts nothing: writes what a worker would, and logs what was asked of it."""

    def __init__(self, *, failing: str = "", stop_after: int = 10_000) -> None:
        super().__init__()
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "failing", failing)
        object.__setattr__(self, "stop_after", stop_after)

    def time(self, runtime: str, job: Path, out: Path) -> None:
        log: list[str] = self.log  # type: ignore[attr-defined]
        if len(log) >= self.stop_after:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        log.append(f"{runtime} {out.name[0]}")
        if runtime == self.failing:  # type: ignore[attr-defined]
            raise WorkerError("the process was ended by signal 11")
        entry = {
            "stats": {"data": [0.001, 0.002]},
            "extra_info": {"phase": "caption", "iterations": 3, "differing": []},
        }
        out.write_text(json.dumps({"benchmarks": [entry]}))


def cells(artifact: Artifact, *runtimes: str) -> dict[Cell, Artifact]:
    return {Cell(artifact.recipe, runtime): artifact for runtime in runtimes}


def test_caption_encodes_once_and_steps_until_the_end(artifact: Artifact, image: Path) -> None:
    runtime = FakeRuntime(words=3, vocabulary_size=len(artifact.vocabulary()))
    with load_sessions(artifact, runtime, threads=1) as loaded:
        found = loaded.caption(image.read_bytes())
    assert found.ids == (4, 5, 6, 2)
    assert runtime.calls == ["load encoder", "load step", "encode", "step", "step", "step", "step"]


def test_phases_time_what_they_say(artifact: Artifact, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime(words=2, vocabulary_size=len(artifact.vocabulary()))
    monkeypatch.setattr("bench.latency.find_runtime", lambda name: runtime)
    job = Job(str(artifact.path), "fake", 1, SCENES, bench.images[:2])
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        seen = {}
        for phase in (Phase.PREPROCESS, Phase.ENCODE, Phase.STEP, Phase.DECODE, Phase.CAPTION):
            call = timed.phase(phase)
            runtime.calls.clear()
            call()
            seen[phase] = list(runtime.calls)
    assert seen == {
        Phase.PREPROCESS: [],
        Phase.ENCODE: ["encode"],
        Phase.STEP: ["step"],
        Phase.DECODE: ["step"] * 3,
        Phase.CAPTION: ["encode", "step", "step", "step"],
    }


def test_timed_captions_are_compared_with_the_quality_run(artifact: Artifact, bench: Bench) -> None:
    runtime_captions = {bench.images[0]: "something else"}
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:2], captions=runtime_captions)
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        timed.caption(0)
        timed.caption(1)
        assert timed.differing() == [bench.images[0]]


def test_slow_calls_fill_their_time_and_fast_calls_are_grouped() -> None:
    calls: list[int] = []
    call = partial(calls.append, 1)
    rounds, iterations = rounds_and_iterations(call, seconds=0.01, minimum=5, maximum=50, warmup=3)
    assert len(calls) == 3
    assert iterations > 10
    assert 5 <= rounds <= 50
    assert rounds_and_iterations(lambda: None, seconds=0.0, minimum=7, maximum=9, warmup=1)[0] == 7


def test_timed_images_are_spread_over_the_caption_lengths() -> None:
    images = [f"i{n:03}" for n in range(160)]
    lengths = {image: {"caption": "", "ids": [4] * (n // 10 + 1)} for n, image in enumerate(images)}
    captioned = Captioned({Search.GREEDY: lengths}, {}, 0, 0, "1")
    chosen = representative_images(images, captioned, seed=1)
    assert sorted(len(captioned.ids(Search.GREEDY)[image]) for image in chosen) == list(range(1, 17))
    assert chosen == representative_images(images[::-1], captioned, seed=1)
    assert set(representative_images(images[:3], None, seed=1)) == set(images[:3])


def test_rounds_are_interleaved_and_rotated() -> None:
    assert [name for _, name in schedule(["a", "b", "c"], 3)] == list("abcbcacab")
    assert [round_ for round_, _ in schedule(["a", "b"], 2)] == [0, 0, 1, 1]


def test_every_row_and_the_repeated_one_are_timed_each_round(bench: Bench, artifact: Artifact) -> None:
    launcher = ScriptedLauncher()
    timed = replace(bench, launcher=launcher).time(cells(artifact, "fake", "onnxruntime"), {})
    assert launcher.log == [  # type: ignore[attr-defined]
        "fake 0", "onnxruntime 0", "onnxruntime 0", "onnxruntime 1", "onnxruntime 1", "fake 1",
    ]  # fmt: skip
    assert set(timed) == {
        "tiny-merge.onnx.fp32 @ fake",
        "tiny-merge.onnx.fp32 @ onnxruntime",
        f"tiny-merge.onnx.fp32 @ onnxruntime{AGAIN}",
    }
    first = timed["tiny-merge.onnx.fp32 @ fake"]
    assert not isinstance(first, str)
    assert first.samples(Phase.CAPTION) == [0.001, 0.002] * 2
    assert first.total_seconds == pytest.approx(2 * 3 * 0.003)


def test_failed_row_keeps_its_reason_and_the_others_their_samples(bench: Bench, artifact: Artifact) -> None:
    launcher = ScriptedLauncher(failing="fake")
    timed = replace(bench, launcher=launcher).time(cells(artifact, "fake", "onnxruntime"), {})
    assert timed["tiny-merge.onnx.fp32 @ fake"] == "the process was ended by signal 11"
    assert not isinstance(timed["tiny-merge.onnx.fp32 @ onnxruntime"], str)
    assert launcher.log.count("fake 0") == 1  # type: ignore[attr-defined]
    assert "fake 1" not in launcher.log  # type: ignore[attr-defined]


def test_interrupted_timing_goes_on_with_the_missing_rounds(bench: Bench, artifact: Artifact) -> None:
    rows = cells(artifact, "fake", "onnxruntime")
    cut, again, anew = ScriptedLauncher(stop_after=4), ScriptedLauncher(), ScriptedLauncher()
    with pytest.raises(KeyboardInterrupt):
        replace(bench, launcher=cut).time(rows, {})
    replace(bench, launcher=again).time(rows, {})
    assert len(cut.log) + len(again.log) == 6  # type: ignore[attr-defined]
    bench.forget_timing(rows)
    replace(bench, launcher=anew).time(rows, {})
    assert len(anew.log) == 6  # type: ignore[attr-defined]


class DriftingLauncher(ScriptedLauncher):
    """The first set of rounds drifts within each process, the second does not."""

    def time(self, runtime: str, job: Path, out: Path) -> None:
        super().time(runtime, job, out)
        steady = out.parent.name == "again"
        table = json.loads(out.read_text())
        table["benchmarks"][0]["stats"]["data"] = [0.001, 0.001] if steady else [0.001, 0.002]
        out.write_text(json.dumps(table))


def test_baseline_that_drifted_is_measured_once_more(bench: Bench, artifact: Artifact) -> None:
    launcher = DriftingLauncher()
    rows = cells(artifact, "fake", "onnxruntime")
    timed = replace(bench, launcher=launcher).time(rows, {}, baseline="tiny-merge.onnx.fp32 @ fake")
    assert launcher.log[-2:] == ["fake 0", "fake 1"]  # type: ignore[attr-defined]
    assert len(launcher.log) == 8  # type: ignore[attr-defined]
    again, other = (timed[f"tiny-merge.onnx.fp32 @ {name}"] for name in ("fake", "onnxruntime"))
    assert not isinstance(again, str)
    assert not isinstance(other, str)
    assert again.samples(Phase.CAPTION) == [0.001] * 4
    assert other.samples(Phase.CAPTION) == [0.001, 0.002] * 2


def test_worker_captions_in_its_own_process_and_only_once(bench: Bench, artifact: Artifact) -> None:
    cell = Cell(artifact.recipe, "onnxruntime")
    first = bench.caption(cell, artifact)
    assert set(first.sentences(Search.GREEDY)) == set(bench.images)
    assert first.peak_rss_bytes > 1_000_000
    again = replace(bench, launcher=ScriptedLauncher()).caption(cell, artifact)
    assert again.captions == first.captions


def test_harness_times_every_phase_in_its_own_process(bench: Bench, artifact: Artifact) -> None:
    rows = cells(artifact, "onnxruntime")
    captioned = {cell: bench.caption(cell, artifact) for cell in rows}
    timed = bench.time(rows, captioned)
    row = timed["tiny-merge.onnx.fp32 @ onnxruntime"]
    assert not isinstance(row, str)
    assert set(row.seconds) == set(Phase)
    assert len(row.samples(Phase.LOAD)) == bench.plan.rounds
    assert len(row.samples(Phase.CAPTION)) >= bench.plan.minimum_samples
    assert not row.differing


def test_worker_error_is_its_last_sentence(bench: Bench, artifact: Artifact, tmp_path: Path) -> None:
    job = Job(str(tmp_path / "absent"), "onnxruntime", 1, SCENES, bench.images).write(tmp_path / "job.json")
    with pytest.raises(WorkerError, match=r"^no artifact at"):
        Launcher().caption("onnxruntime", job, tmp_path / "out.json")


def test_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"onnxruntime={tmp_path / 'python'}"):
        Launcher({"onnxruntime": tmp_path / "python"}).describe("onnxruntime")
