"""What a suite run found: result rows and what stands around them.

Units are in the names, raw samples are kept, and nothing is stored that can't be traced to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.compression_record import Captioner
from bench.measurement import (
    Difference,
    Disturbance,
    GraphProfile,
    GraphWork,
    Latency,
    Memory,
    Phase,
    Throughput,
)
from bench.parity.record import Parity, ParityRow
from bench.setting import Environment, Roofline, RunPlan, RuntimeCost

# History of the file format; a reader refuses what it does not know.
#   1  first format
#   2  captioners carry their technique, what it reached and what it cost; rows carry a note
#   3  samples know their round, percentiles have intervals, differences are paired by rounds; rows say what disturbed
#      them, where their time goes and what they compute; the head has hashes, load, runtimes' costs and limits
#   4  captions that differ carry their cause, tensors how far they are apart; the head has pictures
#   5  the head has pictures of all test images, and what people wrote of them, where the licence lets them be shown,
#      and how long the work took
#   6  captions lie as what differs from the nearest row before, not from the baseline alone
#   7  rows say how their captions differ in quality from their own captioner's, uncompressed; sentences and ids of
#      images stand once
FORMAT_VERSION = 7
READABLE_VERSIONS = (1, 2, 3, 4, 5, 6, 7)


class Status(StrEnum):
    """What a row is worth. Everything but VALID carries a reason."""

    VALID = "valid"
    QUICK = "quick"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Part:
    """How one half of a captioner was compressed."""

    technique: str
    precision: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk of the model files; `deflated` is the same files in one zip archive. A fused file has no halves."""

    total: int
    encoder: int | None
    decoder: int | None
    deflated: int
    weights: int | None = None  # of kernels and tables alone, as the file stores them


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the artifact is really integer, shares 0..1; None where unknown or not applicable."""

    weights_int8: float | None = None
    macs_int8: float | None = None  # multiply-adds of one caption of mean length that integer kernels do
    time_int8: float | None = None
    weights_int4: float | None = None
    leftover_pairs: int | None = None  # quantized and dequantized again, after the runtime's own optimizer
    lstm: str = ""  # how the decoder's LSTM is written: explicit_step, operator, loop
    # Layers whose INT8 sums could leave 16 bits on x86 without VNNI, and those that did on training images.
    overflow_possible: int | None = None
    overflow_observed: int | None = None
    floats: Mapping[str, str] = field(default_factory=dict)  # "graph: part" -> why it multiplies in floating point


@dataclass(frozen=True, slots=True)
class Quality:
    """Caption quality on the test images; scores are 0..1 (CIDEr-D 0..10), intervals 95 %."""

    protocol: str
    bleu_1: float
    bleu_2: float
    bleu_3: float
    bleu_4: float
    cider: float
    rouge_l: float
    bleu_4_ci95: tuple[float, float]
    cider_ci95: tuple[float, float]
    # The 2020 study's own protocol, for continuity only: START and END are counted.
    paper_bleu_1: float
    paper_bleu_2: float
    paper_bleu_3: float
    paper_bleu_4: float
    images: int
    caption_length_mean: float
    distinct_captions: int
    # Paired bootstrap of this row's CIDEr-D minus the baseline's; None for the baseline itself.
    cider_difference_ci95: tuple[float, float] | None = None
    bleu_4_difference_ci95: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class DenseDifference:
    """Paired bootstraps, 95 %: a row's CIDEr-D and BLEU-4 minus those of its captioner's uncompressed fp32 row."""

    reference: str  # name of that row
    cider_ci95: tuple[float, float]
    bleu_4_ci95: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Result:
    """One artifact on one runtime. Fields that were not reached are None; `reason` says why."""

    recipe: str
    captioner: str
    encoder: Part
    decoder: Part
    format: str
    graph: str
    runtime: str
    runtime_version: str
    status: Status
    reason: str
    thread: str = ""  # upstream issue for an unsupported row
    size_bytes: Sizes | None = None
    sha256: str = ""
    coverage: Coverage = Coverage()
    quality: Quality | None = None
    versus_dense: DenseDifference | None = None
    parity: Parity | None = None
    quality_beam3: Quality | None = None
    parity_beam3: Parity | None = None
    latency_seconds: Mapping[Phase, Latency] = field(default_factory=dict)
    versus_baseline: Difference | None = None  # of the whole caption's time
    throughput: tuple[Throughput, ...] = ()
    memory: Memory | None = None
    disturbance: Disturbance | None = None
    profiles: Mapping[str, GraphProfile] = field(default_factory=dict)  # by graph
    work: Mapping[str, GraphWork] = field(default_factory=dict)  # by graph
    captions: Mapping[str, str] = field(default_factory=dict)  # image id -> greedy caption
    note: str = ""  # the suite's, about this row


@dataclass(frozen=True, slots=True)
class ConstantCaption:
    """The best single sentence given to every image: the floor that a captioner must beat."""

    caption: str
    quality: Quality


@dataclass(frozen=True, slots=True)
class Example:
    """One test image shown in the report. `references` is empty where the licence forbids."""

    image: str
    references: tuple[str, ...]
    picture: str  # path of the picture relative to results.json, "" where none may be shown


@dataclass(frozen=True, slots=True)
class Results:
    """One suite run: head and rows."""

    suite: str
    title: str
    dataset: str
    test_images: int
    commit: str
    created: str  # ISO 8601, UTC
    command: str  # reproduces this run
    environment: Environment
    run_plan: RunPlan
    captioners: tuple[Captioner, ...]
    constant_caption: ConstantCaption | None
    baseline: str  # "RECIPE @ RUNTIME" that speed-ups and parity refer to
    noise_floor: float | None  # relative difference that identical artifacts showed
    examples: tuple[Example, ...]
    rows: tuple[Result, ...]
    pictures: Mapping[str, str] = field(default_factory=dict)  # image id -> path relative to results.json
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # image id -> what people wrote
    noise: Difference | None = None  # of one artifact measured as two alternatives
    harness_seconds: float | None = None  # what timing a caption adds to it, measured with nothing to caption
    forced_steps: int = 0  # of CAPTION_FORCED
    runtime_costs: Mapping[str, RuntimeCost] = field(default_factory=dict)
    rooflines: Mapping[str, Roofline] = field(default_factory=dict)  # by runtime
    hashes: Mapping[str, str] = field(default_factory=dict)  # code, suite, images
    # By kind of work: what everything that this run rests on took, whichever run did it; 0 where it was not noted.
    spent_seconds: Mapping[str, float] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def row_name(row: Result) -> str:
    """The slug of a row: its recipe and where it ran."""
    return f"{row.recipe} @ {row.runtime}"


def parity_rows(rows: Sequence[Result]) -> tuple[ParityRow, ...]:
    """What rows say of parity."""
    return tuple(
        ParityRow(
            row.recipe,
            row.runtime,
            (row.encoder.precision, row.decoder.precision),
            row.parity,
            row.parity_beam3,
            row.reason if row.parity is None else "",
        )
        for row in rows
    )
