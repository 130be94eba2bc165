"""The first thing a reader sees: what to ship, and under which conditions that was measured."""

from bench.result import Quality, Status, row_name
from reports.comparison import GATE, Comparison, beats_constant, cider_loss_ci95, full_precision_twin
from reports.report import Report
from reports.speed import speed_up
from reports.text import (
    enumerate_names,
    escape,
    megabytes_with_unit,
    milliseconds,
    name_text,
    percent,
    ratio,
    score,
)
from reports.trust import noise_text
from reports.waterfall import differences

# A file less than this much smaller is a conversion, not a compression.
COMPRESSED = 1.1

RULE = (
    f"Rule: among the measured rows that keep at least {GATE:.0%} of the baseline's CIDEr and beat the "
    "constant caption, the one with the largest size ratio times speed-up; within noise, fewer bytes decide. "
    "Under limits of your own: `captionbench recommend results.json --max-size 5MB --max-cider-drop 1%`."
).replace("% of", " % of")


def render_verdict(report: Report) -> str:
    """Two sentences: what to ship with what it gains, and what its captions are worth."""
    winner, baseline = report.winner, report.baseline
    if winner is None or baseline is None:
        return f"**Ship nothing from this run.** {_why_nothing(report)}"
    provisional = "Provisionally ship" if winner.row.status is Status.QUICK else "Ship"
    subject = f"**{provisional} {name_text(winner.name)}**"
    if winner.is_baseline:
        reason = _why_not_smaller(report)
        return f"{subject}, the baseline: {_size(winner)} and {_time(winner)}. {reason[0].upper()}{reason[1:]}"
    gains = f"{_size(winner)} ({_size_gain(winner)}) and {_time(winner)} ({_speed_gain(winner)})"
    return (
        f"{subject}: {gains}, against the baseline {name_text(baseline.name)} with {_size(baseline)} "
        f"and {_time(baseline)}. {_quality_sentence(report, winner)}"
    )


def _quality_sentence(report: Report, winner: Comparison) -> str:
    quality, base = winner.row.quality, report.baseline.row.quality if report.baseline else None
    if quality is None or base is None:
        return ""
    text = f"Its CIDEr is {_cider(quality)} against {_cider(base)}{_parity(winner, report)}"
    if (winner.size_ratio or 1) < COMPRESSED:
        return f"{text}; {_why_not_smaller(report)}"
    return f"{text}.{_gate_bound(quality, base)}"


def _gate_bound(quality: Quality, base: Quality) -> str:
    """What the paired interval says of the gate, which itself goes by the scores as measured."""
    lost = cider_loss_ci95(quality, base)
    if lost is None:
        return ""
    if lost[1] <= 0:
        return " On the same images it loses none of the baseline's CIDEr (95 %)."
    if lost[1] <= 1 - GATE:
        return (
            f" On the same images it loses at most {percent(lost[1])} of the baseline's CIDEr (95 %), within the gate."
        )
    return (
        f" On the same images it may lose up to {percent(lost[1])} of the baseline's CIDEr (95 %): "
        f"{quality.images} images can't prove that it is within the gate of {(1 - GATE) * 100:.0f} %."
    )


def _cider(quality: Quality) -> str:
    low, high = quality.cider_ci95
    return f"{score(quality.cider)} ± {score((high - low) / 2)}"


def _parity(winner: Comparison, report: Report) -> str:
    if winner.row.parity and winner.row.parity.reference != winner.name:
        share, other = winner.row.parity.captions_identical, winner.row.parity.reference
        return f", and {percent(share)} of its captions equal those of {name_text(other)} word for word"
    # It is the reference of its own weights: what the others say of it is the same comparison.
    for item in report.rows:
        if item is not winner and item.row.parity and item.row.parity.reference == winner.name:
            share = item.row.parity.captions_identical
            return f", and {percent(share)} of its captions are those of {name_text(item.name)} word for word"
    return "; no other row has the same weights, so its captions were compared with no other runtime's"


def _size(item: Comparison) -> str:
    return megabytes_with_unit(item.row.size_bytes.total) if item.row.size_bytes else "unknown size"


def _time(item: Comparison) -> str:
    return f"{milliseconds(item.caption.median if item.caption else None)} ms a caption"


def _size_gain(item: Comparison) -> str:
    value = item.size_ratio or 1.0
    if 1 / COMPRESSED < value < COMPRESSED:
        return "about the same size"
    return f"{ratio(value)} smaller" if value > 1 else f"{ratio(1 / value)} larger"


