"""The coverage ledger as a person reads it on the terminal, and as JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.inspecting import Inspection
from bench.profiling import Profile
from convert.ledger import Arithmetic, Evidence, Ledger, Part, shares
from reports.saturation_text import render_saturation
from reports.terminal import LOG_WIDTH
from reports.text import DASH, megabytes_with_unit, percent

EVIDENCE = {
    Evidence.OPTIMIZED_GRAPH: "arithmetic: read from the graph that {runtime}'s optimizer leaves",
    Evidence.FILE_PATTERN: "arithmetic: what the file asks for; no runtime confirmed it",
    Evidence.OPERATOR_TYPES: "arithmetic: by the types of each operator's tensors",
}


def inspection_json(inspections: Iterable[Inspection]) -> str:
    """A list with one object for each file; amounts in elements, bytes and multiply-adds, shares 0..1."""
    return json.dumps([_object(inspection) for inspection in inspections], indent=1)


def _object(inspection: Inspection) -> dict[str, Any]:
    ledger = inspection.ledger
    more = {
        "multiply_adds": dict(ledger.multiply_adds),
        "uncounted_parts": [part.name for part in ledger.uncounted],
        "shares": {
            "weights": shares(ledger.weights),
            "weight_bytes": shares(ledger.weight_bytes),
            "multiply_adds": shares(ledger.multiply_adds),
        },
        "profile": asdict(inspection.profile) if inspection.profile else None,
        "saturation": [asdict(layer) for layer in inspection.saturation],
    }
    return asdict(ledger) | more


def print_inspection(inspection: Inspection) -> None:
    """Print everything about one file."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    console.print(render_inspection(inspection))


def render_inspection(inspection: Inspection) -> RenderableType:
    """Shares, left-over conversions, LSTM, sizes, then the parts."""
    ledger = inspection.ledger
    lines = [
        f"quantize and dequantize operators left: {ledger.leftover_quantize} and {ledger.leftover_dequantize}, "
        f"of these {ledger.leftover_pairs} pairs that undo each other",
        f"LSTM: {ledger.lstm.replace('_', ' ')}",
        _sizes(ledger),
        EVIDENCE[ledger.evidence].format(runtime=ledger.runtime),
        *(f"note: {note}" for note in ledger.notes),
        *_uncounted(ledger),
        *(_profile(inspection.profile) if inspection.profile else ()),
    ]
    heading = Text(ledger.path, style="bold")
    saturation: list[RenderableType] = []
    if inspection.saturation:
        saturation = [render_saturation(inspection.saturation), Text()]
    parts = _part_table(ledger.parts)
    return Group(heading, _share_table(ledger), *map(Text, lines), Text(), parts, Text(), *saturation)


def _share_table(ledger: Ledger) -> Table:
    rows: dict[str, Mapping[Arithmetic, int]] = {
        "weights": ledger.weights,
        "weight bytes": ledger.weight_bytes,
        "multiply-adds": ledger.multiply_adds,
    }
    columns = [arithmetic for arithmetic in Arithmetic if any(arithmetic in row for row in rows.values())]
    table = Table(box=None)
    table.add_column("share of")
    for column in (*columns, "in all"):
        table.add_column(column.upper() if column in columns else column, justify="right")
    for name, amounts in rows.items():
        found = shares(amounts)
        cells = [percent(found.get(column, 0.0) if found else None) for column in columns]
        table.add_row(name, *cells, f"{sum(amounts.values()):,}")
    return table


def _sizes(ledger: Ledger) -> str:
    sizes = ledger.sizes
    resident = DASH if sizes.resident is None else megabytes_with_unit(sizes.resident)
    return (
        f"file {megabytes_with_unit(sizes.file)}, zipped {megabytes_with_unit(sizes.deflated)}, "
        f"weights {megabytes_with_unit(sizes.weights)}, resident after load {resident}"
    )


def _uncounted(ledger: Ledger) -> list[str]:
    if not ledger.uncounted:
        return []
    return [f"multiply-adds not counted in {len(ledger.uncounted)} parts: their shapes are not known before a run"]


def _profile(profile: Profile) -> list[str]:
    if profile.shares is None:
        return [f"time: {DASH} ({profile.reason})"]
    spent = ", ".join(f"{kind.replace('_', ' ')} {percent(share)}" for kind, share in profile.shares.items())
    top = ", ".join(f"{name} {percent(share)}" for name, share in profile.top)
    return [f"time over {profile.runs} runs: {spent}", f"operators that take most: {top}"]


def _part_table(parts: tuple[Part, ...]) -> Table:
    table = Table(box=None)
    for name in ("part", "operator", "multiply-adds", "weights", "stored", "arithmetic", "reason"):
        table.add_column(name, justify="right" if name in ("multiply-adds", "weights") else "left")
    for part in parts:
        cells = (
            part.name,
            part.operator,
            DASH if part.multiply_adds is None else f"{part.multiply_adds:,}",
            f"{part.weights:,}",
            part.stored or "",
            part.arithmetic,
            (part.reason or "").replace("_", " "),
        )
        table.add_row(*map(Text, cells))
    return table
