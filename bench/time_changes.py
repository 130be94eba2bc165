"""The soft gate: whether captions became slower between two runs, beyond noise, and whether a third run says so too.

Two runs are two days of one machine, which no statistics over their rounds can know: hence a threshold of 10 % on top
of the intervals, and no alarm before a fresh run has confirmed it.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from bench.change import Change, Metric, Verdict
from bench.measurement import Difference, Phase
from bench.result import Result, Results, Status, row_name
from bench.statistics import Rounds, round_medians

# A smaller share is not worth an alarm on machines that others share.
THRESHOLD = 0.10
_ALPHA = 0.01  # dozens of rows are compared
TIMES: Mapping[Metric, Phase] = {
    Metric.CAPTION_TIME: Phase.CAPTION,
    Metric.ENCODE_TIME: Phase.ENCODE,
    Metric.STEP_TIME: Phase.STEP,
}
_MACHINE = ("cpu", "cores", "isa", "system", "governor", "hypervisor", "cpu_limit")


@dataclass(frozen=True, slots=True)
class Timing:
    """Two measurements of one phase of one row, what lies between them, and whether that is beyond noise."""

    before: float  # median, seconds
    after: float
    difference: Difference
    is_beyond: bool


def incomparable_runs(before: Results, after: Results) -> str:
    """Why no times of two runs can be compared; '' if they can."""
    if before.run_plan.quick or after.run_plan.quick:
        return "measured with --quick"
    if not (_has_rounds(before) and _has_rounds(after)):
        return "a file does not say which sample is of which round (formats 1 and 2, or nothing was timed)"
    pairs = [(name, getattr(before.environment, name), getattr(after.environment, name)) for name in _MACHINE]
    pairs += [(name, getattr(before.run_plan, name), getattr(after.run_plan, name)) for name in ("threads", "cpus")]
    differing = [f"{name} {_shown(old)} and {_shown(new)}" for name, old, new in pairs if old != new]
    if differing:
        return f"another machine or other threads: {'; '.join(differing)}"
    unknown = [name for name, floor in (("first", noise(before)), ("second", noise(after))) if floor is None]
    return f"the noise floor of the {unknown[0]} is not known" if unknown else ""


def _has_rounds(results: Results) -> bool:
    return any(latency.rounds for row in results.rows for latency in row.latency_seconds.values())


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else repr(value)


def noise(results: Results) -> float | None:
    """The share by which identical artifacts differed in a run: the larger of its two estimates."""
    found = [results.noise_floor, abs(results.noise.relative) if results.noise else None]
    return max((value for value in found if value is not None), default=None)


def incomparable_rows(before: Result, after: Result) -> tuple[str, str]:
    """Why no times of a row can be compared, in a word or two and in full; '' twice if they can."""
    for row in (before, after):
        if row.status is not Status.VALID:
            return row.status, row.reason
    if before.runtime_version != after.runtime_version:
        return "another version", f"{before.runtime} {before.runtime_version} and {after.runtime_version}"
    return "", ""


def compare_times(before: Result, after: Result, floor: float) -> dict[Metric, Timing]:
    """What lies between two measurements of a row, by metric; without those of too few rounds.

    `floor` is the share by which identical artifacts differ. Beyond noise means: by more than 10 % and than the floor,
    and all of the 99 % interval on the far side of the floor.
    """
    found = {}
    for metric, phase in TIMES.items():
        old, new = before.latency_seconds.get(phase), after.latency_seconds.get(phase)
        difference = unpaired_difference(new.by_round, old.by_round) if old and new else None
        if old and new and difference:
            found[metric] = Timing(old.median, new.median, difference, _is_beyond(difference, floor))
    return found


def _is_beyond(difference: Difference, floor: float) -> bool:
    """Slower by half is 1.5 times, and so is faster by a third: both directions are judged as ratios."""
    low, high = (math.log1p(bound) for bound in difference.ci99)
    apart = low > math.log1p(floor) or high < -math.log1p(floor)
    return apart and abs(math.log1p(difference.relative)) > math.log1p(max(THRESHOLD, floor))


def time_changes(
    before: Result, timings: Mapping[Metric, Timing], confirming: Mapping[Metric, Timing]
) -> Iterator[Change]:
    """Alarms, suspicions and gains of a row. `confirming` holds the same of a second fresh run.

    Where both runs could be judged, a change counts when both show it. Where one could, slowness stays a suspicion.
    """
    for metric in TIMES:
        judged = [found[metric] for found in (timings, confirming) if metric in found]
        if not judged or not all(timing.is_beyond for timing in judged) or len(set(map(_is_slower, judged))) > 1:
            continue
        first, *second = judged
        slower = Verdict.SLOWER if second else Verdict.SUSPECTED
        yield Change(
            row_name(before),
            metric,
            slower if _is_slower(first) else Verdict.BETTER,
            first.before,
            first.after,
            first.difference.relative,
            first.difference.ci99,
            detail=f"{_text(second[0].difference)} in the confirming run" if second else "",
        )


def unconfirmed(
    timings: Mapping[Metric, Timing], confirming: Mapping[Metric, Timing]
) -> Iterator[tuple[Metric, Timing]]:
    """Suspicions that the second fresh run cleared."""
    for metric, timing in timings.items():
        other = confirming.get(metric)
        if other and timing.is_beyond and _is_slower(timing) and not (other.is_beyond and _is_slower(other)):
            yield metric, timing


def _is_slower(timing: Timing) -> bool:
    return timing.difference.relative > 0


def _text(difference: Difference) -> str:
    return f"{difference.relative:+.1%} [{difference.ci99[0]:+.1%}, {difference.ci99[1]:+.1%}]"


def unpaired_difference(mine: Rounds, theirs: Rounds) -> Difference | None:
    """The share by which my median exceeds theirs, rounds not paired, with its 99 % interval; None for too few rounds.

    Hodges and Lehmann's estimate: the median of all differences between a log median of mine and one of theirs; the
    interval inverts the Mann-Whitney test (Hollander and Wolfe, "Nonparametric Statistical Methods", chapter 4).
    5 rounds on each side are the fewest with which it reaches 99 %.
    """
    logs = [np.log(round_medians(rounds)) for rounds in (mine, theirs)]
    if not all(len(values) for values in logs):
        return None
    rejected = _rejected_differences(len(logs[0]), len(logs[1]))
    if not rejected:
        return None
    ordered = np.sort((logs[0][:, None] - logs[1][None, :]).ravel())
    low, high = ordered[rejected - 1], ordered[len(ordered) - rejected]
    return Difference(math.expm1(float(np.median(ordered))), (math.expm1(low), math.expm1(high)))


@functools.cache
def _rejected_differences(mine: int, theirs: int) -> int:
    """How many of the ordered differences, on each side, a shift must leave behind to be no longer rejected.

    The statistic is the number of differences below a shift. It depends on ranks alone, so any numbers with that
    statistic give its probability.
    """
    for statistic in range(mine * theirs):
        below, split = divmod(statistic, mine)
        ranks = [0.0] * below + [mine - split + 0.5] + [mine + 1.0] * (theirs - below - 1)
        if mannwhitneyu(range(1, mine + 1), ranks, method="exact").pvalue > _ALPHA:
            return statistic
    return 0
