"""`parity.md`: what `captionbench parity` found, as a page; and its table on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.parity.record import ParityRow, ParityRun
from bench.parity.shown import parity_status
from models.files import write_text_atomic
from reports.parity import answer, parity_section
from reports.text import code_block, escape, name_text, percent

PAGE_NAME = "parity.md"
LOG_WIDTH = 140


def write_parity_page(run: ParityRun, folder: Path) -> Path:
    """Write the page into `folder`; returns its path."""
    path = folder / PAGE_NAME
    write_text_atomic(path, render_parity(run))
    return path


def render_parity(run: ParityRun) -> str:
    """The whole page, Markdown. Pure."""
    head = f"Suite {name_text(run.suite)} on {escape(run.dataset)}, {run.images} test images; {escape(run.created)}."
    commit = f" Commit {name_text(run.commit)}." if run.commit else ""
    missing = [f"- {name_text(row.name)}: {escape(row.reason)}" for row in run.rows if row.reason]
    section = parity_section(run.rows, run.images, run.pictures, full=True)
    parts = [
        "# Do captions match across runtimes?",
        head + commit,
        section or "No row could be compared.",
        *(["Rows that were not compared:\n\n" + "\n".join(missing)] if missing else []),
        "Causes and their rules: `docs/parity.md`. All of it, image by image: `parity.json`.",
        *([f"Again:\n\n{code_block(run.command)}"] if run.command else []),
    ]
    return "\n\n".join(parts) + "\n"


def print_parity(run: ParityRun) -> None:
    """A compact table and the answer."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    shown = Table(box=None)
    for index, header in enumerate(("row", "same file", "same tensor", "beam 3", "differ", "not ties")):
        shown.add_column(header, no_wrap=True, justify="right" if index else "left")
    for row in run.rows:
        if row.searches:
            shown.add_row(Text(row.name), *map(Text, _cells(row)))
    console.print(shown)
    compared = [row for row in run.rows if row.searches]
    text = answer(compared, run.images) if compared else "No row could be compared."
    console.print(
        Text(text.replace("**", "").replace("`", "").replace("\\", "")), style=("", "red")[parity_status(run.rows)]
    )


def _cells(row: ParityRow) -> list[str]:
    causes = [cause for parity in row.searches for cause in parity.causes.values()]
    greedy, beam = row.greedy, row.beam3
    return [
        percent(greedy.captions_identical if greedy else None),
        percent(greedy.graph_captions_identical if greedy else None),
        percent(beam.captions_identical if beam else None),
        str(len(causes)),
        str(sum(cause != "tie flip" for cause in causes)),
    ]
