"""What samples say: medians and percentiles with intervals, paired differences, drift, bootstraps.

Samples of one process are alike, and processes differ: caches, memory layout, the machine's mood. So the unit of every
interval is the round (one process), not the sample.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import t as student_t
from scipy.stats import wilcoxon

from bench.measurement import Difference, Latency, Percentile

FloatArray = NDArray[np.float64]
Rounds = Sequence[Sequence[float]]  # seconds of each round, in time order

# Samples without which a percentile is an anecdote: MLPerf's LoadGen at 99 % confidence
# (https://github.com/mlcommons/inference, loadgen/early_stopping).
PERCENTILES: Mapping[str, tuple[float, int]] = {"p90": (0.90, 64), "p95": (0.95, 130), "p99": (0.99, 662)}
# Paired rounds without which no interval reaches 99 %: 2 / 2**8 < 0.01.
MINIMUM_PAIRS = 8
RESAMPLES = 400  # of rounds, for percentiles

_ALPHA = 0.05
_PAIRED_ALPHA = 0.01  # a report makes dozens of comparisons


def median_ci95(samples: Sequence[float]) -> tuple[float, float]:
    """Distribution-free 95 % interval of the median between two order statistics.

    The number of samples below the median is binomial (n, 1/2): Conover, "Practical Nonparametric
    Statistics", 3rd edition, section 3.2. Under 6 samples no such interval reaches 95 %; the whole
    range is returned.
    """
    ordered = np.sort(_array(samples))
    n = len(ordered)
    rank = int(np.searchsorted(bdtr(np.arange(n + 1), n, 0.5), _ALPHA / 2))
    lowest = max(rank, 1) - 1
    return float(ordered[lowest]), float(ordered[n - 1 - lowest])


def round_medians(rounds: Rounds) -> list[float]:
    """The median of each round that has samples."""
    return [float(np.median(_array(samples))) for samples in rounds if len(samples)]


def median_over_rounds(rounds: Rounds) -> tuple[float, tuple[float, float]]:
    """The median of the rounds' medians, and its 95 % interval: of the samples where only one round has any.

    Under 6 rounds the interval is their whole range, which is less than 95 % sure. Raises ValueError without samples.
    """
    filled = [samples for samples in rounds if len(samples)]
    medians = round_medians(filled) if len(filled) > 1 else [value for samples in filled for value in samples]
    return float(np.median(_array(medians))), median_ci95(medians)


def summarise(rounds: Rounds, *, seed: int = 2012) -> Latency:
    """What the raw seconds of a phase say; rounds may be empty, but not all. Raises ValueError without samples."""
    median, ci95 = median_over_rounds(rounds)
    values = [float(value) for samples in rounds for value in samples]
    return Latency(
        median=median,
        ci95=ci95,
        n=len(values),
        samples=tuple(values),
        rounds=tuple(len(samples) for samples in rounds),
        percentiles={
            name: Percentile(float(np.quantile(values, share)), percentile_ci95(rounds, share, seed=seed))
            for name, (share, enough) in PERCENTILES.items()
            if len(values) >= enough
        },
    )


def percentile_ci95(rounds: Rounds, share: float, *, seed: int) -> tuple[float, float] | None:
    """95 % interval of a percentile of all samples: whole rounds are drawn (cluster bootstrap); None for one round.

    Davison and Hinkley, "Bootstrap Methods and their Application", section 3.8: resample what is independent. Few
    rounds make quantiles of the draws too narrow, so their spread is used with Student's t of the rounds. It covers as
    promised where captions differ by more than processes do (tested at 0.2 and 0.03 of the median).
    """
    filled = [_array(samples) for samples in rounds if len(samples)]
    if len(filled) < 2:
        return None
    draws = np.random.default_rng(seed).integers(len(filled), size=(RESAMPLES, len(filled)))
    values = [np.quantile(np.concatenate([filled[i] for i in draw]), share) for draw in draws]
    reach = math.exp(float(student_t.ppf(1 - _ALPHA / 2, len(filled) - 1) * np.std(np.log(values), ddof=1)))
    value = float(np.quantile(np.concatenate(filled), share))
    return value / reach, value * reach


def paired_difference(mine: Rounds, theirs: Rounds) -> Difference | None:
    """The share by which my median exceeds theirs, with its 99 % interval; None under `MINIMUM_PAIRS` paired rounds.

    Hodges and Lehmann's estimate over the log ratios of the rounds' medians, and the interval that inverts
    Wilcoxon's signed-rank test: rounds of one number ran next to each other, so what slows both cancels out, and a
    disturbed round moves neither much. A round that is empty on one side is left out.
    """
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=False) if len(a) and len(b)]
    if len(pairs) < MINIMUM_PAIRS:
        return None
    medians = np.array([round_medians(pair) for pair in pairs])
    logs = np.log(medians[:, 0] / medians[:, 1])
    first, second = np.triu_indices(len(logs))
    walsh = np.sort((logs[first] + logs[second]) / 2)
    outside = _rejected_walsh_averages(len(logs))
    interval = walsh[outside], walsh[len(walsh) - 1 - outside]
    return Difference(math.expm1(float(np.median(walsh))), (math.expm1(interval[0]), math.expm1(interval[1])))


@functools.cache
def _rejected_walsh_averages(pairs: int) -> int:
    """How many of the ordered Walsh averages lie outside of the interval on each side.

    The signed-rank statistic is the number of them below 0. It depends on the ranks alone, so that any numbers with
    that statistic give its probability; the interval reaches out to the first that is not rejected.
    """
    ranks = np.arange(1.0, pairs + 1)
    likely = (
        statistic
        for statistic in range(1, pairs * (pairs + 1) // 2)
        if wilcoxon(_signed(ranks, statistic), method="exact").pvalue > _PAIRED_ALPHA
    )
    return next(likely) - 1


def _signed(ranks: FloatArray, negative: int) -> FloatArray:
    """Ranks, of which those that sum to `negative` are below 0."""
    signs = np.ones(len(ranks))
    for index in range(len(ranks) - 1, -1, -1):
        if ranks[index] <= negative:
            signs[index] = -1
            negative -= int(ranks[index])
    return ranks * signs


def drift(rounds: Rounds) -> float:
    """Share by which the medians of first and second halves differ; each round's samples in time order.

    Halves are taken within each round and pooled: this asks whether a process is in its steady state. That the
    machine changes from round to round is what interleaving and the noise floor are for. 0 for under two samples.
    """
    halves = [(samples[: len(samples) // 2], samples[-(len(samples) // 2) :]) for samples in rounds if len(samples) > 1]
    first, second = ([value for pair in halves for value in pair[side]] for side in (0, 1))
    return noise_floor(first, second) if first else 0.0


def repeat_gain(fresh: Rounds, repeated: Rounds) -> float:
    """The share by which repeated images are faster than fresh ones at least (99 %, rounds paired).

    0 where that can't be told: few fresh samples in few rounds differ from any others by chance.
    """
    difference = paired_difference(repeated, fresh)
    return max(0.0, -difference.ci99[1]) if difference else 0.0


def noise_floor(a: Sequence[float], b: Sequence[float]) -> float:
    """Share by which the medians of two identical alternatives differ, of the smaller one."""
    low, high = sorted((float(np.median(_array(a))), float(np.median(_array(b)))))
    if low == high:
        return 0.0
    return high / low - 1 if low > 0 else math.inf


def bootstrap_ci95(
    rows: FloatArray, score: Callable[[FloatArray], FloatArray], *, seed: int, resamples: int
) -> tuple[float, float]:
    """Percentile bootstrap over images (Efron 1979): 95 % interval of a score of summed statistics.

    `rows` holds the statistics of one image each; `score` maps sums of rows (resamples x statistics)
    to one score each.
    """
    images = len(rows)
    # How often each image is drawn is all that a sum needs: one matrix product, no gathering.
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    scores = score(draws.astype(np.float64) @ rows)
    low, high = np.quantile(scores, (_ALPHA / 2, 1 - _ALPHA / 2))
    return float(low), float(high)


def _array(samples: Sequence[float]) -> FloatArray:
    if not len(samples):
        raise ValueError("no samples: nothing was timed")
    return np.asarray(samples, dtype=np.float64)
