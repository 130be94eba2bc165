"""The table that opens a report: every row, or of a long run those worth a choice, the others further down. Pure."""

from reports.comparison import Comparison
from reports.points import find_points, find_unbeaten
from reports.report import Report
from reports.tables import headline_table

# A table that is read; the rest of a grid of 148 is looked up.
LONGEST = 30
SHOWN = 16
EVERY_ROW = "Every row"


def opening_table(report: Report) -> str:
    """All rows of a run that one can read; of a longer one the baseline, the frontier and the first in the gate."""
    if len(report.rows) <= LONGEST:
        return headline_table(report)
    shown = choose_rows(report)
    told = (
        f"{len(shown)} of {len(report.rows)} rows: the baseline, those that no other beats, and the fastest that keep "
        f"the quality. All are under “{EVERY_ROW}”."
    )
    return f"{headline_table(report, shown)}\n\n{told}"


def every_row(report: Report) -> str:
    """The whole table where the opening left some out; else empty."""
    return headline_table(report) if len(report.rows) > LONGEST else ""


def choose_rows(report: Report) -> tuple[Comparison, ...]:
    """`SHOWN` rows at least, in the report's order: what must be there, then the fastest by worth."""
    needed = {point.item.name for point in find_unbeaten(find_points(report))}
    needed |= {item.name for item in (report.baseline, report.winner) if item}
    by_worth = sorted(report.rows, key=lambda item: (item.name not in needed, not item.in_gate, not item.row.quality))
    chosen = {item.name for item in by_worth[: max(SHOWN, len(needed))]}
    return tuple(item for item in report.rows if item.name in chosen)
