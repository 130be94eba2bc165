"""The harness's own check on the terminal: what was asked, how often it was found, whether that is enough."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.sensitivity import ALLOWED, REQUIRED, Check
from reports.terminal import LOG_WIDTH


def print_checks(checks: Sequence[Check]) -> None:
    """One line a slowdown."""
    table = Table(box=None)
    for header in (
        "alternative",
        "comparisons",
        "found different",
        "bar",
        "median found",
        "interval ±",
        "disturbed",
        "",
    ):
        table.add_column(header, no_wrap=True, justify="right" if header else "left")
    for check in checks:
        table.add_row(*_cells(check))
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    console.print(table)


def _cells(check: Check) -> list[str]:
    count = len(check.comparisons)
    allowed = f"at most {ALLOWED * count:.0f}"
    bar = f"at least {REQUIRED.get(check.slowdown, 0.0) * count:.0f}" if check.slowdown else allowed
    widths = [(found.ci99[1] - found.ci99[0]) / 2 for found in check.comparisons]
    return [
        f"{check.slowdown:.0%} slower" if check.slowdown else "itself",
        str(count),
        str(check.flagged),
        bar,
        f"{np.median([found.relative for found in check.comparisons]):+.1%}",
        f"{np.median(widths):.1%}",
        str(check.disturbed),
        "holds" if check.holds else "MISSED",
    ]
