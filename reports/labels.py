"""Placing the names in a picture so that they cover neither marks nor each other. No framework."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FONT_SIZE = 8.0
# Measured on DejaVu Sans at matplotlib's 72 units an inch; names are placed before they are drawn.
_CHARACTER, _BOLD, _LINE = 0.60, 0.70, 1.3
MARK = 7.0  # half the side of the square that a mark keeps free
# Tried in turn: beside the mark first, then ever further away.
_DISTANCES = (10.0, 22.0, 38.0, 58.0, 82.0, 110.0, 145.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, half: float) -> "Box":
        """The square of which (x, y) is the middle."""
        return cls(x - half, y - half, x + half, y + half)

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share area."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.top <= other.bottom or other.top <= self.bottom)

    def holds(self, other: "Box") -> bool:
        """Whether `other` lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.bottom <= other.bottom and other.top <= self.top


@dataclass(frozen=True, slots=True)
class Label:
    """The name of the mark at (x, y)."""

    text: str
    x: float
    y: float
    bold: bool = False


def place_labels(
    labels: Sequence[Label], marks: Sequence[Box], lines: Sequence[Box], canvas: Box
) -> Iterator[tuple[Label, Box]]:
    """Each label with a free place, the first ones first.

    Where there is none, a bold label may cover marks; any other is left out.
    """
    names: list[Box] = []
    for label in labels:
        places = list(_candidates(label))
        taken = [*names, *marks, *lines]
        box = next((place for place in places if _is_free(place, taken, canvas)), None)
        if box is None and label.bold:
            box = next((place for place in places if _is_free(place, [*names, *lines], canvas)), None)
        if box is not None:
            names.append(box)
            yield label, box


def _is_free(box: Box, taken: Sequence[Box], canvas: Box) -> bool:
    return canvas.holds(box) and not any(box.overlaps(other) for other in taken)


def _candidates(label: Label) -> Iterator[Box]:
    """Places around the mark, the nearest first."""
    width = len(label.text) * FONT_SIZE * (_BOLD if label.bold else _CHARACTER)
    height = FONT_SIZE * _LINE
    for distance in _DISTANCES:
        for across, up in _DIRECTIONS:
            left = label.x + across * distance - width * (1 - across) / 2
            bottom = label.y + up * distance - height / 2
            yield Box(left, bottom, left + width, bottom + height)
