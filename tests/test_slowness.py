"""Why a row is slow: real profiles of tiny artifacts on both runtimes, and rules on facts written by hand."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.coverage import time_int8
from bench.launcher import Launcher, WorkerError
from bench.litert_kernels import kernel_work
from bench.litert_profiler import read_summary, typical_times
from bench.measurement import GraphProfile, Latency, Phase
from bench.profiling import Work
from bench.result import Part, Result, Results, Status
from bench.result_file import read_results
from bench.row_profiles import profile_artifact
from convert.artifact import ENCODER, Artifact
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Store
from reports.report import make_report
from reports.slow_reasons import explain_slower
from reports.slowness import instructions, slowness_section

GOLDEN = Path(__file__).parent / "golden" / "results.json"
STATIC, DYNAMIC, INT16 = (Scheme(kind) for kind in (Precision.INT8_STATIC, Precision.INT8_DYNAMIC, Precision.INT16X8))
Build = Callable[[Recipe], Artifact]


class NoLauncher(Launcher):
    """Starts nothing: whoever asks for a process fails."""

    def run(self, runtime: str, arguments: Any) -> str:
        raise WorkerError("no process for you")


def recipe(format_: Format, scheme: Scheme, graph: Graph = Graph.STEP) -> Recipe:
    return Recipe("tiny-attention", format_, scheme, scheme, graph)


def check_shares(profile: GraphProfile) -> None:
    assert profile.reason == ""
    assert sum(profile.shares.values()) == pytest.approx(1, abs=0.01)
    assert set(profile.shares) <= set(Work)
    assert 0 < len(profile.top) <= 5


def test_profile_of_an_int8_onnx_artifact_shows_integer_kernels_and_is_kept(build: Build, store: Store) -> None:
    artifact = build(recipe(Format.ONNX, STATIC))
    profiles = profile_artifact(store, Launcher(), artifact, "onnxruntime", "1", 1)
    assert set(profiles) == {ENCODER, Graph.STEP}
    for profile in profiles.values():
        check_shares(profile)
        assert profile.shares["int8"] > 0
    assert "QLinearConv" in dict(profiles[ENCODER].top)
    assert profile_artifact(store, NoLauncher(), artifact, "onnxruntime", "1", 1) == profiles


def test_profile_of_a_fused_graph_tells_the_operators_inside_its_loop(build: Build, store: Store) -> None:
    artifact = build(recipe(Format.ONNX, STATIC, Graph.FUSED))
    profiles = profile_artifact(store, Launcher(), artifact, "onnxruntime", "1", 1)
    check_shares(profiles[Graph.FUSED])
    assert "Loop" not in dict(profiles[Graph.FUSED].top)


def test_profile_of_a_16_bit_tflite_artifact_shows_that_xnnpack_takes_nothing_over(build: Build, store: Store) -> None:
    profiles = profile_artifact(store, Launcher(), build(recipe(Format.TFLITE, INT16)), "tflite", "1", 1)
    check_shares(profiles[ENCODER])
    assert profiles[ENCODER].top[0][0] == "CONV_2D"
    assert profiles[ENCODER].shares["int16"] > 0.5


def test_worker_that_fails_becomes_a_reason_and_is_asked_again(build: Build, tmp_path: Path) -> None:
    store, artifact = Store(tmp_path / "store"), build(recipe(Format.ONNX, STATIC))
    failed = profile_artifact(store, NoLauncher(), artifact, "onnxruntime", "1", 1)
    assert failed[ENCODER] == GraphProfile({}, (), "the profiler failed: no process for you")
    check_shares(profile_artifact(store, Launcher(), artifact, "onnxruntime", "1", 1)[ENCODER])


def test_runtime_without_a_profiler_starts_no_process(build: Build, tmp_path: Path) -> None:
    artifact = build(recipe(Format.SAVED_MODEL, Scheme(Precision.FP32)))
    profiles = profile_artifact(Store(tmp_path), NoLauncher(), artifact, "tensorflow", "1", 1)
    assert {profile.reason for profile in profiles.values()} == {
        "tensorflow has no profiler that tells a program the time of each operator"
    }


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("Delegate/Convolution (NHWC, F32) IGEMM", Work.FP32),
        ("Delegate/Convolution (NHWC, QC8) IGEMM", Work.INT8),
        ("Delegate/Fully Connected (NC, QDU8, F32, QC8W) GEMM", Work.INT8),
        ("Delegate/Fully Connected (NC, QDU8, F32, QB4W) GEMM", Work.INT4),
        ("Delegate/Fully Connected (NC, F32, QC8W) GEMM", Work.FP32),
        ("Delegate/Convert (NC, F32, QDU8)", Work.DATA_MOVEMENT),
        ("Delegate/Static Reshape (NC)", Work.DATA_MOVEMENT),
        ("Delegate/Add (ND)", Work.OTHER),
        ("CONV_2D", Work.INT16),
        ("RESHAPE", Work.DATA_MOVEMENT),
        ("WHILE", None),
    ],
)
def test_kernel_of_litert_is_known_by_its_name(name: str, work: Work | None) -> None:
    assert kernel_work(name, "int16") is work


def test_summary_of_litert_is_read_up_to_its_second_table() -> None:
    line = "   {}      0.000      0.071      0.071    {}%    45.649%      0.000             30   [{}]:1"
    text = "\n".join(
        [
            "==== Run Order ====",
            "  [node type]  [start]",
            line.format("Delegate/Add (ND)", "60.000", "Delegate"),
            line.format("CONV_2D", "40.000", "Builtin"),
            "==== Top by Computation Time ====",
            line.format("X", "1.0", "Builtin"),
        ]
    )
    assert read_summary(text) == [("Delegate/Add (ND)", 60.0), ("CONV_2D", 40.0)]


def test_run_that_was_held_up_does_not_change_the_profile_of_litert() -> None:
    tables = [[("CONV_2D", 80.0), ("ADD", 20.0)], [("CONV_2D", 8.0), ("ADD", 92.0)], [("CONV_2D", 78.0), ("ADD", 22.0)]]
    assert typical_times(tables) == [("CONV_2D", 78.0), ("ADD", 22.0)]


def latency(seconds: float) -> Latency:
    return Latency(seconds, (seconds * 0.99, seconds * 1.01), 64, (seconds,) * 64)


def profile(int8: float, *top: tuple[str, float]) -> GraphProfile:
    return GraphProfile({"int8": int8, "data_movement": 1 - int8}, top or (("QLinearConv", int8),))


def test_time_in_integer_kernels_counts_a_step_for_each_word_and_the_end() -> None:
    profiles = {ENCODER: profile(1.0), Graph.STEP: profile(0.5)}
    times = {Phase.ENCODE: latency(0.010), Phase.STEP: latency(0.001)}
    assert time_int8(profiles, times, 9) == pytest.approx((0.010 + 0.5 * 0.010) / 0.020)
    assert time_int8({Graph.FUSED: profile(0.25)}, {}, 9) == 0.25


def test_time_in_integer_kernels_is_unknown_without_every_profile_and_time() -> None:
    times = {Phase.ENCODE: latency(0.010), Phase.STEP: latency(0.001)}
    known = {ENCODER: profile(1.0), Graph.STEP: profile(0.5)}
    assert time_int8({}, times, 9) is None
    assert time_int8(known, {Phase.ENCODE: latency(0.010)}, 9) is None
    assert time_int8(known | {Graph.STEP: GraphProfile({}, (), "none")}, times, 9) is None


@pytest.fixture
def results() -> Results:
    return read_results(GOLDEN)


def explain(results: Results, runtime: str, precision: str, **facts: Any) -> str:
    """Of an ONNX or TFLite row whose encoder takes 9 ms and its twin's 3 ms; steps are equal."""
    isa = facts.pop("isa", ("avx2", "avx512_vnni"))
    seconds: Mapping[str, float] = facts.pop("seconds", {"encode": 0.009, "step": 0.001})
    base = next(row for row in results.rows if row.runtime == runtime and row.encoder.precision == "fp32")
    if not facts.pop("keep", False):
        base = dataclasses.replace(base, profiles={})
    twin = timed(base, facts.pop("twin_seconds", {"encode": 0.003, "step": 0.001}))
    part = Part("none", precision)
    plain = dataclasses.replace(twin, recipe=f"flickr8k.x.{precision}", encoder=part, decoder=part)
    row = timed(dataclasses.replace(plain, **facts), seconds)
    environment = dataclasses.replace(results.environment, isa=isa)
    changed = dataclasses.replace(results, rows=(twin, row), environment=environment, baseline="")
    items = {item.row.recipe: item for item in make_report(changed).rows}
    return explain_slower(items[row.recipe], items[twin.recipe], changed)


