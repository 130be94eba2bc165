"""What a replay of captions showed, before it is judged: written by a worker process, read by `bench.parity.causes`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.parity.record import TensorDifference
from models.decoding import Caption, Search


@dataclass(frozen=True, slots=True)
class Evidence:
    """One image's first step at which a row's caption leaves the reference's.

    Up to there both said the same words, so a replay is given those. `margin`, `reference_choices` and `choices` are
    log-probabilities (nats) of that step: the reference's for its own token minus that for the row's, and the two best
    (token, log-probability) of each. `errors`: by tensor (features, the states that enter the step, logits), the root
    mean square of the difference over the reference's root mean square. `growth`: that of the logits at each step of
    the reference's caption. The tokens `from_...` are what this row's graphs say at the step when the reference's
    tensors are put in place of their own: None where that can't be done. In a beam search `margin` is that of the
    totals of what one search kept and the other dropped, and the choices are those of the beam.
    """

    image: str
    search: Search
    step: int  # 0-based
    reference_token: int | None  # None: that caption had ended before
    token: int | None
    pixels_equal: bool
    margin: float | None = None
    reference_choices: tuple[tuple[int, float], ...] = ()
    choices: tuple[tuple[int, float], ...] = ()
    replayed_token: int | None = None  # by its own tensors alone: its token again, or the replay explains nothing
    token_from_pixels: int | None = None
    token_from_features: int | None = None
    token_from_state: int | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    growth: tuple[float, ...] = ()
    moved: tuple[int, ...] = ()  # tokens whose logits stand in another place, see `bench.parity.reordering`
    state_lost: bool = False  # zero, or not moving, while the reference's is neither


@dataclass(frozen=True, slots=True)
class Examined:
    """One row against its reference.

    `margin_rms`: root mean square (nats) of the error of the difference between the logits of the reference's two best
    words, over all steps of the probe images. `graph_captions`: token ids for the images that were prepared
    differently, captioned from the reference's pixels.
    """

    margin_rms: float | None
    tensors: Mapping[str, TensorDifference]
    evidence: Mapping[Search, tuple[Evidence, ...]]
    graph_captions: Mapping[Search, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    contracts: Mapping[str, str] = field(default_factory=dict)  # image -> what its preparation did differently
    captions: Mapping[Search, Mapping[str, Caption]] = field(default_factory=dict)  # where they were not known before
    pixels_differ: tuple[str, ...] = ()