def _speed_gain(item: Comparison) -> str:
    gain = item.speed_up
    if gain is None or not gain.certain:
        return "no measurable difference in speed"
    return f"{ratio(gain.ratio)} faster" if gain.ratio > 1 else f"{ratio(1 / gain.ratio)} slower"


def _why_not_smaller(report: Report) -> str:
    """Why nothing that is compressed was chosen."""
    smaller = [c for c in report.rows if (c.size_ratio or 0) >= COMPRESSED and c.row.quality]
    if not smaller:
        return "no smaller artifact was measured."
    if any(item.in_gate for item in smaller):
        return "the smaller artifacts that keep its quality gain less in total, or have no sound timing."
    best = max(smaller, key=lambda item: item.row.quality.cider if item.row.quality else 0.0)
    cider = score(best.row.quality.cider if best.row.quality else None)
    return (
        f"no compressed artifact keeps {GATE * 100:.0f} % of the baseline's CIDEr; "
        f"the nearest is {name_text(best.name)} with {cider}."
    )


def _why_nothing(report: Report) -> str:
    baseline, results = report.baseline, report.results
    if baseline is None:
        return f"The baseline {name_text(results.baseline)} is not among the rows, so nothing can be compared."
    if baseline.row.quality and not beats_constant(baseline.row, results):
        return (
            f"The baseline {name_text(baseline.name)} does not beat one fixed sentence given to every image: "
            "train it for longer before compressing it."
        )
    reason = escape(baseline.row.reason) or "it lacks a size, a quality or a caption time"
    return f"The baseline {name_text(baseline.name)} can't be compared with ({baseline.row.status}: {reason})."


def render_choice(report: Report) -> str:
    """How the winner was chosen, which rows are as good, where its speed comes from, what to take."""
    parts = [RULE]
    if report.tied:
        names = enumerate_names([name_text(item.name) for item in report.tied])
        parts.append(f"As good within noise: {names}.")
    if report.winner:
        parts.append(_where_speed_comes_from(report, report.winner))
        if report.winner.row.sha256:
            parts.append(f"sha256 of the one to ship: {name_text(report.winner.row.sha256)}.")
    return " ".join(filter(None, parts))


def _where_speed_comes_from(report: Report, winner: Comparison) -> str:
    """The share of runtime, decode loop and captioner, and that of compression; only the last is owed to the recipe."""
    twin = full_precision_twin(winner, report.rows)
    if twin is None or twin.is_baseline or not (twin.speed_up and winner.speed_up):
        return ""
    share = speed_up(winner.row, twin.row, report.results)
    gained = ratio(share.ratio) if share and share.certain else "nothing that can be told from noise"
    return (
        f"Of its {ratio(winner.speed_up.ratio)} in speed, {_changed(report, twin)} gives {ratio(twin.speed_up.ratio)} "
        f"({name_text(twin.name)}) and compression {gained}."
    )


def _changed(report: Report, twin: Comparison) -> str:
    """What lies between the baseline and the full-precision row: it is not compression."""
    base = next((item.row for item in report.rows if item.is_baseline), twin.row)
    *others, last = [str(change) for change in differences(base, twin.row)] or ["file"]
    return f"changing the {', '.join(others)}{' and ' if others else ''}{last}"


def render_conditions(report: Report) -> str:
    """What must stand beside every speed: threads, CPU and runtime versions."""
    results = report.results
    environment, plan = results.environment, results.run_plan
    versions = sorted({(row.runtime, row.runtime_version) for row in results.rows if row.runtime_version})
    runtimes = ", ".join(name_text(f"{name} {version}") for name, version in versions)
    isa = ", ".join(name_text(name) for name in environment.isa) or "no ISA flags known"
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    return (
        f"Speeds: {threads} on {escape(environment.cpu)} ({isa}), batch 1, {runtimes}; medians with their "
        f"95 % intervals{_paired(report)}. {noise_text(results)}"
    )


def _paired(report: Report) -> str:
    if not any(item.speed_up and item.speed_up.ci99 for item in report.rows if not item.is_baseline):
        return ""
    return ", speed-ups with 99 % intervals over paired rounds"


def row_label(report: Report, item: Comparison) -> str:
    """The name of a row in the headline table, with its part in the story."""
    text = name_text(row_name(item.row))
    if item is report.winner:
        text = f"**{text}** ← ship"
    return f"{text} (baseline)" if item.is_baseline else text