def timed(row: Result, seconds: Mapping[str, float]) -> Result:
    times = {Phase(name): latency(value) for name, value in seconds.items()}
    return dataclasses.replace(row, status=Status.VALID, reason="", latency_seconds=times)


@pytest.mark.parametrize(
    ("runtime", "precision", "said"),
    [
        ("onnxruntime", "int8_static(qoperator,s8s8)", "microsoft/onnxruntime#6732"),
        ("onnxruntime", "int8_static(s8s8)", "microsoft/onnxruntime#6732"),
        ("onnxruntime", "int8_dynamic", "microsoft/onnxruntime#16009"),
        ("onnxruntime", "fp16", "only how weights are stored"),
        ("onnxruntime", "int4_weights", "unpacked in every run"),
        ("tflite", "int16x8", "reference kernels only"),
        ("tflite", "int8_dynamic", "tensorflow/model-optimization#797"),
        ("onnxruntime", "int8_static", "The cause is not known; there is no profile"),
    ],
)
def test_slow_row_is_explained_by_its_precision(results: Results, runtime: str, precision: str, said: str) -> None:
    text = explain(results, runtime, precision)
    assert text.startswith("It is the encoder that is slower: 9.00 ms, against 3.00 ms in fp32.")
    assert said in text


def test_cpu_without_integer_instructions_explains_slow_int8(results: Results) -> None:
    assert "microsoft/onnxruntime#17389" in explain(results, "onnxruntime", "int8_static", isa=("avx2", "fma"))
    assert "#17389" not in explain(results, "onnxruntime", "int8_static", isa=("asimd", "asimddp"))
    assert "#17389" not in explain(results, "onnxruntime", "int8_static", isa=())


