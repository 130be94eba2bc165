"""What samples say: medians with intervals, drift, noise floor, bootstraps, and the verdict on a row."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from bench.result import Latency, RunPlan, Status

FloatArray = NDArray[np.float64]

# Shares. A row whose medians moved more than this while it was timed measured the machine, and a
# repeated image that is faster than fresh ones by more than this was remembered, not computed.
MAXIMUM_DRIFT = 0.05
MAXIMUM_REPEAT_GAIN = 0.10

# What a row needs to be valid, whatever a suite's plan says.
MINIMUM_SAMPLES = 64
MINIMUM_SECONDS = 10.0

_ALPHA = 0.05


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


def summarise(samples: Sequence[float]) -> Latency:
    """Median, 90th percentile and interval of raw seconds, in the order they were taken."""
    values = _array(samples)
    return Latency(
        median=float(np.median(values)),
        p90=float(np.quantile(values, 0.9)),
        ci95=median_ci95(samples),
        n=len(values),
        samples=tuple(values.tolist()),
    )


def drift(rounds: Sequence[Sequence[float]]) -> float:
    """Share by which the medians of first and second halves differ; each round's samples in time order.

    Halves are taken within each round and pooled: this asks whether a process is in its steady state. That the
    machine changes from round to round is what interleaving and the noise floor are for. 0 for under two samples.
    """
    halves = [(samples[: len(samples) // 2], samples[-(len(samples) // 2) :]) for samples in rounds if len(samples) > 1]
    first, second = ([value for pair in halves for value in pair[side]] for side in (0, 1))
    return noise_floor(first, second) if first else 0.0


def noise_floor(a: Sequence[float], b: Sequence[float]) -> float:
    """Share by which the medians of two identical alternatives differ, of the smaller one."""
    low, high = sorted((float(np.median(_array(a))), float(np.median(_array(b)))))
    if low == high:
        return 0.0
    return high / low - 1 if low > 0 else math.inf


def verdict(
    plan: RunPlan,
    *,
    samples: int,
    seconds: float,
    drifts: Sequence[float],
    outputs_equal: bool,
    repeat_gain: float = 0.0,
) -> tuple[Status, str]:
    """What a timed row is worth, and why if it is not valid.

    `samples` whole captions took `seconds` in all; `drifts` are what `drift` gave, of which the largest
    counts; `outputs_equal` says that the timed captions were those of the quality run; `repeat_gain` is
    the share by which a repeated image was faster than fresh ones.
    """
    if not outputs_equal:
        return Status.INVALID, "the timed captions differ from those of the quality run"
    if repeat_gain > MAXIMUM_REPEAT_GAIN:
        return (
            Status.INVALID,
            f"a repeated image was {repeat_gain:.0%} faster than fresh ones: results are cached",
        )
    # Drift of few samples is noise, so that a quick row is never called invalid for it. A plan may ask for more,
    # never for less.
    wanted_samples = max(plan.minimum_samples, MINIMUM_SAMPLES)
    wanted_seconds = max(plan.minimum_seconds, MINIMUM_SECONDS)
    if samples < wanted_samples or seconds < wanted_seconds:
        return Status.QUICK, _too_few(wanted_samples, wanted_seconds, samples, seconds)
    worst = max(drifts, default=0.0)
    if worst > MAXIMUM_DRIFT:
        return Status.INVALID, (
            f"medians of the first and second half differ by {worst:.1%}, more than {MAXIMUM_DRIFT:.0%}: "
            "measure again on an idle machine"
        )
    return Status.VALID, ""


def _too_few(wanted_samples: int, wanted_seconds: float, samples: int, seconds: float) -> str:
    return (
        f"{samples} samples in {seconds:.1f} s, and {wanted_samples} in {wanted_seconds:g} s "
        "are needed: run without --quick, or raise the plan's minimum_seconds"
    )


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
