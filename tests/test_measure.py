"""The harness: order of calls, resuming, failures as rows. The fake answers: nothing here depends on speed."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from scripted import ScriptedLauncher, write_round

from bench.canary import TOLERANCE, Canary, best_of, calibrate
from bench.captioning import load_sessions
from bench.job import DatasetReference, Job
from bench.latency import BATCHES, FUSED_PHASES, SHARES, TimedCaptioner, rounds_and_calls
from bench.launcher import Launcher, WorkerError
from bench.measure import AGAIN, Bench
from bench.measurement import Phase
from bench.runtimes.fake import FakeRuntime
from bench.runtimes.slowed import SlowedRuntime
from bench.setting import RunPlan
from bench.suite import Cell
from bench.timed import Timed, read_timed, thinned
from bench.timing import representative_images, schedule
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
    done: list[int] = []
    call = partial(done.append, 1)
    canary = Canary(None, threads=1, patience_seconds=0.0)
    rounds, calls = rounds_and_calls(call, canary, seconds=0.01, minimum=5, warmup=3)
    assert len(done) == 3
    assert calls > 10
    assert rounds >= 5
    assert rounds_and_calls(lambda: None, canary, seconds=0.0, minimum=7, warmup=1)[0] == 7
    assert canary.take_readings() == []  # warm-up is not part of the samples


def test_timed_images_are_spread_over_the_caption_lengths() -> None:
    lengths = {f"i{n:03}": n // 10 + 1 for n in range(160)}
    chosen = representative_images(lengths, seed=1)
    assert sorted(lengths[image] for image in chosen) == list(range(1, 17))
    assert chosen == representative_images(dict(reversed(lengths.items())), seed=1)
    assert set(representative_images({"a": 0, "b": 0}, seed=1)) == {"a", "b"}


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
    assert first.total_seconds == pytest.approx(2 * 0.009)


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
    before = bench.timing_seconds(rows)
    replace(bench, launcher=again).time(rows, {})
    assert len(cut.log) + len(again.log) == 6  # type: ignore[attr-defined]
    assert 0 < before < bench.timing_seconds(rows)  # of both processes
    bench.forget_timing(rows)
    assert bench.timing_seconds(rows) == 0
    replace(bench, launcher=anew).time(rows, {})
    assert len(anew.log) == 6  # type: ignore[attr-defined]


def test_disturbed_process_is_timed_once_more(bench: Bench, artifact: Artifact) -> None:
    launcher = ScriptedLauncher(busy=1)
    timed = replace(bench, launcher=launcher).time(cells(artifact, "fake"), {})
    assert launcher.log == ["fake 0", "fake 0", "fake 0", "fake 1", "fake 1"]  # type: ignore[attr-defined]
    assert found(timed, "tiny-merge.onnx.fp32 @ fake").disturbance.other_cores == 0.0


def test_machine_that_is_always_busy_does_not_double_the_time_and_is_told(bench: Bench, artifact: Artifact) -> None:
    launcher = ScriptedLauncher(busy=100)
    timed = replace(bench, launcher=launcher).time(cells(artifact, "fake"), {})
    assert len(launcher.log) == 4 + 2  # type: ignore[attr-defined]
    assert found(timed, "tiny-merge.onnx.fp32 @ fake").disturbance.other_cores == 1.0


def found(timed: dict[str, Timed | str], name: str) -> Timed:
    row = timed[name]
    assert isinstance(row, Timed)
    return row


def test_samples_beside_a_slow_canary_are_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / "0.json", tmp_path / "1.json"]
    write_round(paths[0], [1.0, 2.0, 3.0, 4.0], calls=1, canary=[(1.0, 1.0), (1.0, 1.7), (1.7, 1.0), (1.0, 1.09)])
    write_round(paths[1], [5.0, 6.0], calls=1, canary=[(1.7, 1.7), (1.0, 1.7)])
    timed = read_timed(paths, 1.0)
    assert timed.seconds[Phase.CAPTION] == [(1.0, 4.0), ()]
    assert timed.total_seconds == 5.0
    assert timed.disturbance.slowed == pytest.approx(4 / 6, abs=1e-4)


def test_machine_that_is_never_at_full_speed_keeps_its_samples_and_says_so(tmp_path: Path) -> None:
    write_round(tmp_path / "0.json", [1.0, 2.0], calls=1, canary=[(1.7, 1.7)] * 2)
    timed = read_timed([tmp_path / "0.json"], 1.0)
    assert timed.seconds[Phase.CAPTION] == [(1.0, 2.0)]
    assert timed.disturbance.slowed == 1.0


def test_canary_waits_for_full_speed_until_its_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1.7, 1.6, 1.0, 1.5, 1.1, 1.8, 1.9])
    monkeypatch.setattr("bench.canary._loop_seconds", lambda: next(readings))
    canary = Canary(1.0, threads=1, patience_seconds=100.0)
    canary.wait()
    canary.wait()
    assert not canary.last_was_clean  # the first sample began at 1.0 and ended at 1.5
    canary.patience_seconds = 0.0
    canary.wait()
    assert canary.last_was_clean  # without patience no image is repeated
    assert canary.take_readings() == [(1.0, 1.5), (1.1, 1.8), (1.8, 1.9)]
    assert canary._before == []


def test_canary_reads_the_slowest_of_its_threads() -> None:
    assert 0 < Canary(None, threads=2, patience_seconds=0.0).read() < 10
    assert 0 < calibrate(0.01, threads=1) < 10
    assert best_of([1.0] * 50 + [0.5]) == 1.0  # a lucky reading is not the machine's best
    assert TOLERANCE > 1


def test_image_whose_sample_was_slowed_comes_once_more(artifact: Artifact, bench: Bench) -> None:
    with ExitStack() as stack:
        timed = TimedCaptioner(Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:3]), stack)
    taken = []
    for clean in (True, False, False, True, True, True):
        timed.canary.last_was_clean = clean
        taken.append(next(timed._next))
    assert taken == [0, 0, 0, 1, 2, 0]


def test_thinning_keeps_all_images(tmp_path: Path) -> None:
    samples = tuple(float(i % 16) for i in range(1600))
    kept = thinned(samples, 300)
    assert 200 < len(kept) <= 300
    assert {kept.count(float(image)) for image in range(16)} <= {len(kept) // 16, len(kept) // 16 + 1}
    assert thinned(samples[:300], 300) == samples[:300]
    assert thinned((), 300) == ()


def test_every_image_is_fresh_once(artifact: Artifact, bench: Bench) -> None:
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:4])
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        timed.warm_up()
        call = timed.fresh()
        for _ in range(timed.fresh_images):
            call()
        assert list(timed.captions) == list(bench.images[:4])
        with pytest.raises(StopIteration):
            call()


def test_captions_of_equal_length_take_as_many_steps(
    artifact: Artifact, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = FakeRuntime(words=2, vocabulary_size=len(artifact.vocabulary()))
    monkeypatch.setattr("bench.latency.find_runtime", lambda name: runtime)
    with ExitStack() as stack:
        timed = TimedCaptioner(Job(str(artifact.path), "fake", 1, SCENES, bench.images[:2], forced_steps=7), stack)
        timed.load()
        runtime.calls.clear()
        timed.phase(Phase.CAPTION_FORCED)()
    assert runtime.calls == ["encode"] + ["step"] * 7


def test_batches_caption_as_single_images_do(artifact: Artifact, bench: Bench) -> None:
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:3])
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        captions = timed.phase(Phase.BATCH_8)()
        single = timed.phase(Phase.BATCH_1)
        assert isinstance(captions, list)
        assert [c.ids for c in captions][:2] == [single()[0].ids, single()[0].ids]  # type: ignore[index]
        assert len(captions) == BATCHES[Phase.BATCH_8]


def test_shares_are_of_what_is_asked_and_there(artifact: Artifact, bench: Bench) -> None:
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:2])
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        assert set(timed.shares) == set(SHARES) - {Phase.CAPTION_FORCED}  # no length was given
        assert sum(timed.shares.values()) == pytest.approx(1.0)
        timed.job = replace(job, phases=(Phase.CAPTION,), forced_steps=3)
        assert timed.shares == {Phase.CAPTION: 1.0}
    assert set(SHARES) >= FUSED_PHASES


def test_idle_caption_runs_nothing_and_leaves_no_trace(artifact: Artifact, bench: Bench) -> None:
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:2])
    with ExitStack() as stack:
        timed = TimedCaptioner(job, stack)
        timed.load()
        timed.idle()()
        assert not timed.captions


def test_slowed_runtime_waits_once_an_image(artifact: Artifact, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("bench.runtimes.slowed.time.perf_counter", lambda: float(next(clock)))
    runtime = FakeRuntime(words=2, vocabulary_size=len(artifact.vocabulary()))
    with load_sessions(artifact, SlowedRuntime(runtime, 5.0), threads=1) as loaded:
        assert loaded.caption(image.read_bytes()).ids == (4, 5, 2)
    assert next(clock) == 6  # the encoder's start and five looks, none in the three steps


def test_process_that_can_not_be_pinned_is_told(artifact: Artifact, bench: Bench) -> None:
    job = Job(str(artifact.path), "onnxruntime", 1, SCENES, bench.images[:2], cpus=(100_000,))
    with ExitStack() as stack, pytest.raises(ConfigError, match="CPUs 100000"):
        TimedCaptioner(job, stack)


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
    assert row.harness_seconds > 0
    assert len(row.seconds[Phase.LOAD]) == bench.plan.rounds
    assert row.samples(Phase.CAPTION)  # how many are left is the machine's affair
    assert not row.differing


def test_worker_error_is_its_last_sentence(bench: Bench, artifact: Artifact, tmp_path: Path) -> None:
    job = Job(str(tmp_path / "absent"), "onnxruntime", 1, SCENES, bench.images).write(tmp_path / "job.json")
    with pytest.raises(WorkerError, match=r"^no artifact at"):
        Launcher().caption("onnxruntime", job, tmp_path / "out.json")


def test_missing_interpreter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"onnxruntime={tmp_path / 'python'}"):
        Launcher({"onnxruntime": tmp_path / "python"}).describe("onnxruntime")
