"""What each step of the way from the Keras baseline to the one to ship bought, each kind of change apart. Pure.

A runtime's gain must never be sold as compression's: the way changes one thing at a time, over rows that were
measured. Where no row stands between two changes they stay one step, and the step says so.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise, permutations

from bench.result import Result
from reports.comparison import MEASURED, Comparison, size_ratio
from reports.report import Report
from reports.speed import SpeedUp, speed_up


class Change(StrEnum):
    """What can differ between two rows, in the order in which a way tries them."""

    RUNTIME = "runtime"
    DECODING = "decoding"
    CAPTIONER = "captioner"
    STRUCTURE = "structure"
    PRECISION = "precision"


# What a row has of each; the format of a file goes with the runtime that reads it.
_TRAITS: Mapping[Change, Callable[[Result], object]] = {
    Change.RUNTIME: lambda row: (row.format, row.runtime),
    Change.DECODING: lambda row: row.graph,
    Change.CAPTIONER: lambda row: row.captioner,
    Change.STRUCTURE: lambda row: (row.encoder.technique, row.decoder.technique),
    Change.PRECISION: lambda row: (row.encoder.precision, row.decoder.precision),
}


def differences(start: Result, end: Result) -> list[Change]:
    """What differs between two rows, in the order of `Change`."""
    return [change for change in Change if _TRAITS[change](start) != _TRAITS[change](end)]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way; `faster` is None where a time is missing or not sound."""

    changes: tuple[Change, ...]
    before: Comparison
    after: Comparison
    size_ratio: float | None
    faster: SpeedUp | None

    @property
    def name(self) -> str:
        """What changed; several things where no row was measured between them."""
        return " and ".join(self.changes)


def find_way(report: Report) -> tuple[Step, ...]:
    """The steps from the baseline to the one to ship; () where there is nothing to ship but the baseline.

    The shortest way of single changes where rows allow one; it may pass through a third runtime. Else, of all orders
    of the changes, the one with the most rows on its way. Among equals the first in the order of `Change`.
    """
    start, end = report.baseline, report.winner
    if start is None or end is None or end is start:
        return ()
    rows = {_traits(item.row): item for item in report.rows if item.row.size_bytes and item.row.status in MEASURED}
    way = _single_changes(start, end, rows) or _most_rows(start, end, rows)
    return tuple(_step(report, before, after, changed) for (before, _), (after, changed) in pairwise(way))


Traits = tuple[object, ...]
# Rows on a way, each with what changed since the one before.
Way = list[tuple[Comparison, tuple[Change, ...]]]


def _traits(row: Result) -> Traits:
    return tuple(trait(row) for trait in _TRAITS.values())


def _single_changes(start: Comparison, end: Comparison, rows: Mapping[Traits, Comparison]) -> Way:
    """The shortest way on which one thing changes at a time (breadth first); [] where there is none."""
    goal = _traits(end.row)
    here = {**rows, goal: end}
    ways: deque[Way] = deque([[(start, ())]])
    seen = {_traits(start.row)}
    while ways:
        way = ways.popleft()
        traits = _traits(way[-1][0].row)
        if traits == goal:
            return way
        for changed, other in _neighbours(traits, goal, here):
            if other not in seen:
                seen.add(other)
                ways.append([*way, (here[other], (changed,))])
    return []


def _neighbours(traits: Traits, goal: Traits, rows: Mapping[Traits, Comparison]) -> list[tuple[Change, Traits]]:
    """Rows that differ in one thing: it is then as in the goal, or the runtime is another one."""
    found = []
    for index, change in enumerate(Change):
        for other in rows:
            alike = all(a == b for i, (a, b) in enumerate(zip(traits, other, strict=True)) if i != index)
            helps = other[index] == goal[index] or change is Change.RUNTIME
            if alike and helps and other[index] != traits[index]:
                found.append((change, other))
    return found


def _most_rows(start: Comparison, end: Comparison, rows: Mapping[Traits, Comparison]) -> Way:
    """The order of changes that meets the most rows; several changes at once where it meets none."""
    orders = permutations(differences(start.row, end.row))
    return max((_walk(order, start, end, rows) for order in orders), key=len)  # the first of the longest


def _walk(order: Sequence[Change], start: Comparison, end: Comparison, rows: Mapping[Traits, Comparison]) -> Way:
    """The rows met when the changes are made in this order."""
    way: Way = [(start, ())]
    since: list[Change] = []
    for index, change in enumerate(order):
        since.append(change)
        done = set(order[: index + 1])
        found = rows.get(tuple(_TRAITS[c](end.row if c in done else start.row) for c in Change))
        if index == len(order) - 1:
            found = end
        if found:
            way.append((found, tuple(since)))
            since = []
    return way


def _step(report: Report, before: Comparison, after: Comparison, changes: tuple[Change, ...]) -> Step:
    return Step(
        changes,
        before,
        after,
        size_ratio(after.row, before.row),
        speed_up(after.row, before.row, report.results),
    )
