"""What was timed, as tables: phases, whole captions with percentiles, throughput, and what runtimes cost. Pure."""

from collections.abc import Sequence

from bench.measurement import Latency, Percentile, Phase, Throughput
from reports.comparison import Comparison
from reports.report import Report
from reports.text import DASH, interval, median_with_interval, megabytes, milliseconds, name_text, table

_PHASE_NAMES = {
    Phase.LOAD: "load",
    Phase.FIRST_CAPTION: "first caption",
    Phase.PREPROCESS: "preprocess",
    Phase.ENCODE: "encode",
    Phase.STEP: "step",
    Phase.DECODE: "decode",
    Phase.CAPTION: "caption",
}
PERCENTILES = ("p90", "p95", "p99")
OFFLINE = "offline"


def latency_table(report: Report) -> str:
    """Every phase, each timed on its own, and the peak memory."""
    headers = ("recipe @ runtime", *(f"{name} (ms)" for name in _PHASE_NAMES.values()), "peak memory (MB)")
    rows = [item for item in report.rows if item.row.latency_seconds or item.row.memory]
    cells = []
    for item in rows:
        memory = item.row.memory
        phases = [_median_with_p90(item.row.latency_seconds.get(phase)) for phase in _PHASE_NAMES]
        peak = f"{memory.peak_rss_bytes / 1e6:.0f}" if memory else DASH
        cells.append([name_text(item.name), *phases, peak])
    return table(headers, cells) if cells else ""


def _median_with_p90(latency: Latency | None) -> str:
    if latency is None:
        return DASH
    text = milliseconds(latency.median)
    p90 = latency.percentiles.get("p90")
    return f"{text} (p90 {milliseconds(p90.seconds)})" if p90 else text


def caption_table(report: Report) -> str:
    """Whole captions as they come, and beside them all of one length; empty where neither was timed over rounds."""
    rows = [item for item in report.rows if _forced(item) or _has_percentile_intervals(item)]
    if not rows:
        return ""
    columns = [name for name in PERCENTILES if any(_percentile(item.caption, name) for item in rows)]
    forced = [name for name in PERCENTILES if any(_percentile(_forced(item), name) for item in rows)]
    steps = f"{report.results.forced_steps} steps each"
    headers = ["recipe @ runtime", "caption (ms)", *columns]
    if any(_forced(item) for item in rows):
        headers += [f"{steps} (ms)", *(f"{name}, {steps}" for name in forced)]
    cells = [
        [name_text(item.name), *_times(item.caption, columns), *_times(_forced(item), forced)][: len(headers)]
        for item in rows
    ]
    return table(headers, cells) if cells else ""


def _forced(item: Comparison) -> Latency | None:
    return item.row.latency_seconds.get(Phase.CAPTION_FORCED)


def _has_percentile_intervals(item: Comparison) -> bool:
    return item.caption is not None and any(p.ci95 for p in item.caption.percentiles.values())


def _percentile(latency: Latency | None, name: str) -> Percentile | None:
    return latency.percentiles.get(name) if latency else None


def _times(latency: Latency | None, percentiles: Sequence[str]) -> list[str]:
    return [median_with_interval(latency), *(_percentile_text(_percentile(latency, name)) for name in percentiles)]


def _percentile_text(percentile: Percentile | None) -> str:
    if percentile is None:
        return DASH
    text = milliseconds(percentile.seconds)
    return f"{text} {interval(percentile.ci95, milliseconds)}" if percentile.ci95 else text


def throughput_table(report: Report) -> str:
    """Images a second by size of batch, and offline; empty where no row was measured so."""
    entries = [entry for item in report.rows for entry in item.row.throughput]
    columns = sorted({(entry.scenario == OFFLINE, entry.batch) for entry in entries})
    headers = [f"{f'offline, {batch} files' if offline else f'batch {batch}'} (images/s)" for offline, batch in columns]
    cells = [
        [name_text(item.name), *(_images_per_second(item.row.throughput, *column) for column in columns)]
        for item in report.rows
        if item.row.throughput
    ]
    return table(("recipe @ runtime", *headers), cells) if cells else ""


def _images_per_second(entries: Sequence[Throughput], offline: bool, batch: int) -> str:
    found = next((e for e in entries if (e.scenario == OFFLINE, e.batch) == (offline, batch)), None)
    if found is None:
        return DASH
    text = f"{found.images_per_second:.1f}"
    return f"{text} {interval(found.ci95, '{:.1f}'.format)}" if found.ci95 else text


def runtime_table(report: Report) -> str:
    """What each runtime costs before any model; empty where not known."""
    costs = report.results.runtime_costs
    cells = [
        [
            name_text(name),
            name_text(cost.version),
            megabytes(cost.install_bytes),
            f"{cost.import_seconds:.2f}",
            megabytes(cost.import_rss_bytes),
        ]
        for name, cost in sorted(costs.items())
    ]
    headers = ("runtime", "version", "installed (MB)", "import (s)", "import (MB of memory)")
    return table(headers, cells, words=(0, 1)) if cells else ""
