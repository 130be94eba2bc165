"""The end of a run on the terminal: a compact table and the verdict."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.result_file import read_results
from reports.cautions import CautionKind
from reports.comparison import Comparison
from reports.report import make_report
from reports.speed import Rank
from reports.tables import faster_text, rank_text
from reports.text import megabytes, milliseconds, score
from reports.verdict import render_verdict

HEADERS = ("row", "MB", "BLEU-4", "CIDEr", "same captions", "ms", "faster", "rank", "status")
LOG_WIDTH = 160


def print_summary(results_path: Path) -> None:
    """Print table and verdict of a results file."""
    report = make_report(read_results(results_path))
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    table = Table(box=None)
    for index, header in enumerate(HEADERS):
        table.add_column(header, no_wrap=True, justify="right" if 0 < index < len(HEADERS) - 1 else "left")
    only = report.results.captioners[0].name + "." if len(report.results.captioners) == 1 else ""
    for item in report.rows:
        name, *cells = _cells(item, report.ranks.get(item.name))
        table.add_row(Text(name.removeprefix(only)), *map(Text, cells))
    console.print(table)
    for caution in report.cautions:
        if caution.kind in (CautionKind.COLLAPSED, CautionKind.CONSTANT):
            console.print(
                Text(_without_markup(f"{caution.kind.capitalize()}: {caution.text}. {caution.remedy}"), "red")
            )
    console.print(Text(_without_markup(render_verdict(report))))


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


def _without_markup(markdown: str) -> str:
    return markdown.replace("**", "").replace("`", "").replace("\\", "")
