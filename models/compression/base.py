"""The common language of the techniques: what is asked, of which half, what was reached, and what it cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from models.captioner import Captioner
from models.datasets.base import Dataset
from models.errors import ConfigError
from models.fitting import Score
from models.spec import CaptionerSpec, EncoderTraining


class Scope(StrEnum):
    """What a technique works on."""

    CAPTIONER = "captioner"
    ENCODER = "encoder"
    DECODER = "decoder"


class Stage(IntEnum):
    """Techniques chain in this order: each keeps what those before it made, and would lose what comes after."""

    STUDENT = 0  # another architecture, trained anew
    SHAPE = 1  # fewer units, filters, words
    RETRAIN = 2  # dense again at the end
    SPARSITY = 3  # zeros
    SHARING = 4  # few distinct values
    ROUNDING = 5  # INT8 ranges learned


# Why a technique of the second stage can't come after one of the first.
ORDER_REASONS: Mapping[Stage, str] = {
    Stage.STUDENT: "a student is another network, trained anew: what was done before it is lost",
    Stage.SHAPE: "it changes the shapes that zeros, shared values and INT8 ranges were found for",
    Stage.RETRAIN: "it ends with a dense retraining, which fills the zeros and unshares the values made before",
    Stage.SPARSITY: "new zeros would be one more value in every cluster, and INT8 ranges were learned without them",
    Stage.SHARING: "INT8 ranges were learned for other values",
    Stage.ROUNDING: "a second rounding of rounded weights",
}


@dataclass(frozen=True)
class Ask:
    """One technique as it was asked for, e.g. `prune80(layers=lstm|words,epochs=4)`."""

    technique: str
    amount: int | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The text that parses to this."""
        number = "" if self.amount is None else str(self.amount)
        options = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.technique}{number}" + (f"({options})" if options else "")

    def option(self, name: str, default: str) -> str:
        """The text of an option."""
        return dict(self.options).get(name, default)

    def number(self, name: str, default: float) -> float:
        """An option that is a number. Raises ConfigError."""
        text = self.option(name, str(default))
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{self}: {name} must be a number; received '{text}'.") from None
        if value <= 0:
            raise ConfigError(f"{self}: {name} must be above 0; received '{text}'.")
        return value


@dataclass(frozen=True)
class Context:
    """What a technique may use besides the captioner."""

    dataset: Dataset
    work: Path  # keeps checkpoints of this very compression
    cache: Path  # features and pixels, shared
    score: Score
    spec: CaptionerSpec  # how the captioner was trained

    def inputs(self, scope: Scope) -> EncoderTraining:
        """Whether fine-tuning on captions reaches the encoder: never when only the decoder is asked for."""
        return EncoderTraining.FROZEN if scope is Scope.DECODER else self.spec.encoder_training


@dataclass(frozen=True)
class Reached:
    """What one weight tensor is like after a technique."""

    layer: str
    weight: str
    elements: int
    zeros: float  # share 0..1
    values: int  # distinct values, zero included


@dataclass(frozen=True)
class Outcome:
    """What a technique did. `cider_compressed` is the validation CIDEr before its fine-tuning, NaN where none is."""

    captioner: Captioner
    reached: tuple[Reached, ...] = ()
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    cider_compressed: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Technique:
    """An entry of the registry."""

    stage: Stage
    compress: Callable[[Captioner, Ask, Scope, Context], Outcome]
    summary: str
    amounts: tuple[int, ...] = ()  # numbers that may follow its name; empty: none may
    options: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = (Scope.CAPTIONER, Scope.ENCODER, Scope.DECODER)
    check: Callable[[Captioner, Ask, Scope, Context], None] = lambda *asked: None  # before anything is trained
    revision: int = 1  # raised when the same ask gives another captioner
    learns: bool = True  # False: the captioner is meant to say what it said before


@dataclass(frozen=True)
class Compression:
    """The record of one technique, kept in the captioner's card."""

    technique: str
    scope: str
    reached: tuple[Reached, ...]
    epochs: int
    steps: int
    seconds: float
    cider_before: float
    cider_compressed: float | None
    cider: float
    distinct_before: int
    distinct: int
    parameters_before: int
    parameters: int
    multiply_adds_before: Mapping[str, int]  # encoder (an image), step (a word)
    multiply_adds: Mapping[str, int]
    notes: Mapping[str, Any]
