"""What a reader must know before trusting the numbers: a closed list, each with what to do about it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.measurement import Phase
from bench.parity.record import Cause
from bench.result import Result, Results, Status, row_name
from reports.comparison import (
    Comparison,
    beats_constant,
    full_precision_twin,
    is_full_precision,
    same_weights,
)
from reports.slow_reasons import explain_slower
from reports.speed import SpeedUp, speed_up
from reports.text import enumerate_names, escape, interval, name_text, percent, spread

# Above this half-width, relative to CIDEr, the quality gate of 1 % says little.
WIDE_INTERVAL = 0.10
# Stopping early looks like speed; see the run's caption lengths.
LENGTH_TOLERANCE = 0.10
# Above this floor the run can't tell apart what a reader would call a clear difference.
HIGH_NOISE = 0.05
# Of a row's samples: with fewer left than left out, the intervals are wide.
MUCH_LEFT_OUT = 0.5


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
    NOISY = "noise floor high"
    LEFT_OUT = "much of the timing was left out"


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
    if not results.run_plan.quick:
        remedy = "Measure again on a calmer machine, or for longer, before you compare these speeds."
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
    alike: dict[tuple[str, bool, bool], list[tuple[float, Comparison]]] = {}
    for item in rows:
        mine = item.row.quality
        change = mine.caption_length_mean / quality.caption_length_mean - 1 if mine else 0.0
        if abs(change) > LENGTH_TOLERANCE and not _says_length(item.row):
            # Rows of one captioner say the same: its loop in Keras and its INT8 file stop at the same word.
            key = (item.row.captioner, change > 0, Phase.CAPTION_FORCED in item.row.latency_seconds)
            alike.setdefault(key, []).append((abs(change), item))
    for (_, longer, forced), found in alike.items():
        changes = [change for change, _ in found]
        shares = dict.fromkeys(percent(change) for change in (min(changes), max(changes)))
        word = "longer" if longer else "shorter"
        text = f"{_names([item for _, item in found])}: captions are {' to '.join(shares)} {word} than the baseline's"
        fair = "captions of equal length" if forced else "the decode step"
        remedy = f"Compare {fair}, not whole captions: fewer words look like speed."
        yield Caution(CautionKind.LENGTH, text, remedy)


def _says_length(row: Result) -> bool:
    """Whether the row is invalid for its length: then its reason is given already."""
    return row.status is Status.INVALID and bool(re.search(r"captions are \S+ %? ?(longer|shorter)", row.reason))


def _slower(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    alike: dict[str, list[_Slowed]] = {}
    for item in rows:
        full = full_precision_twin(item, rows)
        faster = speed_up(item.row, full.row, results) if full else None
        if full and faster and faster.certain and faster.ratio < 1:
            reason = explain_slower(item, full, results).rstrip(".")
            # Rows that are slow for the same reason, by other numbers, share a line.
            alike.setdefault(re.sub(r"\d[\d.]*", "#", reason), []).append(_Slowed(item, full, faster, reason))
    remedy = "Use fp32 on this runtime, or another precision whose kernels this CPU has."
    for found in alike.values():
        yield Caution(CautionKind.SLOWER, _slower_text(found), remedy)


@dataclass(frozen=True, slots=True)
class _Slowed:
    """A quantized row that is slower than its fp32 row, and why."""

    item: Comparison
    full: Comparison
    faster: SpeedUp
    reason: str


def _slower_text(found: Sequence[_Slowed]) -> str:
    first = found[0]
    times = spread([1 / each.faster.ratio for each in found], "{:.2f}".format)
    names = _names([each.item for each in found])
    if len(found) > 1:
        return f"{names}: quantized, yet {times} times the time of their fp32 rows. The first: {first.reason}"
    text = f"{names}: quantized, yet {times} times the time of {name_text(first.full.name)}"
    if first.faster.ci99:
        text += f" {interval((1 / first.faster.ci99[1], 1 / first.faster.ci99[0]), '{:.2f}'.format)}"
    return f"{text}. {first.reason}"


def _mismatch(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    by_name = {row_name(row): row for row in results.rows}
    for item in rows:
        parity = item.row.parity
        reference = by_name.get(parity.reference) if parity else None
        if parity is None or reference is None or not is_full_precision(item.row):
            continue
        ties = set(parity.causes.values()) == {Cause.TIE_FLIP}
        if same_weights(item.row, reference) and parity.captions_identical < 1 and not ties:
            text = (
                f"{name_text(item.name)}: the same fp32 model gives other captions than "
                f"{name_text(parity.reference)} for {percent(1 - parity.captions_identical)} of the images"
            )
            remedy = "Read the causes below: rounding flips ties, more than that is a bug."
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


def _noisy(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    floor = results.noise_floor
    if floor is not None and floor > HIGH_NOISE:
        text = (
            f"one artifact measured as two came out {percent(floor)} apart, so a speed-up below {1 + floor:.2f}x means "
            "nothing here"
        )
        remedy = "Stop other work on the machine, or raise the plan's rounds and minimum_seconds, and run again."
        yield Caution(CautionKind.NOISY, text, remedy)


def _much_left_out(results: Results, rows: Rows, baseline: Comparison | None) -> Iterator[Caution]:
    found = [(row.disturbance.slowed, item) for item in rows if (row := item.row).disturbance]
    most = sorted((each for each in found if each[0] > MUCH_LEFT_OUT), key=lambda each: -each[0])
    if most:
        share = f"{'up to ' if len(most) > 1 else ''}{percent(most[0][0])}"
        text = (
            f"{_names([item for _, item in most])}: {share} of the samples were taken while the machine ran below its "
            "best, and do not count"
        )
        remedy = "What is left is sound but little: run again when the machine is quieter, or raise minimum_seconds."
        yield Caution(CautionKind.LEFT_OUT, text, remedy)


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
    _noisy,
    _much_left_out,
)
