"""How a precision is written, what a machine's kind makes of it, and how ranges follow from streamed activations."""

from dataclasses import replace
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.calibration import CALIBRATION_IMAGES, CalibrationPlan
from convert.layers import nodes_of_layers
from convert.machine import DEFAULTS, MachineKind, describe_defaults, for_machine, machine_kind, slow_choice
from convert.ranges import BINS, Histogram, RangeRecorder, find_range
from convert.recipe import Format, parse_precisions
from convert.scheme import CHOICES, OPTIONS, Calibrator, Integers, Layout, Precision, Scheme, WeightRange, parse_scheme
from models.datasets import Dataset, Split
from models.errors import ConfigError

FLOATS = st.floats(-1e6, 1e6, width=32)
TENSORS = st.lists(st.lists(FLOATS, min_size=1, max_size=40), min_size=1, max_size=8)


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    precision = draw(st.sampled_from(Precision))
    scheme = Scheme(precision)
    for field in CHOICES[precision] & set(OPTIONS):
        value: StrEnum = draw(st.sampled_from(OPTIONS[field]))
        scheme = replace(scheme, **{field: value})  # type: ignore[arg-type]
    if "float_layers" in CHOICES[precision]:
        names = st.text("abcz_0189", min_size=1, max_size=5)
        scheme = replace(scheme, float_layers=tuple(draw(st.lists(names, max_size=3, unique=True))))
    return scheme


@given(schemes())
def test_a_scheme_is_read_as_it_is_written(scheme: Scheme) -> None:
    assert parse_scheme(str(scheme))[0] == scheme


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("int8_statc", "Did you mean 'int8_static'"),
        ("fp32(entropy)", "changes nothing in fp32"),
        ("int8_static(entrpy)", "Did you mean 'entropy'"),
        ("int8_static(entropy", "is 'NAME' or 'NAME"),
        ("int8_static()", "is 'NAME' or 'NAME"),
        ("int8_static(entropy,min_max)", "says twice"),
        ("int8_static(float=)", "needs names of layers"),
        ("int16x8(per_tensor)", "changes nothing in int16x8"),
        ("", "unknown precision"),
    ],
)
def test_mistakes_in_a_scheme_are_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        parse_scheme(text)


@pytest.mark.parametrize("kind", MachineKind)
def test_defaults_are_said_with_their_reason(kind: MachineKind) -> None:
    integers, weight_range, reason = DEFAULTS[kind]
    said = describe_defaults(kind)
    assert all(word in said for word in (kind, integers, weight_range, reason))


STATIC_TEXT = "int8_static"


@pytest.mark.parametrize(
    ("kind", "flags", "written"),
    [
        (MachineKind.X86_VNNI, ("avx2", "avx512_vnni"), "int8_static"),
        (MachineKind.X86, ("sse4_2", "avx2"), "int8_static(reduce_range)"),
        (MachineKind.ARM, ("asimd", "asimddp"), "int8_static(s8s8)"),
    ],
)
def test_defaults_suit_the_machine(kind: MachineKind, flags: tuple[str, ...], written: str) -> None:
    assert machine_kind(flags) is kind
    assert str(parse_precisions(STATIC_TEXT, Format.ONNX, kind)[0]) == written
    assert str(parse_precisions(STATIC_TEXT, Format.TFLITE, kind)[0]) == STATIC_TEXT


@pytest.mark.parametrize("kind", MachineKind)
@pytest.mark.parametrize("text", ["int8_static(full_range)", "int8_static(u8s8)", "int8_static(s8s8)"])
def test_what_is_written_is_kept_on_every_machine(kind: MachineKind, text: str) -> None:
    scheme, written = parse_scheme(text)
    kept = for_machine(scheme, written, kind)
    assert kept.weight_range is WeightRange.FULL
    if "full" not in text:
        assert kept == scheme


def test_slow_and_wrong_choices_are_known() -> None:
    slow = Scheme(Precision.INT8_STATIC, layout=Layout.QOPERATOR, integers=Integers.S8S8)
    assert "18 times slower" in slow_choice(slow, MachineKind.X86_VNNI)
    assert not slow_choice(slow, MachineKind.ARM)
    assert not slow_choice(Scheme(Precision.INT8_STATIC), MachineKind.X86_VNNI)
    assert "overflow" in slow_choice(Scheme(Precision.INT8_STATIC), MachineKind.X86)


def histogram_of(tensors: list[list[float]]) -> Histogram:
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(np.array(tensor, np.float32))
    return histogram


