"""The kind of machine, and the integers that suit it: what is fast on one CPU is slow, or wrong, on another.

U8S8 products are summed in pairs into 16 bits, and overflow, on x86 without VNNI (microsoft/onnxruntime#5849 and
#6004): there weights take 7 bits. Arm multiplies signed bytes as fast, and S8S8 needs no such care
(onnxruntime's documentation on quantization, "Data type selection").
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from convert.scheme import Integers, Layout, Precision, Scheme, WeightRange

# Instruction sets that decide how fast inference can be, as Linux spells them: x86, then Arm.
ISA_FLAGS = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "neon",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)
_VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})
_ARM = frozenset({"neon", "asimd"})
_CPU_INFO = Path("/proc/cpuinfo")


class MachineKind(StrEnum):
    """What the integer kernels of a CPU are like."""

    X86_VNNI = "x86 with VNNI"
    X86 = "x86 without VNNI"
    ARM = "Arm"


DEFAULTS: dict[MachineKind, tuple[Integers, WeightRange, str]] = {
    MachineKind.X86_VNNI: (Integers.U8S8, WeightRange.FULL, "its VNNI multiplies unsigned by signed bytes"),
    MachineKind.X86: (Integers.U8S8, WeightRange.REDUCED, "8-bit weights could overflow its 16-bit sums"),
    MachineKind.ARM: (Integers.S8S8, WeightRange.FULL, "it multiplies signed bytes"),
}


def machine_kind(flags: tuple[str, ...] | None = None) -> MachineKind:
    """The kind of a CPU with these ISA flags; of this machine when none are given."""
    present = set(isa_flags(parse_cpu_info(read_cpu_info())) if flags is None else flags)
    if present & _ARM:
        return MachineKind.ARM
    return MachineKind.X86_VNNI if present & _VNNI else MachineKind.X86


def for_machine(scheme: Scheme, written: frozenset[str], kind: MachineKind) -> Scheme:
    """The ONNX scheme with this machine's integers where none were written."""
    if scheme.precision not in (Precision.INT8_STATIC, Precision.INT8_DYNAMIC):
        return scheme
    integers, weight_range, _ = DEFAULTS[kind]
    if scheme.precision is Precision.INT8_DYNAMIC:
        integers = scheme.integers  # the runtime chooses the activations' sign
    return replace(
        scheme,
        integers=scheme.integers if "integers" in written else integers,
        weight_range=scheme.weight_range if {"integers", "weight_range"} & written else weight_range,
    )


def describe_defaults(kind: MachineKind) -> str:
    """One line on what INT8 in ONNX means here if a suite says no more."""
    integers, weight_range, reason = DEFAULTS[kind]
    return f"INT8 in ONNX on this machine ({kind}): {integers}, {weight_range}, because {reason}"


def slow_choice(scheme: Scheme, kind: MachineKind) -> str:
    """Why a scheme is known to be slow or wrong on a kind of machine; "" when nothing is known against it."""
    if scheme.precision is not Precision.INT8_STATIC or kind is MachineKind.ARM:
        return ""
    if scheme.integers is Integers.S8S8 and scheme.layout is Layout.QOPERATOR:
        # VGG16 on this project's AVX512-VNNI machine: 651 ms against 37 ms as QDQ.
        return "S8S8 as QOperator has no fast kernel on x86: 18 times slower than QDQ was measured. Use qdq or u8s8."
    if kind is MachineKind.X86 and scheme.integers is Integers.U8S8 and scheme.weight_range is WeightRange.FULL:
        return "8-bit weights with U8S8 may overflow without VNNI, and captions go wrong. Use reduce_range."
    return ""


def read_cpu_info() -> str:
    """Linux's description of the CPU; "" where there is none."""
    try:
        return _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parse_cpu_info(text: str) -> dict[str, str]:
    """/proc/cpuinfo as key -> value of the first processor that has the key."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields


def isa_flags(cpu_info: Mapping[str, str]) -> tuple[str, ...]:
    """ISA_FLAGS that this CPU has; x86 lists them as `flags`, Arm as `Features`."""
    present = {*cpu_info.get("flags", "").split(), *cpu_info.get("Features", "").split()}
    return tuple(flag for flag in ISA_FLAGS if flag in present)
