"""The marks of a picture: which rows can be drawn, and which of them nothing beats. Pure."""

from collections.abc import Sequence
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
        )
        for item in report.rows
        if item.row.size_bytes and item.row.size_bytes.total > 0 and item.row.quality
    ]
    return sorted(points, key=lambda point: -(point.seconds or 0.0))


def find_frontier(points: Sequence[Point]) -> list[Point]:
    """Soundly measured points that no other beats in both size and CIDEr, by size."""
    frontier: list[Point] = []
    for point in sorted((p for p in points if p.item.row.status in MEASURED), key=lambda p: (p.megabytes, -p.cider)):
        if not frontier or point.cider > frontier[-1].cider:
            frontier.append(point)
    return frontier
