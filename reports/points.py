"""The marks of a picture: which rows can be drawn, and which of them nothing beats. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.result import Status
from reports.comparison import MEASURED, Comparison
from reports.report import Report


@dataclass(frozen=True, slots=True)
class Point:
    """A row that can be drawn."""

    item: Comparison
    megabytes: float
    cider: float
    interval: tuple[float, float]
    seconds: float | None
    seconds_interval: tuple[float, float] | None = None

    @property
    def is_hollow(self) -> bool:
        """Whether the timing is not to be quoted."""
        return self.item.row.status is not Status.VALID


def find_points(report: Report) -> list[Point]:
    """Rows with a size and a quality, the slowest first so that they do not hide others."""
    points = [
        Point(
            item,
            item.row.size_bytes.total / 1e6,
            item.row.quality.cider,
            item.row.quality.cider_ci95,
            item.caption.median if item.caption else None,
            item.caption.ci95 if item.caption else None,
        )
        for item in report.rows
        if item.row.size_bytes and item.row.size_bytes.total > 0 and item.row.quality
    ]
    return sorted(points, key=lambda point: -(point.seconds or 0.0))


def find_frontier(
    points: Sequence[Point], cost: Callable[[Point], float | None] = lambda point: point.megabytes
) -> list[Point]:
    """Soundly measured points that no other beats in both `cost` and CIDEr, the cheapest first."""
    costs = [(cost(point), point) for point in points if point.item.row.status in MEASURED]
    known = [(value, point) for value, point in costs if value is not None]
    frontier: list[Point] = []
    for _, point in sorted(known, key=lambda pair: (pair[0], -pair[1].cider)):
        if not frontier or point.cider > frontier[-1].cider:
            frontier.append(point)
    return frontier


def find_unbeaten(points: Sequence[Point]) -> list[Point]:
    """Soundly measured points that no other beats in size, CIDEr and time at once, the smallest first."""
    sound = [point for point in points if point.item.row.status in MEASURED and point.seconds is not None]
    unbeaten = [point for point in sound if not any(_beats(other, point) for other in sound)]
    return sorted(unbeaten, key=lambda point: (point.megabytes, -point.cider))


def _beats(one: Point, other: Point) -> bool:
    """Whether `one` is nowhere worse, and somewhere better."""
    mine, theirs = ((p.megabytes, -p.cider, p.seconds or 0.0) for p in (one, other))
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
