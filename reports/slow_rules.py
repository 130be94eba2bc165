"""Rules that say why a quantized graph is slow, each with the thread that it comes from; from known causes to signs."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from bench.coverage import integer_time
from bench.measurement import GraphProfile
from bench.result import Result
from convert.machine import MachineKind, machine_kind
from convert.scheme import Integers, Layout, Precision, Scheme
from reports.text import microseconds, percent

# Of a graph's time: much movement, little in integer kernels and much outside of XNNPACK are causes.
MUCH_MOVEMENT, LITTLE_INTEGER, MUCH_OUTSIDE = 0.3, 0.5, 0.3
MORE_MOVEMENT = 0.1  # than in fp32
# A graph that takes less is mostly calls: an operator costs some microseconds to start, whatever it multiplies.
SMALL_SECONDS = 100e-6
DATA_MOVEMENT = "data movement"
# Instructions that sum products of bytes: x86's, then Arm's.
X86_INTEGER, ARM_INTEGER = ("avx_vnni", "avx512_vnni", "amx_int8"), ("asimddp", "i8mm")

_INT8 = (Precision.INT8_STATIC, Precision.INT8_DYNAMIC)


@dataclass(frozen=True, slots=True)
class Half:
    """The graph in which a row loses most against its twin."""

    row: Result
    twin: Result
    graph: str
    scheme: Scheme
    seconds: float | None  # of one run, and the twin's
    twin_seconds: float | None
    isa: frozenset[str]

    @property
    def profile(self) -> GraphProfile:
        """Where its time goes; without shares where that is not known."""
        return self.row.profiles.get(self.graph, GraphProfile({}, ()))

    @property
    def kind(self) -> MachineKind | None:
        """None where the run recorded no instruction sets."""
        return machine_kind(tuple(self.isa)) if self.isa else None


def _signed_bytes(half: Half) -> str | None:
    """microsoft/onnxruntime#6732: signed activations are slower than unsigned ones on x86."""
    signed = half.scheme.precision is Precision.INT8_STATIC and half.scheme.integers is Integers.S8S8
    if not signed or half.row.runtime != "onnxruntime" or half.kind in (None, MachineKind.ARM):
        return None
    if half.scheme.layout is Layout.QOPERATOR:
        return (
            "ONNX Runtime has no fast kernel on x86 for `qoperator,s8s8` (microsoft/onnxruntime#6732): "
            "use `qdq` or `u8s8`."
        )
    return (
        "On x86, ONNX Runtime's kernels are slower for signed activations than for `u8s8` (microsoft/onnxruntime#6732)."
    )


def _reference_kernels(half: Half) -> str | None:
    """TensorFlow's guide to 16x8 quantization names this limit; no thread of a user."""
    if half.scheme.precision is not Precision.INT16X8 or half.row.runtime != "tflite":
        return None
    share = outside_xnnpack(half.profile)
    taking = f", which take {percent(share)} of its time" if share else ""
    return f"LiteRT multiplies INT16 activations in reference kernels only{taking}; XNNPACK takes none of them over."


def _dynamic_convolutions(half: Half) -> str | None:
    """microsoft/onnxruntime#16009: dynamic quantization where static belongs, 2.6 times slower."""
    dynamic = half.scheme.precision is Precision.INT8_DYNAMIC and half.graph != half.row.graph
    if not dynamic or half.row.runtime != "onnxruntime" or _contradicts(half, "ConvInteger"):
        return None
    return (
        "Dynamic quantization does not suit convolutions: ranges are found anew for each, and ONNX Runtime's "
        "ConvInteger is slow (microsoft/onnxruntime#16009); use `int8_static`."
    )


def _dynamic_range(half: Half) -> str | None:
    """tensorflow/model-optimization#797: per-channel dynamic range is slow on x86."""
    if half.scheme.precision is not Precision.INT8_DYNAMIC or half.row.runtime != "tflite":
        return None
    in_xnnpack = half.profile.top and (outside_xnnpack(half.profile) or 0.0) < MUCH_OUTSIDE
    if half.kind in (None, MachineKind.ARM) or in_xnnpack:
        return None
    return (
        "LiteRT's dynamic-range kernels with a scale for each channel are slow on x86 "
        "(tensorflow/model-optimization#797)."
    )


def _no_integer_instructions(half: Half) -> str | None:
    """microsoft/onnxruntime#17389: a Xeon without VNNI, 15.22 ms in fp32 and 15.82 ms in INT8."""
    if half.scheme.precision not in _INT8 or not half.isa or half.isa & {*X86_INTEGER, *ARM_INTEGER}:
        return None
    return (
        "This CPU has no instruction that sums products of bytes (VNNI, dotprod, i8mm), so INT8 wins little or nothing "
        "(microsoft/onnxruntime#17389)."
    )


