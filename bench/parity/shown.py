"""Which divergences a page shows in full, and whether any is a fault; shared by those who write pictures and pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from bench.parity.record import Cause, Divergence, ParityRow

SHOWN_OF_A_CAUSE = 3
# What is stored in these must not change a word, but for ties.
FLOAT_PRECISIONS = frozenset({"fp32", "fp16"})


@dataclass(frozen=True)
class Shown:
    """A divergence, and the names of the rows that share it."""

    divergence: Divergence
    reference: str
    rows: tuple[str, ...]


def choose_shown(rows: Sequence[ParityRow]) -> dict[Cause, tuple[Shown, ...]]:
    """Some divergences of each cause, greedy before beam, rows taken in turn; those that say the same are one."""
    shared: dict[tuple[Cause, str, str, str], list[tuple[str, Divergence, str]]] = {}
    for name, found, reference in _in_turn(rows):
        shared.setdefault((found.cause, found.image, found.reference_caption, found.caption), []).append(
            (name, found, reference)
        )
    chosen: dict[Cause, tuple[Shown, ...]] = {}
    for cause in Cause:
        alike = [group for key, group in shared.items() if key[0] == cause][:SHOWN_OF_A_CAUSE]
        if alike:
            chosen[cause] = tuple(
                Shown(group[0][1], group[0][2], tuple(dict.fromkeys(name for name, _, _ in group))) for group in alike
            )
    return chosen


def shown_images(rows: Sequence[ParityRow]) -> list[str]:
    """The images of what is shown."""
    return list(dict.fromkeys(s.divergence.image for shown in choose_shown(rows).values() for s in shown))


def is_float(row: ParityRow) -> bool:
    """Whether both halves compute with the trained numbers, to rounding."""
    return set(row.precisions) <= FLOAT_PRECISIONS


def parity_status(rows: Sequence[ParityRow]) -> int:
    """1 when a row in floating point differs by more than tie flips, else 0."""
    return int(any(is_float(row) and faults(row) for row in rows))


def faults(row: ParityRow) -> int:
    """How many of its differing captions are no ties; both searches counted."""
    return sum(cause is not Cause.TIE_FLIP for parity in row.searches for cause in parity.causes.values())


def _in_turn(rows: Sequence[ParityRow]) -> Iterator[tuple[str, Divergence, str]]:
    """(row, divergence, reference), the first of every row before the second of any."""
    for search in ("greedy", "beam3"):
        lists = []
        for row in rows:
            parity = getattr(row, search)
            if parity is not None and parity in row.searches:
                lists.append([(row.name, found, parity.reference) for found in parity.divergences])
        for turn in zip_longest(*lists):
            yield from (item for item in turn if item is not None)
