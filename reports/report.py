"""Results -> Report: rows in order, each beside the baseline, and the one to ship. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.result import Results, Status, row_name
from reports.cautions import Caution, find_cautions
from reports.comparison import Comparison, beats_constant, compare
from reports.speed import MEASURED, Rank, rank_rows, speed_up

# Gains closer than this are a tie when the run measured no noise floor of its own.
TIE_WITHOUT_NOISE_FLOOR = 0.05
# Failing rows come last, those that could never work after those that broke.
_LAST = {Status.INVALID: 1, Status.FAILED: 2, Status.UNSUPPORTED: 3}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a page says, before any formatting.

    `rows` are ordered: baseline, winner, then fastest first, failures last. `winner` is None
    where nothing can be recommended; `tied` are rows that are as good within noise. `ranks` are by
    caption time and name; rows without a sound time have none.
    """

    results: Results
    rows: tuple[Comparison, ...]
    baseline: Comparison | None
    winner: Comparison | None
    tied: tuple[Comparison, ...]
    cautions: tuple[Caution, ...]
    ranks: Mapping[str, Rank]


def make_report(results: Results) -> Report:
    """Compare every row with the baseline, choose the winner and look for what may mislead."""
    reference = next((row for row in results.rows if row_name(row) == results.baseline), None)
    rows = [compare(row, results, reference) for row in results.rows]
    baseline = next((item for item in rows if item.is_baseline), None)
    winner, tied = choose_winner(rows, baseline, results)
    ordered = sorted(rows, key=lambda item: _position(item, winner))
    cautions = find_cautions(results, ordered, baseline)
    return Report(results, tuple(ordered), baseline, winner, tied, cautions, rank_rows(results))


def choose_winner(
    rows: Sequence[Comparison], baseline: Comparison | None, results: Results
) -> tuple[Comparison | None, tuple[Comparison, ...]]:
    """The largest gain (size ratio x speed-up) among measured rows inside the quality gate.

    An artifact that is both the smallest and the fastest always has the largest gain. Gains that can't
    be told from it are a tie, which goes to fewer bytes (they are exact, seconds are not), then to
    higher CIDEr, then to the name.
    """
    if baseline is None or not beats_constant(baseline.row, results):
        return None, ()
    candidates = [item for item in rows if item.in_gate and item.row.status in MEASURED and item.gain is not None]
    if not candidates:
        return None, ()
    best = min(candidates, key=lambda item: (-(item.gain or 0.0), *_tie_order(item)))
    tied = sorted((item for item in candidates if is_as_good(item, best, results)), key=_tie_order)
    return tied[0], tuple(tied[1:])


def is_as_good(item: Comparison, best: Comparison, results: Results) -> bool:
    """Whether the best gain can't be told from this one, for the noise floor or the interval of the times."""
    faster = speed_up(best.row, item.row, results)
    if item is best or faster is None or not item.size_ratio:
        return item is best
    smaller = (best.size_ratio or 0.0) / item.size_ratio
    tolerance = TIE_WITHOUT_NOISE_FLOOR if results.noise_floor is None else results.noise_floor
    unsure = faster.ci99 is not None and smaller * faster.ci99[0] <= 1
    return unsure or smaller * faster.ratio <= 1 + tolerance


def _tie_order(item: Comparison) -> tuple[int, float, str]:
    size, quality = item.row.size_bytes, item.row.quality
    return (size.total if size else 0, -(quality.cider if quality else 0.0), item.name)


def _position(item: Comparison, winner: Comparison | None) -> tuple[int, bool, bool, float, str]:
    caption = item.caption
    seconds = caption.median if caption else float("inf")
    return (
        0 if item.is_baseline else _LAST.get(item.row.status, 0),
        not item.is_baseline,
        item is not winner,
        seconds,
        item.name,
    )
