"""Recipe: what to build. Parsed once from TOML suites, frozen, validated, hashable."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from convert.machine import MachineKind, for_machine, machine_kind
from convert.scheme import FLOAT, Scheme, parse_scheme
from models.compression.chain import NONE
from models.errors import ConfigError, unknown_name


class Format(StrEnum):
    """A file format that an exporter writes."""

    KERAS = "keras"
    SAVED_MODEL = "saved_model"
    TFLITE = "tflite"
    ONNX = "onnx"


class Graph(StrEnum):
    """How the decoder is laid out."""

    STEP = "step"  # one word with explicit state: what one deploys
    PREFIX = "prefix"  # the 2020 study's: the whole padded prefix again for every word
    FUSED = "fused"  # image in, words out: encoder, step and greedy loop in one file


@dataclass(frozen=True, order=True)
class Recipe:
    """One artifact to build; encoder and decoder choose their scheme separately."""

    captioner: str
    format: Format
    encoder: Scheme = FLOAT
    decoder: Scheme = FLOAT
    graph: Graph = Graph.STEP
    technique: str = NONE  # a chain of models.compression, "ENCODER/DECODER" when the halves differ

    @property
    def name(self) -> str:
        """The slug in every table, e.g. `scenes.prune80.onnx.int8_static+fp32`."""
        precision = str(self.encoder) if self.encoder == self.decoder else f"{self.encoder}+{self.decoder}"
        graph = "" if self.graph is Graph.STEP else f".{self.graph}"
        technique = "" if self.technique == NONE else f".{self.technique}"
        return f"{self.captioner}{technique}.{self.format}.{precision}{graph}"


def parse_precisions(text: str, format_: Format, kind: MachineKind | None = None) -> tuple[Scheme, Scheme]:
    """`"fp32"` for both halves, or `"int8_static(entropy)+fp16"` for encoder and decoder. Raises ConfigError.

    What is not written suits a kind of machine: this one's, if none is given.
    """
    halves = text.split("+")
    if len(halves) > 2:
        raise ConfigError(f"a precision is 'P' or 'ENCODER+DECODER'; received '{text}'.")
    parsed = [parse_scheme(half) for half in halves]
    if format_ is Format.ONNX:
        kind = kind or machine_kind()
        parsed = [(for_machine(scheme, written, kind), written) for scheme, written in parsed]
    return parsed[0][0], parsed[-1][0]


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
        for encoder, decoder in (parse_precisions(text, Format(format_name)) for text in precisions)
    ]
