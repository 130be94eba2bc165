"""The roofline: limits from plain kernels that really run, and what graphs reach of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.launcher import Launcher
from bench.measurement import GraphWork, Latency, Phase
from bench.result import Result, Results, Status, row_name
from bench.result_file import read_results
from bench.roofline import Pair, graph_work, limits_of, measure_rooflines
from bench.roofline_kernels import PLAIN, Kernel, KernelSet, build_kernel
from bench.roofline_kernels import _keras_model as keras_model
from bench.roofline_worker import KernelFile, KernelJob, time_kernels
from bench.runtimes import find_runtime
from bench.setting import Roofline
from convert.artifact import ENCODER, Artifact
from convert.ledger import ledger_of
from convert.recipe import Format, Graph, Recipe
from convert.scheme import Precision, Scheme
from convert.store import Store
from models.compression.operations import multiply_adds
from reports.report import Report, make_report
from reports.roofline import Bound, Limit, least_time, roofline_section
from reports.text import DASH

GOLDEN = Path(__file__).parent / "golden" / "results.json"
FP32, INT8 = Precision.FP32, Precision.INT8_STATIC
CONV = Kernel("conv", channels=8, layers=2, window=3, side=6)
DENSE = Kernel("dense", channels=64, layers=1)
TINY = KernelSet((CONV,), (DENSE,))
VERSIONS = {"tflite": "1", "onnxruntime": "1", "tensorflow": "1"}
# 100 and 400 GMAC/s, 50 GB/s.
LIMITS = Roofline(2, 100e9, 400e9, 50e9, "fp32: conv3; int8_static: conv1")

counts = st.integers(0, 10**12)
rates = st.floats(1e6, 1e15)


@pytest.fixture
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs beside the tests, limits are kept."""
    monkeypatch.setattr("bench.roofline.is_disturbed", lambda _: False)


def measure(store: Store, *, launcher: Launcher | None = None, runtime: str = "tflite") -> Roofline:
    return measure_rooflines(store, launcher or Launcher(), {runtime: "1"}, 2, kernels=TINY, seconds=0.0)[runtime]


# --- kernels ---


@pytest.mark.parametrize("kernel", [CONV, DENSE, Kernel("pointwise", channels=8, layers=3, window=1, side=5)])
def test_kernel_multiplies_as_often_as_its_keras_model(kernel: Kernel) -> None:
    assert kernel.multiply_adds == multiply_adds(keras_model(kernel))


@pytest.mark.parametrize("format_", [Format.TFLITE, Format.ONNX])
@pytest.mark.parametrize("precision", [FP32, INT8])
def test_kernel_computes_in_its_precision_alone(store: Store, format_: Format, precision: Precision) -> None:
    ledger = ledger_of(build_kernel(store, CONV, format_, precision))
    arithmetic = "fp32" if precision is FP32 else "int8"
    assert {str(kind): count for kind, count in ledger.multiply_adds.items()} == {arithmetic: CONV.multiply_adds}


def test_kernels_that_read_weights_store_what_they_say(store: Store) -> None:
    ledger = ledger_of(build_kernel(store, DENSE, Format.TFLITE, FP32))
    assert sum(ledger.weight_bytes.values()) == DENSE.weight_bytes == 64 * 64 * 4


def test_largest_plain_kernel_exceeds_caches_and_the_smallest_fits() -> None:
    sizes = [kernel.weight_bytes for kernel in PLAIN.memory]
    assert max(sizes) > 64e6
    assert min(sizes) < 8e6


# --- measuring ---


@pytest.mark.usefixtures("idle_machine")
def test_limits_of_every_runtime_are_measured_where_it_has_kernels(store: Store) -> None:
    versions = {**VERSIONS, "keras_predict": "1", "fake": "1"}
    found = measure_rooflines(store, Launcher(), versions, 2, kernels=TINY, seconds=0.1)
    assert set(found) == set(VERSIONS)
    for limits in found.values():
        assert limits.threads == 2
        assert (limits.fp32_macs_per_second or 0) > 0
        assert (limits.bytes_per_second or 0) > 0
        assert "2 convolutions 3x3, 8 channels, 6x6" in limits.kernels
    assert found["tensorflow"].int8_macs_per_second is None
    assert found["tensorflow"].reason == "the format holds no INT8 kernels"
    for name in ("tflite", "onnxruntime"):
        assert (found[name].int8_macs_per_second or 0) > 0
        assert found[name].reason == ""


