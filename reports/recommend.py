"""What to ship within limits: answers in order, ties shown, and a reason for every row that is no answer. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bench.result import Results
from models.errors import ConfigError
from reports.comparison import MEASURED, Comparison, beats_constant, cider_loss_ci95
from reports.report import Report, is_as_good, make_report
from reports.speed import Rank, group_ties, rank_groups
from reports.text import megabytes_with_unit, milliseconds, percent, ratio

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_LATENCY = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>us|µs|ms|s)")


@dataclass(frozen=True, slots=True)
class Limits:
    """What must be kept; None where anything will do. `cider_drop` is a share of the baseline's CIDEr."""

    size: int | None = None
    seconds: float | None = None
    cider_drop: float = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """A row within all limits, its rank, and what is not sure about it."""

    row: str
    place: int
    tied: bool
    bytes: int
    seconds: float
    size_ratio: float
    speed_up: float
    cider: float
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A row that is no answer, and why."""

    row: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Answers, best first; `excluded` in the report's order."""

    limits: Limits
    baseline: str
    answers: tuple[Answer, ...]
    excluded: tuple[Exclusion, ...]

    def to_json(self) -> str:
        """All of it, for programs."""
        return json.dumps(asdict(self), indent=1)


def parse_latency(text: str) -> float:
    """Seconds of `20ms`, `0.5 s` or `800us`. Raises ConfigError."""
    match = _LATENCY.fullmatch(text.strip().lower())
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(
            f"--max-latency is a time above zero with a unit, as in 20ms, 0.5s or 800us; received '{text}'."
        )
    return seconds


def recommend(results: Results, limits: Limits) -> Recommendation:
    """Rank what keeps the limits by its gain: how many times smaller, times how many times faster.

    Rows whose gain can't be told from that of the first of their group share a rank, and fewer bytes come first.
    """
    report = make_report(results)
    reasons = {item.name: tuple(_reasons(item, report, limits)) for item in report.rows}
    kept = sorted((item for item in report.rows if not reasons[item.name]), key=_order)
    groups = group_ties(kept, lambda first, item: is_as_good(item, first, results))
    ranked = rank_groups([sorted(group, key=_bytes) for group in groups])
    return Recommendation(
        limits,
        results.baseline,
        tuple(_answer(item, rank, report, limits) for item, rank in ranked),
        tuple(Exclusion(name, told) for name, told in reasons.items() if told),
    )


def _order(item: Comparison) -> tuple[float, int, str]:
    return -(item.gain or 0.0), _bytes(item), item.name


def _bytes(item: Comparison) -> int:
    return item.row.size_bytes.total if item.row.size_bytes else 0


def _reasons(item: Comparison, report: Report, limits: Limits) -> Iterator[str]:
    """Why a row is no answer; none when it is one."""
    row, base = item.row, report.baseline
    if row.status not in MEASURED:
        yield f"{row.status}: {row.reason}"
        return
    if base is None or base.row.quality is None or row.quality is None or item.gain is None:
        yield "there is no baseline to judge it by"
        return
    if limits.size is not None and _bytes(item) > limits.size:
        yield f"{megabytes_with_unit(_bytes(item))}, over {megabytes_with_unit(limits.size)}"
    if limits.seconds is not None and item.caption and item.caption.median > limits.seconds:
        yield f"{milliseconds(item.caption.median)} ms a caption, over {milliseconds(limits.seconds)} ms"
    lost = 1 - row.quality.cider / base.row.quality.cider if base.row.quality.cider > 0 else 0.0
    if lost > limits.cider_drop:
        yield f"loses {percent(lost)} of the baseline's CIDEr, over {percent(limits.cider_drop)}"
    if not beats_constant(row, report.results):
        yield "no better than one sentence given to every image"


def _answer(item: Comparison, rank: Rank, report: Report, limits: Limits) -> Answer:
    caption, faster, quality = item.caption, item.speed_up, item.row.quality
    assert caption is not None and faster is not None and quality is not None, "or it would have been left out"  # noqa: PT018
    return Answer(
        item.name,
        rank.place,
        rank.tied,
        _bytes(item),
        caption.median,
        item.size_ratio or 0.0,
        faster.ratio,
        quality.cider,
        tuple(_doubts(item, report, limits)),
    )


def _doubts(item: Comparison, report: Report, limits: Limits) -> Iterator[str]:
    """What an interval does not rule out."""
    if item.row.status != "valid":
        yield f"{item.row.status}: {item.row.reason}"
    if limits.seconds is not None and item.caption and item.caption.ci95[1] > limits.seconds:
        yield f"its time may be {milliseconds(item.caption.ci95[1])} ms"
    base = report.baseline.row.quality if report.baseline else None
    loss = cider_loss_ci95(item.row.quality, base) if item.row.quality and base else None
    if loss is not None and loss[1] > limits.cider_drop:
        yield f"it may lose {percent(loss[1])} of CIDEr"


def describe(found: Recommendation) -> list[str]:
    """Lines for a terminal: answers with their reasons, then what was left out."""
    asked = [f"at most {megabytes_with_unit(found.limits.size)}"] if found.limits.size else []
    asked += [f"at most {milliseconds(found.limits.seconds)} ms a caption"] if found.limits.seconds else []
    asked += [f"at most {percent(found.limits.cider_drop)} of CIDEr lost against {found.baseline}"]
    lines = [f"Asked for: {', '.join(asked)}.", ""]
    lines += [_line(answer) for answer in found.answers] or ["No row keeps these limits."]
    if found.excluded:
        lines += ["", "Left out:", *(f"  {out.row}: {'; '.join(out.reasons)}" for out in found.excluded)]
    return lines


def _line(answer: Answer) -> str:
    place = f"{answer.place}{'=' if answer.tied else ' '}"
    doubts = f" ({'; '.join(answer.doubts)})" if answer.doubts else ""
    return (
        f"{place} {answer.row}: {megabytes_with_unit(answer.bytes)} ({ratio(answer.size_ratio)} smaller), "
        f"{milliseconds(answer.seconds)} ms ({ratio(answer.speed_up)} faster), CIDEr {answer.cider:.3f}{doubts}"
    )