def test_signed_bytes_are_no_cause_on_arm(results: Results) -> None:
    assert "#6732" not in explain(results, "onnxruntime", "int8_static(s8s8)", isa=("asimd", "asimddp"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (profile(0.4), "60.0 % of its time moves and converts numbers"),
        (GraphProfile({"int8": 0.2, "fp32": 0.8}, (("Conv", 0.8),)), "Only 20.0 % of its time"),
        (
            GraphProfile({"int8": 0.9, "fp32": 0.1}, (("QLinearConv", 0.9),)),
            "most of the encoder: `QLinearConv` 90.0 %.",
        ),
    ],
)
def test_profile_explains_what_no_precision_does(results: Results, found: GraphProfile, said: str) -> None:
    assert said in explain(results, "onnxruntime", "int8_static", profiles={ENCODER: found})


def test_profile_that_shows_other_operators_overrules_what_is_known_of_a_precision(results: Results) -> None:
    fast = {ENCODER: GraphProfile({"int8": 1.0}, (("Convolution (NHWC, QDU8, F32, QC8W) IGEMM", 1.0),))}
    assert "#797" not in explain(results, "tflite", "int8_dynamic", profiles=fast)
    own = {ENCODER: GraphProfile({"int8": 1.0}, (("CONV_2D", 0.9), ("RESHAPE", 0.1)))}
    assert "#797" in explain(results, "tflite", "int8_dynamic", profiles=own)
    assert "XNNPACK did not take over" in explain(results, "tflite", "int8_static", profiles=own)


