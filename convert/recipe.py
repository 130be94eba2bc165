"""Recipe: what to build. Parsed once from TOML suites, frozen, validated, hashable."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from models.compression.chain import NONE
from models.errors import ConfigError, unknown_name


class Format(StrEnum):
    """A file format that an exporter writes."""

    KERAS = "keras"
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"
    ONNX = "onnx"


class Precision(StrEnum):
    """How the numbers of one half are stored and computed."""

    FP32 = "fp32"
    FP16 = "fp16"  # weights stored in half precision
    INT8_DYNAMIC = "int8_dynamic"  # weights INT8; activations quantized while running
    INT8_STATIC = "int8_static"  # weights and activations INT8, ranges from training images


class Graph(StrEnum):
    """How the decoder is laid out."""

    STEP = "step"  # one word with explicit state: what one deploys
    PREFIX = "prefix"  # the 2020 study's: the whole padded prefix again for every word


@dataclass(frozen=True, order=True)
class Recipe:
    """One artifact to build; encoder and decoder choose their precision separately."""

    captioner: str
    format: Format
    encoder: Precision = Precision.FP32
    decoder: Precision = Precision.FP32
    graph: Graph = Graph.STEP
    technique: str = NONE  # a chain of models.compression, "ENCODER/DECODER" when the halves differ

    @property
    def name(self) -> str:
        """The slug in every table, e.g. `scenes.prune80.onnx.int8_static+fp32`."""
        precision = self.encoder if self.encoder == self.decoder else f"{self.encoder}+{self.decoder}"
        graph = "" if self.graph is Graph.STEP else f".{self.graph}"
        technique = "" if self.technique == NONE else f".{self.technique}"
        return f"{self.captioner}{technique}.{self.format}.{precision}{graph}"


def parse_precisions(text: str) -> tuple[Precision, Precision]:
    """`"fp32"` for both halves, or `"int8_static+fp16"` for encoder and decoder. Raises ConfigError."""
    halves = text.split("+")
    if len(halves) > 2:
        raise ConfigError(f"a precision is 'P' or 'ENCODER+DECODER'; received '{text}'.")
    for half in halves:
        if half not in set(Precision):
            raise unknown_name("precision", half, Precision)
    return Precision(halves[0]), Precision(halves[-1])


def expand_recipes(
    captioner: str,
    formats: Iterable[str],
    precisions: Iterable[str],
    graph: str = Graph.STEP,
    techniques: Iterable[str] = (NONE,),
) -> list[Recipe]:
    """Every technique and format with every precision. Raises ConfigError for a name that does not exist."""
    if graph not in set(Graph):
        raise unknown_name("graph", graph, Graph)
    for format_name in formats:
        if format_name not in set(Format):
            raise unknown_name("format", format_name, Format)
    return [
        Recipe(captioner, Format(format_name), encoder, decoder, Graph(graph), technique)
        for technique, format_name in itertools.product(techniques, formats)
        for encoder, decoder in map(parse_precisions, precisions)
    ]
