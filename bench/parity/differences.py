"""How far tensors are from the reference's: streaming sums, so that memory does not grow with the number of images."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.parity.record import TensorDifference

Array = NDArray[Any]


def relative_error(reference: Array, own: Array) -> float:
    """Root mean square of the difference over that of the reference; 0 when both are zero."""
    wide = reference.astype(np.float64)
    difference, power = float(np.sum((own - wide) ** 2)), float(np.sum(wide**2))
    return math.sqrt(difference / power) if power else (0.0 if difference == 0 else math.inf)


@dataclass(slots=True)
class _Sums:
    """Of one tensor's values so far."""

    count: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    power: float = 0.0
    max_abs: float = 0.0
    cosine: float = 1.0
    tolerance: float = 0.0


@dataclass(slots=True)
class DifferenceMeter:
    """Differences of named tensors over many images; keeps sums and no tensor."""

    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(self, name: str, reference: Array, own: Array) -> None:
        """Count one image's tensor; its first axis is rows (images or steps), of which the lowest cosine is kept."""
        a, b = own.astype(np.float64), reference.astype(np.float64)
        difference = np.abs(a - b)
        sums = self._sums.setdefault(name, _Sums())
        sums.count += difference.size
        sums.absolute += float(difference.sum())
        sums.squared += float((difference**2).sum())
        sums.power += float((b**2).sum())
        sums.max_abs = max(sums.max_abs, float(difference.max(initial=0.0)))
        sums.cosine = min(sums.cosine, _lowest_cosine(a, b))
        sums.tolerance = max(sums.tolerance, float((difference / (1 + np.abs(b))).max(initial=0.0)))

    def results(self) -> dict[str, TensorDifference]:
        """By tensor, over all that was added."""
        return {name: _difference(sums) for name, sums in self._sums.items() if sums.count}


def _difference(sums: _Sums) -> TensorDifference:
    snr = 10 * math.log10(sums.power / sums.squared) if sums.squared and sums.power else None
    return TensorDifference(sums.max_abs, sums.absolute / sums.count, sums.cosine, snr, sums.tolerance)


def _lowest_cosine(a: Array, b: Array) -> float:
    """Of any row; 1 for rows that are equal, zero ones too."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.where(norms > 0, (a * b).sum(axis=1) / norms, (a == b).all(axis=1))
    return float(np.clip(cosines, -1, 1).min(initial=1.0))
