"""What a suite run found: result rows and what stands around them.

Units are in the names, raw samples are kept, and nothing is stored that can't be traced to them.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# History of the file format; a reader refuses what it does not know.
#   1  first format
#   2  captioners carry their technique, what it reached and what it cost; rows carry a note
#   3  samples know their round, percentiles have intervals, differences are paired by rounds; rows say what disturbed
#      them, where their time goes and what they compute; the head has hashes, load, runtimes' costs and limits
FORMAT_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)


class Status(StrEnum):
    """What a row is worth. Everything but VALID carries a reason."""

    VALID = "valid"
    QUICK = "quick"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


class Phase(StrEnum):
    """What is timed, each on its own; none is got by subtraction."""

    LOAD = "load"  # files -> sessions, in a fresh process
    FIRST_CAPTION = "first_caption"  # the first caption after loading
    PREPROCESS = "preprocess"  # encoded file -> tensor
    ENCODE = "encode"  # tensor -> features and initial state
    STEP = "step"  # one word
    DECODE = "decode"  # features -> caption, greedy
    CAPTION = "caption"  # encoded file -> caption, greedy
    CAPTION_FRESH = "caption_fresh"  # the first time that a process captions an image: a cache would show
    CAPTION_FORCED = "caption_forced"  # the same, but every image takes the same number of steps
    BATCH_1 = "batch_1"  # tensors -> captions, so many images at once
    BATCH_8 = "batch_8"
    BATCH_32 = "batch_32"
    OFFLINE = "offline"  # all timed images' files -> captions, in one batch


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
class Divergence:
    """One image whose caption is not the reference runtime's."""

    image: str
    reference_caption: str
    caption: str
    first_step: int


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement with the reference row, string by string; shares are 0..1.

    `max_abs_difference` is over the features and first logits of the same input tensors.
    """

    reference: str
    captions_identical: float
    tokens_identical: float
    max_abs_difference: float | None
    divergences: tuple[Divergence, ...] = ()


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of raw seconds, with a 95 % interval (bootstrap over rounds; None for a single round)."""

    seconds: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Raw seconds of one phase and what they say.

    `median` is that of the rounds' medians and `ci95` its interval (order statistics over rounds; over samples
    where there is one round). `rounds` counts the samples of each round, in order; () stands for a single one.
    """

    median: float
    ci95: tuple[float, float]
    n: int
    samples: tuple[float, ...]
    rounds: tuple[int, ...] = ()
    percentiles: Mapping[str, Percentile] = field(default_factory=dict)  # "p90": only of enough samples

    @property
    def by_round(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round, in time order."""
        ends = list(itertools.accumulate(self.rounds or (self.n,)))
        return tuple(self.samples[start:end] for start, end in zip([0, *ends], ends, strict=False))


@dataclass(frozen=True, slots=True)
class Difference:
    """The share by which a median exceeds another (0.1: 10 % slower), rounds paired, with its 99 % interval."""

    relative: float
    ci99: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Captions a second when images come in batches, with the 95 % interval of the median batch."""

    batch: int
    images_per_second: float
    ci95: tuple[float, float] | None = None
    scenario: str = "batch"  # "batch": tensors at hand; "offline": all files at once


@dataclass(frozen=True, slots=True)
class Memory:
    """The process that loaded this artifact and captioned with it."""

    peak_rss_bytes: int
    loaded_bytes: int | None = None  # by how much loading grew it, the runtime itself imported before


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What else the machine did while a row was timed; means over that time."""

    other_cores: float  # cores that other processes kept busy
    stolen_cores: float  # cores that the hypervisor gave to others
    throttled: float  # share of the time in which the container's quota held processes back
    slowed: float = 0.0  # share of samples left out, because a known loop beside them was slower than at its best


@dataclass(frozen=True, slots=True)
class GraphProfile:
    """Where a graph's time goes, by the runtime's own profiler; `reason` says why it is not known."""

    shares: Mapping[str, float]  # kind of arithmetic, or data movement -> share 0..1
    top: tuple[tuple[str, float], ...]  # operators that take most, with their shares
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GraphWork:
    """What one run of a graph has to do: an image for an encoder, a word for a step."""

    multiply_adds: Mapping[str, int]  # arithmetic -> number
    weight_bytes: int


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
class RunPlan:
    """How a suite is measured; recorded with the results.

    One process a row and round. `cpus` pins it to logical CPUs; () leaves that to the system. Python's garbage
    collector stays on while timing, as it would in use, and collects once before.
    """

    threads: int = 2  # of an operator (intra); operators run one after the other
    rounds: int = 12
    warmup: int = 3
    minimum_samples: int = 64
    minimum_seconds: float = 10.0
    seed: int = 2012
    quick: bool = False
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and the software a run was made with."""

    cpu: str
    cores: int
    isa: tuple[str, ...]  # instruction sets that matter for inference: avx2, avx512_vnni, ...
    memory_bytes: int
    system: str
    python: str
    packages: Mapping[str, str]  # "onnxruntime" -> "1.32.0", of the environment that ran it
    governor: str = ""  # of the CPU's frequency, "" where it can't be read
    hypervisor: bool = False
    cpu_limit: float | None = None  # cores that the container may use, None without a limit
    memory_limit_bytes: int | None = None  # of the container
    load_before: tuple[float, ...] = ()  # 1, 5 and 15 minutes' load average, before the timing
    load_after: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeCost:
    """What a runtime costs before any model: disk of the package and all it needs, and a new process to import it."""

    version: str
    install_bytes: int
    import_seconds: float
    import_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Roofline:
    """The most that this machine does on a runtime at the run's threads, measured with plain kernels."""

    threads: int
    fp32_macs_per_second: float | None
    int8_macs_per_second: float | None
    bytes_per_second: float | None
    kernels: str  # what was run
    reason: str = ""  # why something is None


@dataclass(frozen=True, slots=True)
class Example:
    """One test image shown in the report. `references` is empty where the licence forbids."""

    image: str
    references: tuple[str, ...]
    picture: str  # path of the picture relative to results.json, "" where none may be shown


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
    noise: Difference | None = None  # of one artifact measured as two alternatives
    harness_seconds: float | None = None  # what timing a caption adds to it, measured with nothing to caption
    forced_steps: int = 0  # of CAPTION_FORCED
    runtime_costs: Mapping[str, RuntimeCost] = field(default_factory=dict)
    rooflines: Mapping[str, Roofline] = field(default_factory=dict)  # by runtime
    hashes: Mapping[str, str] = field(default_factory=dict)  # code, suite, images
    format_version: int = FORMAT_VERSION


def row_name(row: Result) -> str:
    """The slug of a row: its recipe and where it ran."""
    return f"{row.recipe} @ {row.runtime}"
