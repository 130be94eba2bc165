"""Ranges of activations from a stream of tensors, in memory that does not grow with their number.

Each tensor keeps one histogram around zero that widens by powers of two: two old bins become one new bin exactly, so
one pass is enough and its result depends on nothing but the values. onnxruntime's own histograms keep every tensor
until the end (microsoft/onnxruntime#10503 and #21979: 200 GB for twenty images).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.scheme import Calibrator

BINS = 4096  # over [-limit, limit]
# Share of values inside a PERCENTILE range; what onnxruntime and TensorRT's documentation call 99.99.
PERCENTILE = 0.9999
# Levels of one sign of INT8, as in NVIDIA's "8-bit inference with TensorRT" (2017), where ENTROPY comes from.
LEVELS = 128
# Thresholds that ENTROPY tries between LEVELS bins and all of them.
CANDIDATES = 96

Range = tuple[float, float]


@dataclass
class Histogram:
    """What was seen of one tensor: exact limits, and counts of values in [-limit, limit]."""

    low: float = 0.0  # never above zero: padding and ReLU need an exact zero
    high: float = 0.0
    limit: float = 0.0  # a power of two
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[Any]) -> None:
        """Count one tensor. Raises ValueError when it holds what is no number."""
        flat = values.reshape(-1).astype(np.float64)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("an activation is infinite or no number")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        if self.limit:
            self.counts += np.histogram(flat, BINS, (-self.limit, self.limit))[0]
        else:
            self.counts[BINS // 2] += flat.size  # nothing but zeros so far

    def _widen(self, reach: float) -> None:
        needed = 2.0 ** np.ceil(np.log2(reach)) if reach > 0 else 0.0
        if not self.limit and needed:
            self.limit = needed
        while self.limit < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), pairs, np.zeros(BINS // 4, np.int64)])
            self.limit *= 2


def find_range(histogram: Histogram, calibrator: Calibrator) -> Range:
    """(low, high), zero between them."""
    return _FINDERS[calibrator](histogram)


def _min_max(histogram: Histogram) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> Range:
    """The central PERCENTILE of all values; half of what is cut is cut on each side."""
    total = int(histogram.counts.sum())
    if not total or not histogram.limit:
        return _min_max(histogram)
    cut = (1 - PERCENTILE) / 2 * total
    edges = np.linspace(-histogram.limit, histogram.limit, BINS + 1)
    cumulated = np.cumsum(histogram.counts)
    low = edges[int(np.searchsorted(cumulated, cut, side="right"))]
    high = edges[int(np.searchsorted(cumulated, total - cut, side="left")) + 1]
    return _clipped(histogram, -min(low, 0.0), max(high, 0.0))


def _entropy(histogram: Histogram) -> Range:
    """The threshold of |value| whose 128 levels tell most about the distribution (least Kullback-Leibler)."""
    half = BINS // 2
    magnitudes = histogram.counts[half:] + histogram.counts[:half][::-1]
    magnitudes[0] = magnitudes[1]  # ReLU's zeros are exact in every range, and would outweigh all else
    used = int(np.flatnonzero(magnitudes).max(initial=0)) + 1
    if used <= LEVELS or not histogram.limit:
        return _min_max(histogram)
    ends = np.unique(np.linspace(LEVELS, used, CANDIDATES).astype(int))
    losses = [_divergence(magnitudes[:used], int(end)) for end in ends]
    threshold = float(ends[int(np.argmin(losses))]) / half * histogram.limit
    return _clipped(histogram, threshold, threshold)


def _divergence(counts: NDArray[np.int64], end: int) -> float:
    """Kullback-Leibler divergence of `counts` cut at `end` bins from its LEVELS-level approximation."""
    reference = counts[:end].astype(np.float64)
    reference[-1] += counts[end:].sum()  # what is clipped piles up at the end
    kept = counts[:end].astype(np.float64)
    level = np.minimum(np.arange(end) * LEVELS // end, LEVELS - 1)
    filled = kept > 0
    sums = np.bincount(level, kept, LEVELS)
    bins = np.maximum(np.bincount(level, filled, LEVELS), 1)
    spread = np.where(filled, (sums / bins)[level], 0.0)
    present = reference > 0
    p, q = reference[present] / reference.sum(), spread[present] / max(spread.sum(), 1.0)
    return float(np.sum(p * np.log(p / np.maximum(q, 1e-9))))


def _clipped(histogram: Histogram, below: float, above: float) -> Range:
    return float(max(histogram.low, -below)), float(min(histogram.high, above))


_FINDERS: dict[Calibrator, Callable[[Histogram], Range]] = {
    Calibrator.MIN_MAX: _min_max,
    Calibrator.PERCENTILE: _percentile,
    Calibrator.ENTROPY: _entropy,
}


@dataclass
class RangeRecorder:
    """Histograms of named tensors."""

    histograms: dict[str, Histogram] = field(default_factory=dict)

    def record(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Count one run's tensors."""
        for name, values in tensors.items():
            self.histograms.setdefault(name, Histogram()).add(values)

    def ranges(self, calibrator: Calibrator) -> dict[str, Range]:
        """The range of every tensor seen."""
        return {name: find_range(histogram, calibrator) for name, histogram in self.histograms.items()}
