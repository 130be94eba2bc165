"""The section on what each step of the way to the one to ship bought. Pure."""

from reports.report import Report
from reports.tables import identical, speed_text
from reports.text import DASH, megabytes, milliseconds, name_text, ratio, score, signed, table
from reports.verdict import render_conditions
from reports.waterfall import Change, Step, find_way

MEANINGS = {
    Change.CAPTIONER: "another captioner: nothing of this is compression",
    Change.RUNTIME: "the same numbers in another file format and another program: no compression",
    Change.DECODING: "how words are asked for: the whole prefix again, one step a word, or the loop in the file",
    Change.STRUCTURE: "pruning, clustering, fewer filters or words, in Keras",
    Change.PRECISION: "numbers of fewer bits",
}
HEADERS = (
    "step",
    "row that was reached",
    "size (MB)",
    "smaller",
    "caption (ms)",
    "faster",
    "CIDEr",
    "captions identical",
)


def waterfall_section(report: Report, figure: str) -> str:
    """Picture, table and how to read it; "" where there is no way to tell of. `figure`: Markdown of the picture."""
    steps = find_way(report)
    if not steps or report.baseline is None or report.winner is None:
        return ""
    cells = [_start(report), *(_cells(report, step) for step in steps), _total(report)]
    return "\n\n".join(filter(None, (figure, table(HEADERS, cells, words=(0, 1)), _note(report, steps))))


def _start(report: Report) -> list[str]:
    base = report.baseline
    assert base is not None, "a way has a start"
    row = base.row
    return [
        "baseline",
        name_text(base.name),
        megabytes(row.size_bytes.total if row.size_bytes else None),
        DASH,
        milliseconds(base.caption.median if base.caption else None),
        DASH,
        score(row.quality.cider if row.quality else None),
        identical(report, base),
    ]


def _cells(report: Report, step: Step) -> list[str]:
    after = step.after
    return [
        step.name,
        name_text(after.name),
        megabytes(after.row.size_bytes.total if after.row.size_bytes else None),
        ratio(step.size_ratio),
        milliseconds(after.caption.median if after.caption else None),
        speed_text(step.faster),
        _cider_change(step),
        identical(report, after),
    ]


def _cider_change(step: Step) -> str:
    before, after = step.before.row.quality, step.after.row.quality
    if before is None or after is None:
        return DASH
    return f"{score(after.cider)} ({signed(after.cider - before.cider)})"


def _total(report: Report) -> list[str]:
    winner = report.winner
    assert winner is not None, "a way has an end"
    quality, base = winner.row.quality, report.baseline.row.quality if report.baseline else None
    change = f"{score(quality.cider)} ({signed(quality.cider - base.cider)})" if quality and base else DASH
    return [
        "**all steps**",
        name_text(winner.name),
        megabytes(winner.row.size_bytes.total if winner.row.size_bytes else None),
        ratio(winner.size_ratio),
        milliseconds(winner.caption.median if winner.caption else None),
        speed_text(winner.speed_up),
        change,
        identical(report, winner),
    ]


def _note(report: Report, steps: tuple[Step, ...]) -> str:
    known = dict.fromkeys(change for step in steps for change in step.changes)
    meanings = "; ".join(f"{change}: {MEANINGS[change]}" for change in known)
    merged = any(len(step.changes) > 1 for step in steps)
    together = " Changes joined by “and” were measured together: no row stands between them." if merged else ""
    return (
        f"Each step is measured against the row above it. {meanings[0].upper()}{meanings[1:]}.{together} The same "
        f"changes in another order can divide the gain otherwise. {render_conditions(report)}"
    )
