"""How size, quality and time moved over runs of one suite: `captionbench report A B C --history`. Pure.

A change of time is marked only where the intervals of both runs are apart and it exceeds both noise floors; a change of
CIDEr where the 95 % intervals are apart. Bytes are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measurement import Phase
from bench.result import Quality, Result, Results, row_name
from bench.result_file import read_results
from models.errors import ConfigError
from models.files import write_text_atomic
from reports.speed import MEASURED, times_faster
from reports.text import DASH, escape, median_with_interval, megabytes, name_text, percent, score, table

HISTORY_NAME = "history.md"
UP, DOWN = "▲", "▼"


@dataclass(frozen=True, slots=True)
class Moment:
    """One run's row; None where that run had none."""

    results: Results
    row: Result | None


def write_history(paths: Sequence[Path], out: Path) -> Path:
    """Write `history.md` into `out`; returns its path. Raises ConfigError for runs of different suites or data."""
    path = out / HISTORY_NAME
    write_text_atomic(path, render_history([read_results(path) for path in paths]))
    return path


def render_history(runs: Sequence[Results]) -> str:
    """A table a row, runs from the oldest to the newest. Raises ConfigError."""
    if len(runs) < 2:
        raise ConfigError(f"a history takes two runs or more; received {len(runs)}.")
    for what, values in (("suites", {run.suite for run in runs}), ("data sets", {run.dataset for run in runs})):
        if len(values) > 1:
            raise ConfigError(f"these runs are of different {what}: {', '.join(sorted(values))}. Give runs of one.")
    ordered = sorted(runs, key=lambda run: run.created)
    newest = ordered[-1]
    names = dict.fromkeys(row_name(row) for run in reversed(ordered) for row in run.rows)
    sections = [f"# {escape(newest.title)}: how it moved", _note(ordered)]
    sections += [_section(name, _moments(name, ordered)) for name in names]
    return "\n\n".join(sections) + "\n"


def _moments(name: str, runs: Sequence[Results]) -> list[Moment]:
    return [Moment(run, next((row for row in run.rows if row_name(row) == name), None)) for run in runs]


def _note(runs: Sequence[Results]) -> str:
    machines = {run.environment.cpu for run in runs}
    caution = " **Not all on one machine: times do not compare.**" if len(machines) > 1 else ""
    return (
        f"{len(runs)} runs of suite {name_text(runs[0].suite)}, oldest first. {UP} and {DOWN} mark what changed since "
        f"the run before: bytes at all, CIDEr and times beyond their intervals and the noise floors.{caution}"
    )


def _section(name: str, moments: Sequence[Moment]) -> str:
    headers = ("run", "commit", "size (MB)", "CIDEr", "captions identical", "caption (ms)", "status")
    pairs = zip([None, *moments[:-1]], moments, strict=True)
    return f"## {name_text(name)}\n\n{table(headers, [_cells(b, m) for b, m in pairs], words=(0, 1, 6))}"


def _cells(before: Moment | None, moment: Moment) -> list[str]:
    run, row = moment.results, moment.row
    head = [escape(run.created[:16].replace("T", " ")), name_text(run.commit) if run.commit else DASH]
    if row is None:
        return [*head, DASH, DASH, DASH, DASH, "not in this run"]
    past = before.row if before else None
    size = row.size_bytes.total if row.size_bytes else None
    past_size = past.size_bytes.total if past and past.size_bytes else None
    return [
        *head,
        megabytes(size) + _mark((size or 0) - (past_size or 0) if size and past_size else 0),
        score(row.quality.cider if row.quality else None) + _mark(_cider_change(past, row)),
        percent(row.parity.captions_identical if row.parity else None),
        median_with_interval(row.latency_seconds.get(Phase.CAPTION)) + _mark(_time_change(before, moment)),
        row.status.value,
    ]


def _mark(change: float) -> str:
    return "" if not change else f" {UP if change > 0 else DOWN}"


def _cider_change(before: Result | None, row: Result) -> float:
    """Above 0 for better, 0 where the intervals meet."""
    old, new = (before.quality if before else None), row.quality
    if old is None or new is None or _meet(old, new):
        return 0.0
    return new.cider - old.cider


def _meet(a: Quality, b: Quality) -> bool:
    return a.cider_ci95[0] <= b.cider_ci95[1] and b.cider_ci95[0] <= a.cider_ci95[1]


def _time_change(before: Moment | None, moment: Moment) -> float:
    """Seconds, 0 where they can't be told apart."""
    if before is None or before.row is None or moment.row is None:
        return 0.0
    old, new = (m.row.latency_seconds.get(Phase.CAPTION) for m in (before, moment) if m.row)
    if old is None or new is None or not {before.row.status, moment.row.status} <= MEASURED:
        return 0.0
    floor = max(before.results.noise_floor or 0.0, moment.results.noise_floor or 0.0)
    apart = new.ci95[0] > old.ci95[1] or old.ci95[0] > new.ci95[1]
    faster = times_faster(new, old, floor)
    return new.median - old.median if apart and faster and faster.certain else 0.0
