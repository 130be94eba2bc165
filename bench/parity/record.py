"""What is known of a row's agreement with its reference: part of results.json and of a parity run's own file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Cause(StrEnum):
    """Why a caption is not the reference's; the rules are those of `bench.parity.causes`, told in docs/parity.md."""

    TIE_FLIP = "tie flip"
    ENCODER = "encoder"
    DRIFT = "drift"
    DECODER = "decoder"
    PREPROCESSING = "preprocessing"
    END_OF_SENTENCE = "end of sentence"
    VOCABULARY = "vocabulary"
    MASKING = "masking"
    UNKNOWN = "unknown"
    NOT_EXAMINED = "not examined"


@dataclass(frozen=True, slots=True)
class Choice:
    """A word that could have been said at a step; the end is `<end>`."""

    word: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """One image whose caption is not the reference's, and what a replay of it showed at the first step that differs.

    `margin`: by how much the reference preferred its own word to this row's, in nats. `errors`: by tensor, the root
    mean square of the difference over that of the reference's values. `word_from_features` and `word_from_state`: what
    this row says there when it is given the reference's features, or its features and state. Nothing beyond
    `first_step` is known of results before format 4; `reason` says why a cause is unknown, or names it closer.
    """

    image: str
    reference_caption: str
    caption: str
    first_step: int  # 0-based
    cause: Cause = Cause.UNKNOWN
    reason: str = ""
    margin: float | None = None
    noise: float | None = None  # below this margin it is a tie
    reference_choices: tuple[Choice, ...] = ()
    choices: tuple[Choice, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    word_from_features: str | None = None
    word_from_state: str | None = None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How far a named tensor is from the reference's, over some images given the same pixels and the same words.

    `cosine` is the lowest of an image (and step). `snr_db`: reference power over that of the difference, None when
    they are equal. `tolerance`: the least t with |a - b| <= t + t * |b| everywhere (as numpy.allclose, atol = rtol).
    """

    max_abs: float
    mean_abs: float
    cosine: float
    snr_db: float | None
    tolerance: float


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement with the reference row, string by string; shares are 0..1.

    `captions_identical` is of the whole pipeline: the same file in, each runtime in its own process and environment.
    `graph_captions_identical` is of the graphs alone: the same tensor in. `max_abs_difference` is over the features
    and first logits of the same images. `causes` holds every image whose caption differs, `divergences` the details
    of some.
    """

    reference: str
    captions_identical: float
    tokens_identical: float
    max_abs_difference: float | None
    divergences: tuple[Divergence, ...] = ()
    graph_captions_identical: float | None = None
    pixels_identical: float | None = None  # share of images that were prepared bit for bit alike
    causes: Mapping[str, Cause] = field(default_factory=dict)
    tensors: Mapping[str, TensorDifference] = field(default_factory=dict)
    noise: float | None = None  # nats: what the reference's margins move by, see `bench.parity.causes`


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One artifact on one runtime; a search that it does not offer, or that has no reference, is None."""

    recipe: str
    runtime: str
    precisions: tuple[str, str]  # of encoder and decoder
    greedy: Parity | None = None
    beam3: Parity | None = None
    reason: str = ""  # why there is nothing to compare

    @property
    def name(self) -> str:
        """The slug of a row: its recipe and where it ran."""
        return f"{self.recipe} @ {self.runtime}"

    @property
    def searches(self) -> tuple[Parity, ...]:
        """Its agreement by each search that was compared; empty for the reference itself."""
        return tuple(p for p in (self.greedy, self.beam3) if p and p.reference != self.name)


@dataclass(frozen=True, slots=True)
class ParityRun:
    """What `captionbench parity` found, in its `parity.json`."""

    suite: str
    dataset: str
    images: int
    command: str
    commit: str
    created: str  # ISO 8601, UTC
    rows: tuple[ParityRow, ...]
    pictures: Mapping[str, str] = field(default_factory=dict)  # image id -> path relative to parity.json
    format_version: int = 1
