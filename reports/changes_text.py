"""A comparison of two runs as a table on the terminal, and as JSON."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.change import RELATIVE, Change, Changes, Metric, Outcome, Run, Unit, Verdict
from reports.text import DASH, megabytes_with_unit, milliseconds, percent, plain, score

HEADERS = ("row", "metric", "before", "after", "change", "verdict")
_NUMBERS = (2, 3, 4)
_LOG_WIDTH = 160  # where no terminal says how wide it is
_STYLES = {Verdict.WORSE: "red", Verdict.SLOWER: "red", Verdict.SUSPECTED: "yellow", Verdict.BETTER: "green"}
_ENDINGS = {
    Outcome.PASSED: "Nothing became worse.",
    Outcome.FAILED: "The gate failed: something became worse. If that is meant, compare with the new run from now on.",
    Outcome.SLOWER: "Alarm: captions became slower, and a second fresh run confirms it.",
    Outcome.SUSPECTED: "Captions may have become slower: run the suite once more and pass that run with --confirm.",
}
_FORMATS: Mapping[Unit, Callable[[float], str]] = {
    Unit.TEXT: str,
    Unit.COUNT: "{:.0f}".format,
    Unit.BYTES: lambda size: megabytes_with_unit(int(size)),
    Unit.SHARE: percent,
    Unit.SCORE: score,
    Unit.SECONDS: lambda seconds: f"{milliseconds(seconds)} ms",
}
NO_CHANGE = "No significant change."


def print_changes(changes: Changes) -> None:
    """Print table, details, notes and how it ends."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_LOG_WIDTH)
    console.print(render_changes(changes))


def render_changes(changes: Changes) -> RenderableType:
    """Which runs, the table of what changed, examples, what was not compared, and one sentence."""
    return Group(
        Text(_title(changes), style="bold"),
        *([_table(changes.changes)] if changes.changes else ()),
        *(Text(plain(line)) for line in _details(changes.changes)),
        *(Text(f"note: {plain(note)}", style="dim") for note in changes.notes),
        Text(ending(changes), style="bold"),
    )


def _title(changes: Changes) -> str:
    runs = [changes.before, changes.after, *([changes.confirm] if changes.confirm else ())]
    rows = "1 row" if changes.rows == 1 else f"{changes.rows} rows"
    return plain(f"{changes.before.suite}, {rows}: {' → '.join(_run(run) for run in runs)}")


def _run(run: Run) -> str:
    return f"{run.commit or 'unknown commit'} ({run.created})"


def ending(changes: Changes) -> str:
    """How the comparison ends, in one sentence."""
    return _ENDINGS[changes.outcome] if changes.changes else NO_CHANGE


def _table(changes: tuple[Change, ...]) -> Table:
    table = Table(box=None)
    for place, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if place in _NUMBERS else "left", overflow="fold")
    for change in changes:
        *cells, verdict = _cells(change)
        table.add_row(*map(Text, cells), Text(verdict, style=_STYLES.get(change.verdict, "")))
    return table


def _cells(change: Change) -> list[str]:
    return [
        plain(change.row),
        change.metric.value,
        _value(change, change.before),
        _value(change, change.after),
        change_text(change),
        change.verdict.value,
    ]


def _value(change: Change, value: float | str | None) -> str:
    """A value in its metric's unit; hashes are cut to what tells them apart."""
    if value is None or isinstance(value, str):
        text = plain(value or "") or DASH
        return text[:12] if change.metric is Metric.SHA256 else text
    return _FORMATS[change.unit](value)


def change_text(change: Change) -> str:
    """The size of a change and its interval, with signs: relative for bytes and times, else in the metric's unit."""
    if change.difference is None:
        return DASH
    text = _signed(change, change.difference)
    if change.unit is Unit.BYTES and change.after is not None and change.before is not None:
        text = f"{float(change.after) - float(change.before):+,.0f} bytes ({text})"
    if change.interval is None:
        return text
    return f"{text} [{', '.join(_signed(change, bound) for bound in change.interval)}]"


def _signed(change: Change, value: float) -> str:
    if change.unit in RELATIVE:
        return f"{value:+.2%}" if abs(value) < 0.01 else f"{value:+.1%}"
    if change.unit is Unit.SHARE:
        return f"{value * 100:+.1f} points"
    return f"{value:+.0f}" if change.unit is Unit.COUNT else f"{value:+.3f}"


def _details(changes: tuple[Change, ...]) -> Iterator[str]:
    for change in changes:
        if change.detail:
            yield f"{change.row}, {change.metric}: {change.detail}"


def changes_json(changes: Changes) -> str:
    """One object: which runs, changes with their units (seconds, bytes, shares 0..1), notes, outcome, exit status."""
    return json.dumps(
        {
            "outcome": changes.outcome.name.lower(),
            "exit_status": int(changes.outcome),
            **{name: _optional(getattr(changes, name)) for name in ("before", "after", "confirm")},
            "rows": changes.rows,
            "changes": [asdict(change) | {"unit": change.unit} for change in changes.changes],
            "notes": changes.notes,
        },
        indent=1,
        ensure_ascii=False,
    )


def _optional(run: Run | None) -> dict[str, Any] | None:
    return asdict(run) if run else None
