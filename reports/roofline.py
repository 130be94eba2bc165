"""The section on how near each graph comes to what the machine can do: what arithmetic takes, what bytes, what calls.

The rule: a graph takes at least as long as its multiply-adds at the best rate of their arithmetic, and at least as long
as the bytes of its weights at the best rate of reading; the longer of the two binds. The best rate of reading is that
of the kernel that read fastest, mostly one whose weights stay in a cache, as a decoder's do from word to word. It holds
for graphs of every size; a graph larger than the caches reads from memory, and can't come near it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.measurement import GraphWork, Phase
from bench.result import Result
from bench.setting import Roofline
from convert.artifact import ENCODER
from convert.ledger_parts import INTEGER
from convert.recipe import Graph
from reports.comparison import MEASURED, Comparison, same_weights
from reports.report import Report
from reports.text import DASH, escape, megabytes, milliseconds, name_text, percent, table
from reports.verdict import render_conditions

NOTE = (
    "Limits are upper ones: the shortest of many runs of plain layers on the same runtime and threads, where rows show "
    "medians. The least time is that of a graph's multiply-adds, or of reading its weights once if that is longer; "
    "weights that fit a cache stay there from run to run, so the fastest reading counts. Reached is the least time "
    "over the median. Near 100 % only fewer multiply-adds help (fewer bytes where weights bind). At a few per cent the "
    "time is spent on calling operators and moving data: fewer operators help, and faster arithmetic does not. Above "
    "100 % a graph is faster than the plain layers were. Products of 4 and 16 bits count at the rate of INT8, and FP16 "
    "weights are read as fp32, to which the runtimes widen them at load. A fused graph is never run for one word alone."
)


class Bound(StrEnum):
    """What takes longest at the limit."""

    ARITHMETIC = "arithmetic"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Limit:
    """The least time of one run of a graph in seconds, and what sets it."""

    seconds: float
    bound: Bound


def least_time(work: GraphWork, roofline: Roofline) -> Limit | None:
    """The limit of a graph under a roofline; None where a rate that it needs is not known."""
    rates = {
        arithmetic: roofline.int8_macs_per_second if arithmetic in INTEGER else roofline.fp32_macs_per_second
        for arithmetic in work.multiply_adds
    }
    bandwidth = roofline.bytes_per_second
    if not bandwidth or not all(rates.values()):
        return None
    arithmetic = sum(count / (rates[kind] or 1.0) for kind, count in work.multiply_adds.items())
    weights = work.weight_bytes / bandwidth
    return Limit(arithmetic, Bound.ARITHMETIC) if arithmetic >= weights else Limit(weights, Bound.WEIGHTS)


def roofline_section(report: Report) -> str:
    """The machine's limits on each runtime, and what every encoder and step reaches; "" where neither is known."""
    limits = limits_table(report.results.rooflines)
    graphs = [cells for item in report.rows for cells in _graph_cells(report, item)]
    if not limits and not graphs:
        return ""
    headers = (
        "recipe @ runtime",
        "graph",
        "multiply-adds (M)",
        "weights read (MB)",
        "median (ms)",
        "least (ms)",
        "bound by",
        "reached",
    )
    rows = table(headers, graphs, words=(0, 1, 6)) if graphs else ""
    return "\n\n".join(filter(None, (limits, rows, f"{NOTE} {render_conditions(report)}")))


def limits_table(rooflines: Mapping[str, Roofline]) -> str:
    """One line a runtime; "" where none was measured."""
    headers = ("runtime", "threads", "fp32 (GMAC/s)", "INT8 (GMAC/s)", "weights read (GB/s)", "measured with")
    cells = [
        [
            name_text(name),
            str(found.threads),
            _billions(found.fp32_macs_per_second),
            _billions(found.int8_macs_per_second),
            _billions(found.bytes_per_second),
            "; ".join(map(escape, filter(None, (found.kernels, found.reason)))) or DASH,
        ]
        for name, found in rooflines.items()
    ]
    return table(headers, cells, words=(0, 5)) if cells else ""


def _graph_cells(report: Report, item: Comparison) -> Iterator[list[str]]:
    """A line for each graph whose work is known."""
    row = item.row
    roofline = report.results.rooflines.get(row.runtime)
    for name, work in _work(report, row).items():
        limit = least_time(work, roofline) if roofline and name != Graph.FUSED else None
        median = _median(row, name)
        yield [
            name_text(item.name),
            name_text(name),
            f"{sum(work.multiply_adds.values()) / 1e6:.2f}",
            megabytes(work.weight_bytes),
            milliseconds(median),
            milliseconds(limit.seconds if limit else None),
            str(limit.bound) if limit else DASH,
            _reached(limit, median),
        ]


def _work(report: Report, row: Result) -> Mapping[str, GraphWork]:
    """A row's own; a SavedModel's, which has no ledger, is that of the same weights and graph in another format."""
    twins = (item.row.work for item in report.rows if same_weights(item.row, row) and item.row.graph == row.graph)
    return row.work or next(filter(None, twins), {})


def _median(row: Result, graph: str) -> float | None:
    """Of one run of a graph, where it was timed soundly; a fused one holds a loop and is never run for one word."""
    phases = {ENCODER: Phase.ENCODE, row.graph: Phase.STEP}
    latency = row.latency_seconds.get(phases[graph]) if graph in phases else None
    return latency.median if latency and row.status in MEASURED else None


def _reached(limit: Limit | None, median: float | None) -> str:
    if limit is None or not median:
        return DASH
    share = limit.seconds / median
    return percent(share) if share <= 1 else f"{share * 100:.0f} %"


def _billions(rate: float | None) -> str:
    return DASH if rate is None else f"{rate / 1e9:.1f}"
