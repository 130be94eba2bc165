"""What a reader must know before trusting the numbers: a closed list, each with what to do about it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.result import Results, Status, row_name
from reports.comparison import (
    Comparison,
    beats_constant,
    differs,
    full_precision_twin,
    is_full_precision,
    same_weights,
)
from reports.text import enumerate_names, escape, name_text, percent

# Above this half-width, relative to CIDEr, the quality gate of 1 % says little.
WIDE_INTERVAL = 0.10
# Stopping early looks like speed; see the run's caption lengths.
LENGTH_TOLERANCE = 0.10


class CautionKind(StrEnum):
    """Everything a report warns of."""

    QUICK = "quick timings"
    INVALID = "invalid rows"
    CONSTANT = "no better than a constant caption"
    COLLAPSED = "collapsed captions"
    WIDE = "wide quality interval"
    LENGTH = "caption length changed"
    SLOWER = "quantized but slower"
    MISMATCH = "conversion changed captions"
    OVERFLOW = "wrong on other processors"
    NOISE = "noise floor unknown"


@dataclass(frozen=True, slots=True)
class Caution:
    """One warning (Markdown) and its remedy."""

    kind: CautionKind
    text: str
    remedy: str


Rows = Sequence[Comparison]


def find_cautions(results: Results, rows: Rows, baseline: Comparison | None) -> tuple[Caution, ...]:
    """Run every check, in the order of CautionKind."""
    return tuple(caution for check in _CHECKS for caution in check(results, rows, baseline))


def _quick(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    remedy = "Run again without `--quick` before you compare speeds."
    yield from _by_reason(CautionKind.QUICK, Status.QUICK, rows, remedy)


def _invalid(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    remedy = "Do not quote these timings: free the machine of other work and measure the rows again."
    yield from _by_reason(CautionKind.INVALID, Status.INVALID, rows, remedy)


def _by_reason(kind: CautionKind, status: Status, rows: Rows, remedy: str) -> Iterator[Caution]:
    reasons: dict[str, list[Comparison]] = {}
    for item in rows:
        if item.row.status is status:
            # Rows that differ by their numbers only share a line.
            reasons.setdefault(re.sub(r"\d[\d.]*", "#", item.row.reason), []).append(item)
    for items in reasons.values():
        reason = items[0].row.reason
        example = "" if len({item.row.reason for item in items}) == 1 else " (the first; the others are alike)"
        yield Caution(kind, f"{_names(items)}: {escape(reason) or 'no reason given'}{example}", remedy)


def _constant(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    worse = [item for item in rows if item.row.quality and not beats_constant(item.row, results)]
    if worse:
        text = f"{_names(worse)}: CIDEr is not above that of one fixed sentence given to every image"
        remedy = "Do not ship: train the captioner for longer, or compress it less."
        yield Caution(CautionKind.CONSTANT, text, remedy)


def _collapsed(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    for item in rows:
        quality = item.row.quality
        if item.collapsed and quality and beats_constant(item.row, results):
            text = (
                f"{name_text(item.name)}: {quality.distinct_captions} different captions for {quality.images} images, "
                "less than half of the uncompressed captioner's"
            )
            remedy = "Do not ship: compress it less, or fine-tune it for longer."
            yield Caution(CautionKind.COLLAPSED, text, remedy)


def _wide(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    quality = baseline.row.quality if baseline else None
    if quality is None:
        return
    half_width = (quality.cider_ci95[1] - quality.cider_ci95[0]) / 2
    if half_width > WIDE_INTERVAL * quality.cider:
        text = (
            f"the baseline's CIDEr is only known to ± {half_width:.3f} from {quality.images} images, "
            "so a 1 % loss can't be told from chance"
        )
        yield Caution(CautionKind.WIDE, text, "Measure on more test images before you rely on the gate.")


def _length(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    quality = baseline.row.quality if baseline else None
    if quality is None or quality.caption_length_mean <= 0:
        return
    for item in rows:
        mine = item.row.quality
        change = mine.caption_length_mean / quality.caption_length_mean - 1 if mine else 0.0
        if abs(change) > LENGTH_TOLERANCE:
            word = "longer" if change > 0 else "shorter"
            text = f"{name_text(item.name)}: captions are {percent(abs(change))} {word} than the baseline's"
            remedy = "Compare its decode step, not its whole caption: fewer words look like speed."
            yield Caution(CautionKind.LENGTH, text, remedy)


def _slower(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    for item in rows:
        full = full_precision_twin(item, rows)
        mine, base = item.caption, full.caption if full else None
        if full and mine and base and mine.median > base.median and differs(mine, base, results.noise_floor):
            text = (
                f"{name_text(item.name)}: quantized, yet {mine.median / base.median:.2f} times the time "
                f"of {name_text(full.name)}"
            )
            remedy = "Use fp32 on this runtime, or another precision whose kernels this CPU has."
            yield Caution(CautionKind.SLOWER, text, remedy)


def _mismatch(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    by_name = {row_name(row): row for row in results.rows}
    for item in rows:
        parity = item.row.parity
        reference = by_name.get(parity.reference) if parity else None
        if parity is None or reference is None or not is_full_precision(item.row):
            continue
        if same_weights(item.row, reference) and parity.captions_identical < 1:
            text = (
                f"{name_text(item.name)}: the same fp32 model gives other captions than "
                f"{name_text(parity.reference)} for {percent(1 - parity.captions_identical)} of the images"
            )
            remedy = "Read the divergences below: fp32 rounding flips near ties, more than that is a bug."
            yield Caution(CautionKind.MISMATCH, text, remedy)


def _overflow(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    found = [item for item in rows if item.row.coverage.overflow_observed]
    if found:
        text = (
            f"{_names(found)}: INT8 sums of some layers leave 16 bits, which x86 CPUs without VNNI "
            "do not notice, so captions measured here are not those that they would give"
        )
        remedy = "For such CPUs build `int8_static(reduce_range)`; see the section on what is really integer."
        yield Caution(CautionKind.OVERFLOW, text, remedy)


def _noise(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    if results.noise_floor is None:
        text = "the run has no noise floor: nothing shows how far two identical artifacts drift apart"
        remedy = "Measure the baseline twice (A/A) before you trust speed-ups below 1.1x."
        yield Caution(CautionKind.NOISE, text, remedy)


def _names(items: Rows) -> str:
    return enumerate_names([name_text(item.name) for item in items])


_Check = Callable[[Results, Rows, Comparison | None], Iterator[Caution]]
_CHECKS: tuple[_Check, ...] = (
    _quick,
    _invalid,
    _constant,
    _collapsed,
    _wide,
    _length,
    _slower,
    _mismatch,
    _overflow,
    _noise,
)