@given(TENSORS)
def test_a_histogram_counts_everything_and_knows_the_limits(tensors: list[list[float]]) -> None:
    histogram = histogram_of(tensors)
    values = [value for tensor in tensors for value in tensor]
    assert histogram.counts.sum() == len(values)
    assert histogram.counts.shape == (BINS,)
    assert histogram.low == min(0.0, *values)
    assert histogram.high == max(0.0, *values)


@given(TENSORS, st.randoms(use_true_random=False))
def test_ranges_hold_zero_and_lie_within_the_limits(tensors: list[list[float]], random: object) -> None:
    histogram = histogram_of(tensors)
    for calibrator in Calibrator:
        low, high = find_range(histogram, calibrator)
        assert histogram.low <= low <= 0 <= high <= histogram.high
    assert find_range(histogram, Calibrator.MIN_MAX) == (histogram.low, histogram.high)


def test_the_order_of_tensors_hardly_matters() -> None:
    """Bins widen exactly, so only values on the edge of a bin may move by one."""
    random = np.random.default_rng(1)
    tensors = [random.normal(0, scale, 500).astype(np.float32) for scale in (0.1, 1, 7)]
    forwards, backwards = Histogram(), Histogram()
    for tensor in tensors:
        forwards.add(tensor)
    for tensor in reversed(tensors):
        backwards.add(tensor)
    assert np.array_equal(forwards.counts, backwards.counts)


def test_percentile_and_entropy_cut_a_lonely_outlier() -> None:
    random = np.random.default_rng(2)
    histogram = Histogram()
    for _ in range(20):
        histogram.add(random.normal(0, 1, 20_000))
    histogram.add(np.array([100.0, -40.0]))
    assert find_range(histogram, Calibrator.MIN_MAX) == (-40.0, 100.0)
    low, high = find_range(histogram, Calibrator.PERCENTILE)
    assert -5 < low < -3.5
    assert 3.5 < high < 5
    low, high = find_range(histogram, Calibrator.ENTROPY)
    assert -40 < low < -2
    assert 2 < high < 40


def test_ranges_of_relu_start_at_zero() -> None:
    histogram = Histogram()
    histogram.add(np.maximum(np.random.default_rng(3).normal(0, 1, 50_000), 0))
    assert all(find_range(histogram, calibrator)[0] == 0 for calibrator in Calibrator)


def test_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no number"):
        RangeRecorder().record({"x": np.array([1.0, np.nan])})


def test_calibration_takes_training_images_only(dataset: Dataset) -> None:
    training, test = dataset.images(Split.TRAIN), dataset.images(Split.TEST)
    assert CalibrationPlan().choose(dataset) == training[:CALIBRATION_IMAGES]
    assert list(CalibrationPlan(ids=(training[3].id,)).choose(dataset)) == [training[3]]
    with pytest.raises(ConfigError, match=f"'{test[0].id}' is a test image of scenes"):
        CalibrationPlan(ids=(training[0].id, test[0].id)).choose(dataset)
    with pytest.raises(ConfigError, match="'absent' is no image of scenes"):
        CalibrationPlan(ids=("absent",)).choose(dataset)
    with pytest.raises(ConfigError, match="at least one image"):
        CalibrationPlan(0).choose(dataset)


def test_a_layer_is_found_by_what_its_operators_give() -> None:
    """tf2onnx names a depthwise convolution with a bias `Conv__12`; after Clip and folding, its bias alone is named."""
    import onnx

    def node(kind: str, name: str, source: str, target: str) -> onnx.NodeProto:
        return onnx.helper.make_node(kind, [source], [target], name=name)

    nodes = [
        node("Relu", "net/first/BiasAdd", "image", "net/first/BiasAdd:0"),
        node("Relu", "Conv__12", "net/first/BiasAdd:0", "net/depthwise/BiasAdd:0"),
    ]
    nodes.append(
        onnx.helper.make_node("Add", ["net/depthwise/BiasAdd:0", "net/folded/bias:0"], ["Conv__14:0"], "Conv__14")
    )
    bias = onnx.helper.make_tensor("net/folded/bias:0", onnx.TensorProto.FLOAT, [1], [0.0])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [], [bias]))
    assert nodes_of_layers(model, ["depthwise"]) == ["Conv__12"]
    assert nodes_of_layers(model, ["folded"]) == ["Conv__14"]
    assert nodes_of_layers(model, ["first"]) == ["net/first/BiasAdd"]
    with pytest.raises(ConfigError, match="comes from the layer 'relu'"):
        nodes_of_layers(model, ["relu"])
