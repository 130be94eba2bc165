"""How much faster one row is than another, what of it can be claimed, and the order of rows with their ties."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.measurement import Difference, Latency, Phase
from bench.result import Result, Results, Status, row_name
from bench.statistics import paired_difference

MEASURED = frozenset({Status.VALID, Status.QUICK})

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """How many times faster. `certain` is false where noise explains it; `ci99` is None where no rounds were paired."""

    ratio: float
    certain: bool
    ci99: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """A row's place by time, from 1; `tied` where others share it."""

    place: int
    tied: bool


def speed_up(row: Result, other: Result, results: Results) -> SpeedUp | None:
    """How many times faster `row` writes a whole caption than `other`; None where a timing is missing or not sound."""
    mine, theirs = row.latency_seconds.get(Phase.CAPTION), other.latency_seconds.get(Phase.CAPTION)
    if mine is None or theirs is None or not {row.status, other.status} <= MEASURED:
        return None
    is_baseline = row_name(other) == results.baseline
    return times_faster(mine, theirs, results.noise_floor, row.versus_baseline if is_baseline else None)


def times_faster(
    mine: Latency, theirs: Latency, noise_floor: float | None, paired: Difference | None = None
) -> SpeedUp | None:
    """Their time over mine: by pairs of rounds (`paired`, or made here), or by medians where there are too few.

    A difference is certain when it exceeds the noise floor and its 99 % interval leaves out 0; without pairs, when
    the 95 % intervals of both medians are apart. None for times that are not above 0.
    """
    if min(mine.median, theirs.median) <= 0:
        return None
    paired = paired or _pair(mine, theirs)
    if paired is None or paired.ci99[0] <= -1:
        ratio = theirs.median / mine.median
        apart = mine.ci95[0] > theirs.ci95[1] or theirs.ci95[0] > mine.ci95[1]
        return SpeedUp(ratio, apart and _exceeds(ratio, noise_floor))
    low, high = paired.ci99
    ratio = 1 / (1 + paired.relative)
    known = not low <= 0 <= high
    return SpeedUp(ratio, known and _exceeds(ratio, noise_floor), (1 / (1 + high), 1 / (1 + low)))


def _pair(mine: Latency, theirs: Latency) -> Difference | None:
    """None, too, where rounds hold times that no ratio can be made of."""
    positive = all(seconds > 0 for latency in (mine, theirs) for seconds in latency.samples)
    return paired_difference(mine.by_round, theirs.by_round) if positive else None


def _exceeds(ratio: float, noise_floor: float | None) -> bool:
    return max(ratio, 1 / ratio) - 1 > (noise_floor or 0.0)


def rank_rows(results: Results) -> Mapping[str, Rank]:
    """The rank of every row with a sound caption time, by name: how many rows are in groups before it, plus 1.

    Rows fastest first are cut into groups, in each of which nothing can be told from its fastest row. "Can't be
    told" is not transitive: A and B, B and C may be alike and A and C not. Comparing with the fastest alone keeps
    a chain of small steps from becoming one tie, and a rank means one thing: slower than the fastest row of every
    rank before. Neighbours of two ranks may still be alike.
    """
    timed = [row for row in results.rows if row.status in MEASURED and Phase.CAPTION in row.latency_seconds]
    ordered = sorted(timed, key=lambda row: (row.latency_seconds[Phase.CAPTION].median, row_name(row)))
    groups = group_ties(ordered, lambda first, row: not is_slower(row, first, results))
    return {row_name(row): rank for row, rank in rank_groups(groups)}


def is_slower(row: Result, other: Result, results: Results) -> bool:
    """Whether `row` is slower than `other` beyond noise."""
    faster = speed_up(row, other, results)
    return faster is not None and faster.certain and faster.ratio < 1


def group_ties(ordered: Iterable[Item], alike: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """`ordered` in groups: an item joins the last group where `alike(its first, item)`, or opens another."""
    groups: list[list[Item]] = []
    for item in ordered:
        if groups and alike(groups[-1][0], item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def rank_groups(groups: Sequence[Sequence[Item]]) -> Iterable[tuple[Item, Rank]]:
    """Each item with its rank, as in a race: 1, 2=, 2=, 4."""
    place = 1
    for group in groups:
        for item in group:
            yield item, Rank(place, tied=len(group) > 1)
        place += len(group)
