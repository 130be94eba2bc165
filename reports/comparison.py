"""One row set beside the baseline: ratios and differences, and whether it may be shipped."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measurement import Latency, Phase
from bench.quality import COLLAPSED_SHARE
from bench.result import Quality, Result, Results, row_name
from reports.speed import MEASURED as MEASURED
from reports.speed import SpeedUp, speed_up

# A compressed captioner may lose at most 1 % of the baseline's CIDEr.
GATE = 0.99


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row and what follows from setting it beside the baseline; None where not known."""

    row: Result
    name: str
    is_baseline: bool
    size_ratio: float | None  # baseline's bytes over this row's
    speed_up: SpeedUp | None
    captions_identical: float | None
    in_gate: bool | None  # keeps the quality and beats the constant caption
    collapsed: bool  # says the same few sentences, or nothing better than a constant one

    @property
    def caption(self) -> Latency | None:
        """Time of a whole caption."""
        return self.row.latency_seconds.get(Phase.CAPTION)

    @property
    def gain(self) -> float | None:
        """Size ratio times speed-up: what the winner has most of."""
        if self.size_ratio is None or self.speed_up is None:
            return None
        return self.size_ratio * self.speed_up.ratio


def compare(row: Result, results: Results, baseline: Result | None) -> Comparison:
    """Set one row beside the baseline."""
    base = baseline or row
    known = baseline is not None
    both = known and row.quality is not None and base.quality is not None
    return Comparison(
        row=row,
        name=row_name(row),
        is_baseline=row is baseline,
        size_ratio=size_ratio(row, base) if known else None,
        speed_up=speed_up(row, base, results) if known else None,
        captions_identical=row.parity.captions_identical if row.parity else None,
        in_gate=passes_gate(row, base, results) if both else None,
        collapsed=has_collapsed(row, results),
    )


def size_ratio(row: Result, baseline: Result) -> float | None:
    """How many times smaller than the baseline."""
    if row.size_bytes is None or baseline.size_bytes is None or row.size_bytes.total <= 0:
        return None
    return baseline.size_bytes.total / row.size_bytes.total


def passes_gate(row: Result, baseline: Result, results: Results) -> bool:
    """Whether a row keeps the baseline's CIDEr and beats one sentence given to every image."""
    if row.quality is None or baseline.quality is None:
        return False
    return keeps_quality(row.quality.cider, baseline.quality.cider) and beats_constant(row, results)


def keeps_quality(cider: float, baseline_cider: float) -> bool:
    """The gate's rule, on the scores as measured."""
    return cider >= GATE * baseline_cider


def cider_loss_ci95(quality: Quality, baseline: Quality) -> tuple[float, float] | None:
    """95 % interval of the share of the baseline's CIDEr that is lost, below 0 for a gain; None where not known."""
    if quality.cider_difference_ci95 is None or baseline.cider <= 0:
        return None
    low, high = quality.cider_difference_ci95
    return -high / baseline.cider, -low / baseline.cider


def beats_constant(row: Result, results: Results) -> bool:
    """Whether CIDEr is above the constant caption's (true where that is not known)."""
    floor = results.constant_caption.quality.cider if results.constant_caption else float("-inf")
    return row.quality is not None and row.quality.cider > floor


def has_collapsed(row: Result, results: Results) -> bool:
    """Whether a compressed captioner lost half of its different captions, or does not beat a constant one.

    Four pruned captioners of the 2020 study gave one sentence to every image, and their BLEU did not tell.
    """
    if row.quality is None or (not is_compressed(row) and is_full_precision(row)):
        return False
    dense = next((r.quality for r in results.rows if r.quality and _is_dense_twin(r, row)), None)
    few = dense is not None and row.quality.distinct_captions < COLLAPSED_SHARE * dense.distinct_captions
    return few or not beats_constant(row, results)


def _is_dense_twin(one: Result, row: Result) -> bool:
    return one.captioner == row.captioner and is_full_precision(one) and not is_compressed(one)


def technique_of(row: Result) -> str:
    """What was done in Keras: one chain for both halves, or the encoder's and the decoder's."""
    encoder, decoder = row.encoder.technique, row.decoder.technique
    return encoder if encoder == decoder else f"{encoder}/{decoder}"


def is_compressed(row: Result) -> bool:
    """Whether a technique was applied in Keras."""
    return {row.encoder.technique, row.decoder.technique} != {"none"}


def is_full_precision(row: Result) -> bool:
    """Whether both halves compute in fp32."""
    return row.encoder.precision == row.decoder.precision == "fp32"


def same_weights(one: Result, other: Result) -> bool:
    """Whether two rows are one model converted for two runtimes."""
    return (one.captioner, one.encoder, one.decoder) == (other.captioner, other.encoder, other.decoder)


def full_precision_twin(item: Comparison, rows: Sequence[Comparison]) -> Comparison | None:
    """The fp32 row of the same captioner, runtime and graph: after the same technique, else uncompressed."""
    row = item.row
    if is_full_precision(row):
        return None
    twins = [
        other
        for other in rows
        if is_full_precision(other.row)
        and (other.row.captioner, other.row.runtime, other.row.graph) == (row.captioner, row.runtime, row.graph)
    ]
    same = [other for other in twins if technique_of(other.row) == technique_of(row)]
    uncompressed = [other for other in twins if not is_compressed(other.row)]
    return next(iter([*same, *uncompressed]), None)