@pytest.mark.usefixtures("idle_machine")
def test_limits_are_measured_once_for_a_machine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = measure(store)
    assert measure(store, launcher=Launcher({"tflite": Path("/nowhere/python")})) == first


def test_limits_beside_another_process_say_so_and_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.roofline.is_disturbed", lambda _: True)
    monkeypatch.setattr("bench.roofline.why_disturbed", lambda _: "other processes kept 1.0 cores busy")
    found = measure(Store(tmp_path))
    assert found.fp32_macs_per_second
    assert found.reason == "other processes kept 1.0 cores busy"
    assert not list((tmp_path / "rooflines").iterdir())


def test_limits_without_an_environment_are_unknown_with_the_reason(tmp_path: Path) -> None:
    found = measure(Store(tmp_path), launcher=Launcher({"tflite": Path("/nowhere/python")}))
    assert (found.fp32_macs_per_second, found.int8_macs_per_second, found.bytes_per_second) == (None, None, None)
    assert "/nowhere/python" in found.reason


def test_broken_kernel_fails_alone(store: Store, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model")
    whole = build_kernel(store, DENSE, Format.TFLITE, FP32)
    files = (KernelFile("broken", str(broken), (1, 4)), KernelFile("whole", str(whole), DENSE.input_shape))
    found = time_kernels(KernelJob("tflite", 2, 0.0, "values", files), find_runtime("tflite"))
    assert found.seconds["whole"] > 0
    assert "broken.tflite" in found.failures["broken"]


def test_limits_are_the_best_rates() -> None:
    slow, fast = replace(CONV, name="slow"), replace(CONV, name="fast")
    small, large = replace(DENSE, name="small"), replace(DENSE, name="large", channels=1000)
    times: dict[Pair, float] = {
        (slow, FP32): 2e-3,
        (fast, FP32): 1e-3,
        (slow, INT8): 1e-4,
        (fast, INT8): 2e-4,
        (small, FP32): 1e-6,
        (large, FP32): 1e-3,
    }
    found = limits_of(times, {(small, INT8): "no kernel"}, KernelSet((slow, fast), (small, large)), 2)
    assert found.fp32_macs_per_second == pytest.approx(CONV.multiply_adds / 1e-3)
    assert found.int8_macs_per_second == pytest.approx(CONV.multiply_adds / 1e-4)
    assert found.bytes_per_second == pytest.approx(64 * 64 * 4 / 1e-6)
    assert "16 GB/s of 0 MB, 4 GB/s of 4 MB" in found.kernels
    assert found.reason == "small in int8_static: no kernel"


def test_limits_of_nothing_are_unknown() -> None:
    found = limits_of({}, {}, TINY, 1)
    assert (found.fp32_macs_per_second, found.int8_macs_per_second, found.bytes_per_second) == (None, None, None)
    assert found.kernels == ""


# --- work of graphs ---


@pytest.mark.parametrize("format_", [Format.TFLITE, Format.ONNX])
def test_work_is_the_ledgers_without_tables_that_are_looked_up(
    build: Callable[[Recipe], Artifact], format_: Format
) -> None:
    artifact = build(Recipe("tiny-attention", format_))
    work, coverage = graph_work(artifact), artifact.coverage
    assert set(work) == {ENCODER, Graph.STEP}
    assert {name: found.multiply_adds for name, found in work.items()} == {
        name: found.multiply_adds for name, found in coverage.items()
    }
    embedding = len(artifact.vocabulary().words) * 16 * 4
    stored = sum(coverage["step"].weight_bytes.values())
    # The ledger's weights have 64 elements or more; the score of attention has 16, and is multiplied all the same.
    assert work["step"].weight_bytes == pytest.approx(stored - embedding, abs=256)
    assert work["encoder"].weight_bytes > 0


def test_half_precision_weights_are_read_as_wide_as_full_ones(build: Callable[[Recipe], Artifact]) -> None:
    half = Scheme(Precision.FP16)
    full, stored_half = (build(Recipe("tiny-attention", Format.ONNX, s, s)) for s in (Scheme(), half))
    assert graph_work(stored_half)["step"].weight_bytes == graph_work(full)["step"].weight_bytes


def test_formats_without_a_ledger_have_no_work(build: Callable[[Recipe], Artifact]) -> None:
    assert graph_work(build(Recipe("tiny-attention", Format.SAVED_MODEL))) == {}


# --- the least time ---


def test_least_time_is_that_of_the_binding_limit() -> None:
    assert least_time(GraphWork({"fp32": 10**9, "int8": 4 * 10**9}, 10**8), LIMITS) == Limit(0.02, Bound.ARITHMETIC)
    assert least_time(GraphWork({"fp32": 10**6}, 10**7), LIMITS) == Limit(2e-4, Bound.WEIGHTS)


@pytest.mark.parametrize("arithmetic", ["int8", "int4", "int16"])
def test_integers_need_the_integer_rate(arithmetic: str) -> None:
    work = GraphWork({arithmetic: 1000}, 0)
    assert least_time(work, LIMITS) == Limit(1000 / 400e9, Bound.ARITHMETIC)
    assert least_time(work, replace(LIMITS, int8_macs_per_second=None)) is None


def test_least_time_needs_only_the_rates_of_its_own_arithmetic() -> None:
    work = GraphWork({"fp32": 1000}, 100)
    assert least_time(work, replace(LIMITS, int8_macs_per_second=None)) == least_time(work, LIMITS)
    assert least_time(work, replace(LIMITS, bytes_per_second=None)) is None


@given(fp32=counts, int8=counts, size=counts, more=counts, rate=rates, bandwidth=rates)
def test_more_work_never_takes_less_time(
    fp32: int, int8: int, size: int, more: int, rate: float, bandwidth: float
) -> None:
    limits = Roofline(1, rate, 4 * rate, bandwidth, "")
    least = least_time(GraphWork({"fp32": fp32, "int8": int8}, size), limits)
    assert least
    assert least.seconds >= size / bandwidth
    assert least.seconds >= fp32 / rate
    for work in (
        GraphWork({"fp32": fp32 + more, "int8": int8}, size),
        GraphWork({"fp32": fp32, "int8": int8 + more}, size),
        GraphWork({"fp32": fp32, "int8": int8}, size + more),
    ):
        longer = least_time(work, limits)
        assert longer
        assert longer.seconds >= least.seconds


# --- the section ---

SAVED_MODEL = "flickr8k.saved_model.fp32 @ tensorflow"
TFLITE = "flickr8k.tflite.fp32 @ tflite"


@pytest.fixture(scope="module")
def results() -> Results:
    """Two rows of numbers written by hand."""
    found = read_results(GOLDEN)
    rows = {row_name(row): row for row in found.rows}
    work = {"encoder": GraphWork({"fp32": 300 * 10**6}, 10**7), "step": GraphWork({"fp32": 3 * 10**6}, 10**7)}
    return replace(
        found,
        rooflines={},
        rows=(
            timed(replace(rows[SAVED_MODEL], work={}), encode=0.012, step=0.01),
            timed(replace(rows[TFLITE], work=work), encode=0.004, step=0.0002),
        ),
    )


def timed(row: Result, *, encode: float, step: float) -> Result:
    latencies = {
        phase: Latency(seconds, (seconds, seconds), 1, (seconds,))
        for phase, seconds in ((Phase.ENCODE, encode), (Phase.STEP, step))
    }
    return replace(row, status=Status.VALID, reason="", latency_seconds=latencies)


def report(results: Results) -> Report:
    return make_report(results)


def lines(section: str, start: str) -> list[str]:
    return [line for line in section.splitlines() if line.startswith(start)]


def test_section_shows_limits_and_what_each_graph_reaches(results: Results) -> None:
    tensorflow = Roofline(2, 80e9, None, 25e9, "fp32: conv3", reason="the format holds no INT8 kernels")
    section = roofline_section(report(replace(results, rooflines={"tflite": LIMITS, "tensorflow": tensorflow})))
    assert lines(section, "| `tflite`") == [
        "| `tflite` | 2 | 100.0 | 400.0 | 50.0 | fp32: conv3; int8\\_static: conv1 |"
    ]
    assert lines(section, "| `tensorflow`") == [
        f"| `tensorflow` | 2 | 80.0 | {DASH} | 25.0 | fp32: conv3; the format holds no INT8 kernels |"
    ]
    assert lines(section, f"| `{TFLITE}`") == [
        f"| `{TFLITE}` | `encoder` | 300.00 | 10.00 | 4.00 | 3.00 | arithmetic | 75.0 % |",
        f"| `{TFLITE}` | `step` | 3.00 | 10.00 | 0.200 | 0.200 | weights | 100 % |",
    ]


def test_saved_model_counts_as_the_same_weights_in_another_format(results: Results) -> None:
    limits = replace(LIMITS, fp32_macs_per_second=100e9, int8_macs_per_second=None)
    section = roofline_section(report(replace(results, rooflines={"tensorflow": limits})))
    assert lines(section, f"| `{SAVED_MODEL}`") == [
        f"| `{SAVED_MODEL}` | `encoder` | 300.00 | 10.00 | 12.0 | 3.00 | arithmetic | 25.0 % |",
        f"| `{SAVED_MODEL}` | `step` | 3.00 | 10.00 | 10.0 | 0.200 | weights | 2.0 % |",
    ]
    assert lines(section, f"| `{TFLITE}` | `step`") == [
        f"| `{TFLITE}` | `step` | 3.00 | 10.00 | 0.200 | {DASH} | {DASH} | {DASH} |"
    ]


def test_row_that_beats_the_plain_layers_shows_more_than_all(results: Results) -> None:
    first, second = results.rows
    fast = replace(results, rows=(first, timed(second, encode=0.0025, step=0.0002)), rooflines={"tflite": LIMITS})
    assert "| 120 % |" in roofline_section(report(fast))


def test_unsound_timings_reach_nothing(results: Results) -> None:
    rows = tuple(replace(row, status=Status.INVALID) for row in results.rows)
    section = roofline_section(report(replace(results, rows=rows, rooflines={"tflite": LIMITS})))
    assert lines(section, f"| `{TFLITE}` | `encoder`") == [
        f"| `{TFLITE}` | `encoder` | 300.00 | 10.00 | {DASH} | 3.00 | arithmetic | {DASH} |"
    ]


def test_fused_graph_shows_its_work_alone(results: Results) -> None:
    first, second = results.rows
    work = {"fused": GraphWork({"fp32": 303 * 10**6}, 2 * 10**7)}
    fused = replace(second, graph=Graph.FUSED, work=work, latency_seconds={})
    section = roofline_section(report(replace(results, rows=(first, fused), rooflines={"tflite": LIMITS})))
    assert lines(section, f"| `{row_name(fused)}`") == [
        f"| `{row_name(fused)}` | `fused` | 303.00 | 20.00 | {DASH} | {DASH} | {DASH} | {DASH} |"
    ]


def test_section_is_empty_when_nothing_is_known(results: Results) -> None:
    rows = tuple(replace(row, work={}) for row in results.rows)
    assert roofline_section(report(replace(results, rows=rows, rooflines={}))) == ""


def test_limits_alone_are_shown(results: Results) -> None:
    rows = tuple(replace(row, work={}) for row in results.rows)
    section = roofline_section(report(replace(results, rows=rows, rooflines={"tflite": LIMITS})))
    assert "| `tflite` | 2 |" in section
    assert "bound by" not in section
