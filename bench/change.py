"""What a comparison of two runs says: one change of one metric of one row, all of them, and how that ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from bench.result import Results


class Unit(StrEnum):
    """In what a metric is counted."""

    TEXT = "text"
    COUNT = "count"
    BYTES = "bytes"
    SHARE = "share"  # 0..1
    SCORE = "score"
    SECONDS = "seconds"


class Metric(StrEnum):
    """What is compared of a row."""

    STATUS = "status"
    CAPTIONS = "same captions"  # images whose caption is still the one before
    SIZE = "size"
    ZIPPED = "zipped size"
    INTEGER_WEIGHTS = "integer weights"  # INT8 and INT4
    INTEGER_MACS = "integer multiply-adds"
    LEFTOVER_PAIRS = "left-over pairs"
    OVERFLOWS = "layers that could overflow"
    LSTM = "LSTM"
    SHA256 = "sha256"
    CIDER = "CIDEr"
    BLEU_4 = "BLEU-4"
    CIDER_BEAM3 = "CIDEr, beam 3"
    BLEU_4_BEAM3 = "BLEU-4, beam 3"
    CAPTION_TIME = "caption time"
    ENCODE_TIME = "encode time"
    STEP_TIME = "step time"


UNITS: Mapping[Metric, Unit] = {
    Metric.STATUS: Unit.TEXT,
    Metric.CAPTIONS: Unit.COUNT,
    Metric.SIZE: Unit.BYTES,
    Metric.ZIPPED: Unit.BYTES,
    Metric.INTEGER_WEIGHTS: Unit.SHARE,
    Metric.INTEGER_MACS: Unit.SHARE,
    Metric.LEFTOVER_PAIRS: Unit.COUNT,
    Metric.OVERFLOWS: Unit.COUNT,
    Metric.LSTM: Unit.TEXT,
    Metric.SHA256: Unit.TEXT,
    Metric.CIDER: Unit.SCORE,
    Metric.BLEU_4: Unit.SCORE,
    Metric.CIDER_BEAM3: Unit.SCORE,
    Metric.BLEU_4_BEAM3: Unit.SCORE,
    Metric.CAPTION_TIME: Unit.SECONDS,
    Metric.ENCODE_TIME: Unit.SECONDS,
    Metric.STEP_TIME: Unit.SECONDS,
}
# Of these a difference is a share of what was before; of the others it is in the metric's own unit.
RELATIVE = frozenset({Unit.BYTES, Unit.SECONDS})


class Verdict(StrEnum):
    """What a change means for the gate."""

    WORSE = "worse"  # fails it
    SLOWER = "slower, confirmed"  # raises the alarm
    SUSPECTED = "slower, to be confirmed"  # asks for another run
    CHANGED = "changed"  # is reported
    BETTER = "better"


class Outcome(IntEnum):
    """How a comparison ends; the value is the exit status. 2 is bad input, as everywhere."""

    PASSED = 0
    FAILED = 1
    SLOWER = 3
    SUSPECTED = 4


@dataclass(frozen=True, slots=True)
class Change:
    """One significant change. `difference` is relative for bytes and seconds; None for text.

    `interval` is that of the difference: 99 % for times, 95 % for scores, None for what is counted and not estimated.
    """

    row: str
    metric: Metric
    verdict: Verdict
    before: float | str | None
    after: float | str | None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    detail: str = ""

    @property
    def unit(self) -> Unit:
        """In what `before` and `after` are."""
        return UNITS[self.metric]


@dataclass(frozen=True, slots=True)
class Run:
    """Which run a file holds."""

    suite: str
    commit: str
    created: str
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, results: Results) -> "Run":
        """The run that these results are of."""
        return cls(results.suite, results.commit, results.created, results.hashes)


@dataclass(frozen=True, slots=True)
class Changes:
    """All that changed significantly, and what could not be compared and why."""

    before: Run
    after: Run
    confirm: Run | None
    rows: int  # that both runs have
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """The hard gate comes first, then a confirmed alarm, then a suspicion."""
        verdicts = {change.verdict for change in self.changes}
        if Verdict.WORSE in verdicts:
            return Outcome.FAILED
        if Verdict.SLOWER in verdicts:
            return Outcome.SLOWER
        return Outcome.SUSPECTED if Verdict.SUSPECTED in verdicts else Outcome.PASSED
