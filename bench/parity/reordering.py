"""Are the logits the reference's in another order? That is a vocabulary or an END that is not the reference's.

Three orders are looked for, and each must explain the difference far better than noise could: a few columns (words)
that stand in each other's places while all others agree; all columns shifted by the same number of places; any order of
all columns, with values equal to rounding. Values alone prove nothing: sorted, the logits of thousands of words look
alike under any noise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A column is out of place when its error is this many times the other columns' (their median).
OUTLIER = 10.0
# In its new place its error may be this many times theirs.
SETTLED = 5.0
# Below this share of the logits' own size a difference is rounding.
ROUNDING = 1e-4
# A shift is told from noise by how alike the logits are where they stand and where they would have moved.
SHIFT_COSINE, STAY_COSINE = 0.9, 0.6
# Fewer steps than this can't tell one word's logits from another's.
STEPS_TO_MATCH = 4


def find_moved(reference: Array, own: Array) -> tuple[int, ...]:
    """Ids of the words whose logits stand in another place, () if none; both are (steps, vocabulary) of one caption."""
    if reference.shape != own.shape or not len(reference):
        return ()
    a, b = reference.astype(np.float64), own.astype(np.float64)
    scale = float(np.std(a)) or 1.0
    return _exchanged(a, b, scale) or _shifted(a, b) or _permuted(a, b, scale)


def _exchanged(reference: Array, own: Array, scale: float) -> tuple[int, ...]:
    """A few columns that stand in each other's places."""
    errors = _rms(own - reference)
    ordinary = max(float(np.median(errors)), ROUNDING * scale)
    suspects = np.flatnonzero(errors > OUTLIER * ordinary)
    if not 2 <= len(suspects) < reference.shape[1] / 2:
        return ()
    return _matched(reference, own, suspects, SETTLED * ordinary)


def _shifted(reference: Array, own: Array) -> tuple[int, ...]:
    """All columns, by the same number of places."""
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (reference, own))
    spectrum = np.fft.rfft(b, axis=1) * np.conj(np.fft.rfft(a, axis=1))
    size = float(np.linalg.norm(a) * np.linalg.norm(b)) or 1.0
    cosines = np.fft.irfft(spectrum, n=a.shape[1], axis=1).sum(axis=0) / size
    if cosines.max() < SHIFT_COSINE or cosines[0] > STAY_COSINE:
        return ()
    return tuple(range(reference.shape[1]))


def _permuted(reference: Array, own: Array, scale: float) -> tuple[int, ...]:
    """Any order of many columns, where the values are otherwise equal."""
    errors = _rms(own - reference)
    suspects = np.flatnonzero(errors > OUTLIER * ROUNDING * scale)
    if len(reference) < STEPS_TO_MATCH or len(suspects) < 2:
        return ()
    order_own, order_reference = (np.lexsort(np.round(v / (ROUNDING * scale))[::-1]) for v in (own, reference))
    if _rms(own[:, order_own] - reference[:, order_reference]).max() > SETTLED * ROUNDING * scale:
        return ()
    return tuple(int(index) for index in suspects)


def _matched(reference: Array, own: Array, suspects: Array, allowed: float) -> tuple[int, ...]:
    """The suspects, if each one's values are those of another one of them, no two of the same."""
    apart = np.sqrt(((own[:, suspects, None] - reference[:, None, suspects]) ** 2).mean(axis=0))
    nearest = apart.argmin(axis=1)
    if len(set(nearest.tolist())) < len(suspects) or (apart.min(axis=1) > allowed).any():
        return ()
    return tuple(int(index) for index in suspects)


def _rms(columns: Array) -> Array:
    rms: Array = np.sqrt((columns**2).mean(axis=0))
    return rms
