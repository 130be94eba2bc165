"""The section "Why rows are slow": instruction sets, operators that take most, and what slower rows suffer from."""

from collections.abc import Iterator

from bench.coverage import integer_time
from bench.measurement import GraphProfile
from bench.setting import Environment
from convert.machine import MachineKind, machine_kind
from reports.comparison import Comparison, full_precision_twin
from reports.report import Report
from reports.slow_reasons import explain_slower
from reports.slow_rules import ARM_INTEGER, X86_INTEGER, movement_time
from reports.speed import SpeedUp, speed_up
from reports.text import DASH, enumerate_names, escape, name_text, percent, table

NOTE = (
    "Shares of the time in operators, by the runtime's own profiler, over 30 runs on one picture of noise and what "
    "the encoder made of it. Profilers count whole microseconds, so shares of graphs that take less than some hundred "
    "are rough. Moving: layouts, shapes, look-ups and conversions between numbers. Left-over pairs (of the whole row) "
    "quantize and dequantize for nothing."
)
HEADERS = ("recipe @ runtime", "graph", "integer kernels", "moving", "left-over pairs", "operators that take most")


def slowness_section(report: Report) -> str:
    """Instruction sets, profiles, and why each quantized row that is not faster is not; empty without any of these."""
    profiled = [item for item in report.rows if any(found.top for found in item.row.profiles.values())]
    explained = list(_explanations(report))
    if not profiled and not explained:
        return ""
    cells = [cell for item in profiled for cell in _cells(item)]
    parts = [
        instructions(report.results.environment),
        f"{table(HEADERS, cells, words=(0, 1, 5))}\n\n{NOTE}" if cells else "",
        _without_profile(report),
        "\n".join(["Quantized, and not faster than fp32:", "", *explained]) if explained else "",
    ]
    return "\n\n".join(part for part in parts if part)


def instructions(environment: Environment) -> str:
    """Which instructions for integers this CPU has, and which it lacks."""
    if not environment.isa:
        return "The run recorded no instruction sets, which decide how fast integers are."
    wanted = ARM_INTEGER if machine_kind(environment.isa) is MachineKind.ARM else X86_INTEGER
    has = [f"`{flag}`" for flag in wanted if flag in environment.isa]
    lacks = [f"`{flag}`" for flag in wanted if flag not in environment.isa]
    facts = [f"has {enumerate_names(has)}" if has else "", f"lacks {enumerate_names(lacks)}" if lacks else ""]
    effect = (
        "INT8 products are summed four at a time, so integer kernels can beat fp32."
        if has
        else "Without one, INT8 wins little or nothing over fp32."
    )
    told = " and ".join(fact for fact in facts if fact)
    return f"Of the instructions that sum products of bytes, {escape(environment.cpu)} {told}. {effect}"


def _cells(item: Comparison) -> Iterator[list[str]]:
    """A line for each graph that has a profile."""
    pairs = item.row.coverage.leftover_pairs
    for graph, profile in item.row.profiles.items():
        if profile.top:
            shares = (percent(integer_time(profile)), percent(movement_time(profile)))
            left = DASH if pairs is None else str(pairs)
            yield [name_text(item.name), escape(graph), *shares, left, _top(profile)]


def _top(profile: GraphProfile) -> str:
    return ", ".join(f"{name_text(name)} {percent(share)}" for name, share in profile.top)


def _without_profile(report: Report) -> str:
    """What has no profile, by reason."""
    names: dict[str, list[str]] = {}
    for item in report.rows:
        for graph, profile in item.row.profiles.items():
            if not profile.top and profile.reason:
                names.setdefault(profile.reason, []).append(f"{name_text(item.name)} ({escape(graph)})")
    lines = [f"- {enumerate_names(found)}: {escape(reason)}" for reason, found in names.items()]
    return "\n".join(["No profile:", "", *lines]) if lines else ""


def _explanations(report: Report) -> Iterator[str]:
    for item in report.rows:
        twin = full_precision_twin(item, report.rows)
        faster = speed_up(item.row, twin.row, report.results) if twin else None
        if twin and faster and not _is_faster(faster):
            slower = f"{1 / faster.ratio:.2f} times the time" if faster.certain else "no difference beyond noise"
            yield f"- {name_text(item.name)} ({slower}): {explain_slower(item, twin, report.results)}"


def _is_faster(faster: SpeedUp) -> bool:
    return faster.certain and faster.ratio > 1
