"""What a measured captioner is, and what each technique made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reached:
    """What one weight tensor is like after a technique."""

    layer: str
    weight: str
    elements: int
    zeros: float  # share 0..1
    values: int  # distinct values, zero included


@dataclass(frozen=True, slots=True)
class Compression:
    """One technique of a chain: what it reached, what it cost, what the validation captions lost."""

    technique: str
    scope: str  # captioner, encoder, decoder
    reached: tuple[Reached, ...]
    epochs: int
    steps: int
    seconds: float  # of fine-tuning
    cider_before: float
    cider_compressed: float | None  # before fine-tuning; None for a student, which starts from noise
    cider: float
    distinct_before: int
    distinct: int
    parameters_before: int
    parameters: int
    multiply_adds_before: Mapping[str, int]  # encoder (an image), step (a word)
    multiply_adds: Mapping[str, int]
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Captioner:
    """What a measured captioner is, how its training went, and how it was compressed."""

    name: str
    encoder: str
    decoder: str
    parameters: int
    vocabulary_size: int
    validation_cider: float
    epochs: int
    note: str = ""  # e.g. "random encoder weights: size and time only"
    technique: str = "none"
    compressions: tuple[Compression, ...] = ()
