"""Scheme: how the numbers of one half are stored and computed, down to how their ranges are found.

Written `PRECISION` or `PRECISION(OPTION,...)`, as in `int8_static(entropy,per_tensor)`. An option that is not written
has the default of the format and of the machine's kind (`convert.machine`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from models.errors import ConfigError, unknown_name


class Precision(StrEnum):
    """How the numbers of one half are stored and computed."""

    FP32 = "fp32"
    FP16 = "fp16"  # weights stored in half precision
    INT8_DYNAMIC = "int8_dynamic"  # weights INT8; activations quantized while running
    INT8_STATIC = "int8_static"  # weights and activations INT8, ranges from training images
    INT16X8 = "int16x8"  # weights INT8, activations INT16, ranges from training images
    INT4_WEIGHTS = "int4_weights"  # dense layers and embeddings INT4 in blocks; activations INT8 while running


class Calibrator(StrEnum):
    """How the range of an activation follows from what calibration saw of it; see `convert.ranges`."""

    MIN_MAX = "min_max"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Granularity(StrEnum):
    """What shares one scale among the weights of a layer."""

    PER_CHANNEL = "per_channel"
    PER_TENSOR = "per_tensor"


class Layout(StrEnum):
    """How ONNX writes integers: float operators between QuantizeLinear pairs, or integer operators."""

    QDQ = "qdq"
    QOPERATOR = "qoperator"


class Integers(StrEnum):
    """Signs of activations and weights. TFLite's are S8S8 by its specification."""

    U8S8 = "u8s8"
    S8S8 = "s8s8"


class WeightRange(StrEnum):
    """Whether weights take 8 bits, or 7 so that pairs of products fit 16 bits on a CPU without VNNI."""

    FULL = "full_range"
    REDUCED = "reduce_range"


STATIC = frozenset({Precision.INT8_STATIC, Precision.INT16X8})
INTEGER = STATIC | {Precision.INT8_DYNAMIC}
FLOAT_LAYERS = "float="
_SYNTAX = re.compile(r"(?P<precision>[^()]*)(\((?P<options>[^()]+)\))?")


@dataclass(frozen=True, order=True)
class Scheme:
    """A precision and its options; `str()` writes only those that differ from these defaults."""

    precision: Precision = Precision.FP32
    calibrator: Calibrator = Calibrator.MIN_MAX
    granularity: Granularity = Granularity.PER_CHANNEL
    layout: Layout = Layout.QDQ
    integers: Integers = Integers.U8S8
    weight_range: WeightRange = WeightRange.FULL
    float_layers: tuple[str, ...] = ()  # names of Keras layers that stay in float

    def __str__(self) -> str:
        default = Scheme(self.precision)
        options = [str(value) for name, value in self.options.items() if value != getattr(default, name)]
        if self.float_layers:
            options.append(f"{FLOAT_LAYERS}{'|'.join(self.float_layers)}")
        return f"{self.precision}({','.join(options)})" if options else str(self.precision)

    @property
    def options(self) -> dict[str, StrEnum]:
        """The enumerated options by field."""
        return {name: getattr(self, name) for name in OPTIONS}


FLOAT = Scheme()
OPTIONS: dict[str, type[StrEnum]] = {
    "calibrator": Calibrator,
    "granularity": Granularity,
    "layout": Layout,
    "integers": Integers,
    "weight_range": WeightRange,
}
assert {"precision", *OPTIONS, "float_layers"} == {field.name for field in fields(Scheme)}
# What each precision has a choice of; anything else in parentheses is refused, for it would change nothing.
CHOICES: dict[Precision, frozenset[str]] = {
    Precision.FP32: frozenset(),
    Precision.FP16: frozenset(),
    Precision.INT8_DYNAMIC: frozenset({"granularity", "weight_range"}),
    Precision.INT8_STATIC: frozenset({*OPTIONS, "float_layers"}),
    Precision.INT16X8: frozenset({"float_layers"}),
    Precision.INT4_WEIGHTS: frozenset(),
}


def parse_scheme(text: str) -> tuple[Scheme, frozenset[str]]:
    """(scheme, names of the fields that were written). Raises ConfigError."""
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"a precision is 'NAME' or 'NAME(OPTION,...)'; received '{text}'.")
    name = match["precision"].strip()
    if name not in set(Precision):
        raise unknown_name("precision", name, Precision)
    scheme, written = Scheme(Precision(name)), set()
    for option in (match["options"] or "").split(",") if match["options"] else ():
        field, value = _parse_option(option.strip())
        if field not in CHOICES[scheme.precision]:
            raise ConfigError(f"'{option.strip()}' changes nothing in {name}: leave it out of '{text}'.")
        if field in written:
            raise ConfigError(f"'{text}' says twice what its {field.replace('_', ' ')} is: keep one.")
        written.add(field)
        scheme = replace(scheme, **{field: value})  # type: ignore[arg-type]
    return scheme, frozenset(written)


def _parse_option(option: str) -> tuple[str, StrEnum | tuple[str, ...]]:
    """(field, value)"""
    if option.startswith(FLOAT_LAYERS):
        layers = tuple(dict.fromkeys(filter(None, option.removeprefix(FLOAT_LAYERS).split("|"))))
        if not layers:
            raise ConfigError(f"'{FLOAT_LAYERS}' needs names of layers: 'float=conv_1|words'.")
        return "float_layers", layers
    for field, values in OPTIONS.items():
        if option in set(values):
            return field, values(option)
    raise unknown_name("option of a precision", option, [*_all_options(), FLOAT_LAYERS])


def _all_options() -> Iterable[str]:
    return [str(value) for values in OPTIONS.values() for value in values]
