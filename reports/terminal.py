"""The end of a run on the terminal: a compact table and the verdict."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.cautions import CautionKind
from reports.comparison import Comparison
from reports.markup import to_text
from reports.report import Report
from reports.speed import Rank
from reports.tables import faster_text, rank_text
from reports.text import megabytes, milliseconds, plain, score
from reports.verdict import render_verdict

HEADERS = ("row", "MB", "BLEU-4", "CIDEr", "same captions", "ms", "faster", "rank", "status")
LOG_WIDTH = 160


def print_report(report: Report, console: Console | None = None) -> None:
    """Print table and verdict; no text of the data's can style or move what stands around it."""
    console = console or _console()
    table = Table(box=None)
    for index, header in enumerate(HEADERS):
        words = index in (0, len(HEADERS) - 1)
        table.add_column(header, no_wrap=index > 0, overflow="fold", justify="left" if words else "right")
    only = report.results.captioners[0].name + "." if len(report.results.captioners) == 1 else ""
    for item in report.rows:
        name, *cells = _cells(item, report.ranks.get(item.name))
        style = "bold" if item is report.winner else ""
        table.add_row(Text(plain(name.removeprefix(only)), style), *map(Text, cells))
    console.print(table)
    for caution in report.cautions:
        if caution.kind in (CautionKind.COLLAPSED, CautionKind.CONSTANT):
            console.print(Text(to_text(f"{caution.kind.capitalize()}: {caution.text}. {caution.remedy}"), "red"))
    console.print(Text(to_text(render_verdict(report))))


def _console() -> Console:
    """As wide as the terminal, or as a log bears."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


def _cells(item: Comparison, rank: Rank | None) -> list[str]:
    row = item.row
    quality, parity = row.quality, row.parity
    return [
        item.name,
        megabytes(row.size_bytes.total if row.size_bytes else None),
        score(quality.bleu_4 if quality else None),
        score(quality.cider if quality else None),
        f"{parity.captions_identical:.1%}" if parity else "–",
        milliseconds(item.caption.median if item.caption else None),
        faster_text(item),
        rank_text(rank),
        row.status.value,
    ]