def test_movement_is_no_cause_where_fp32_moves_as_much(results: Results) -> None:
    base = next(row for row in results.rows if row.recipe == "flickr8k.onnx.fp32")
    moving = dataclasses.replace(base, profiles={ENCODER: GraphProfile({"fp32": 0.45, "data_movement": 0.55}, ())})
    rows = tuple(moving if row is base else row for row in results.rows)
    changed = dataclasses.replace(results, rows=rows)
    found = {"profiles": {ENCODER: profile(0.4)}, "keep": True}
    assert "moves and converts" not in explain(changed, "onnxruntime", "int8_static", **found)


def test_left_over_pairs_and_two_causes_at_most_are_told(results: Results) -> None:
    base = next(row for row in results.rows if row.runtime == "onnxruntime")
    coverage = dataclasses.replace(base.coverage, leftover_pairs=17)
    assert "17 pairs" in explain(results, "onnxruntime", "int8_static", coverage=coverage)
    more = explain(results, "onnxruntime", "int8_static(s8s8)", coverage=coverage, profiles={ENCODER: profile(0.1)})
    assert "17 pairs" in more
    assert "moves and converts" not in more


def test_half_that_loses_most_in_a_caption_is_the_one_explained(results: Results) -> None:
    seconds = {"encode": 0.0031, "step": 0.00009}
    text = explain(
        results, "onnxruntime", "int8_static", seconds=seconds, twin_seconds={"encode": 0.003, "step": 0.00005}
    )
    assert text.startswith("It is the step that is slower: 0.0900 ms, against 0.0500 ms in fp32.")
    assert "mostly calls of operators" in text


def test_half_is_not_blamed_when_neither_is_slower(results: Results) -> None:
    seconds = {"encode": 0.002, "step": 0.001}
    assert explain(results, "onnxruntime", "int8_static", seconds=seconds).startswith("Neither half is slower")


def test_half_is_not_blamed_for_a_difference_of_noise(results: Results) -> None:
    seconds = {"encode": 0.00306, "step": 0.001}  # the fp32 encoder takes 3.00 ms
    assert explain(results, "onnxruntime", "int8_static", seconds=seconds).startswith("Neither half is slower")


def test_section_lists_profiles_what_has_none_and_slower_rows(results: Results) -> None:
    text = slowness_section(make_report(results))
    assert "`avx512_vnni`" in text
    assert "| `flickr8k.onnx.int8_static @ onnxruntime` | encoder | 79.0 % | 19.0 % |" in text
    assert "the profiler reports no operators of a delegate" in text
    assert "`flickr8k.tflite.int8_dynamic @ tflite` (2.1" in text


def test_section_is_empty_without_profiles_and_slower_rows(results: Results) -> None:
    bare = tuple(dataclasses.replace(row, profiles={}, latency_seconds={}) for row in results.rows)
    assert slowness_section(make_report(dataclasses.replace(results, rows=bare))) == ""


@pytest.mark.parametrize(
    ("isa", "said"),
    [
        (("avx2",), "lacks `avx_vnni`, `avx512_vnni`, `amx_int8`. Without one"),
        (("asimd", "asimddp"), "has `asimddp` and lacks `i8mm`"),
        ((), "recorded no instruction sets"),
    ],
)
def test_instructions_say_what_the_cpu_lacks(results: Results, isa: tuple[str, ...], said: str) -> None:
    assert said in instructions(dataclasses.replace(results.environment, isa=isa))