def _half_precision(half: Half) -> str | None:
    """The row's own ledger; a CPU's FP16 weights are storage unless it multiplies in FP16."""
    if half.scheme.precision is not Precision.FP16 or half.profile.shares.get("fp16"):
        return None
    return "FP16 is only how weights are stored: they are widened, and multiplied in fp32."


def _four_bits(half: Half) -> str | None:
    """The row's own ledger: what stays in float."""
    if half.scheme.precision is not Precision.INT4_WEIGHTS:
        return None
    return "4-bit weights are unpacked in every run, and layers other than dense ones stay in fp32."


def _leftover_pairs(half: Half) -> str | None:
    """microsoft/onnxruntime#14707: pairs that the optimizer could not fuse run at the speed of fp32."""
    pairs = half.row.coverage.leftover_pairs
    if not pairs:
        return None
    return (
        f"{pairs} pairs of quantizing and dequantizing are left over and compute nothing (microsoft/onnxruntime#14707)."
    )


def _outside(half: Half) -> str | None:
    """tensorflow/tflite-support#214: int8 slower than float on x86, where only XNNPACK's kernels are fast."""
    share = outside_xnnpack(half.profile)
    if half.row.runtime != "tflite" or half.scheme.precision is Precision.INT16X8 or (share or 0.0) < MUCH_OUTSIDE:
        return None
    return (
        f"{percent(share)} of its time is in LiteRT's own kernels, which XNNPACK did not take over "
        "(tensorflow/tflite-support#214)."
    )


def _movement(half: Half) -> str | None:
    """opencv/opencv_zoo#88: time goes into conversions between numbers."""
    share = movement_time(half.profile)
    usual = movement_time(_profile_of_twin(half)) or 0.0
    if share is None or share < max(MUCH_MOVEMENT, usual + MORE_MOVEMENT):
        return None
    return (
        f"{percent(share)} of its time moves and converts numbers instead of multiplying them (opencv/opencv_zoo#88)."
    )


def _little_integer(half: Half) -> str | None:
    """microsoft/onnxruntime#20052: a small network of which little became faster."""
    if half.scheme.precision not in (*_INT8, Precision.INT16X8):
        return None
    share = integer_time(half.profile)
    if share is not None and share < LITTLE_INTEGER:
        return f"Only {percent(share)} of its time is spent in integer kernels (microsoft/onnxruntime#20052)."
    macs = half.row.coverage.macs_int8
    if share is None and macs is not None and macs < LITTLE_INTEGER:
        return f"Only {percent(macs)} of a caption's multiply-adds are integer (microsoft/onnxruntime#20052)."
    return None


def _small(half: Half) -> str | None:
    """tensorflow/model-optimization#599: 258 us in int8, 42 us in float."""
    if half.twin_seconds is None or half.twin_seconds >= SMALL_SECONDS:
        return None
    return (
        f"In {microseconds(half.twin_seconds)} a run is mostly calls of operators, and quantization adds more of them "
        "(tensorflow/model-optimization#599)."
    )


def _profile_of_twin(half: Half) -> GraphProfile:
    return half.twin.profiles.get(half.graph, GraphProfile({}, ()))


def movement_time(profile: GraphProfile) -> float | None:
    """The share of a graph's time that moves and converts numbers; None without a profile."""
    if not profile.shares:
        return None
    return sum(share for kind, share in profile.shares.items() if kind.replace("_", " ") == DATA_MOVEMENT)


def outside_xnnpack(profile: GraphProfile) -> float | None:
    """The share of LiteRT's time, among the operators that take most, in kernels of LiteRT itself; None if unknown."""
    if not profile.top:
        return None
    return sum(share for name, share in profile.top if re.fullmatch(r"[A-Z0-9_]+( \(hybrid\))?", name))


def _contradicts(half: Half, operator: str) -> bool:
    """Whether the profile shows that an operator is none of those that take most."""
    return bool(half.profile.top) and operator not in dict(half.profile.top)


RULES: tuple[Callable[[Half], str | None], ...] = (
    _signed_bytes,
    _reference_kernels,
    _dynamic_convolutions,
    _dynamic_range,
    _no_integer_instructions,
    _half_precision,
    _four_bits,
    _leftover_pairs,
    _outside,
    _movement,
    _little_integer,
    _small,
)
