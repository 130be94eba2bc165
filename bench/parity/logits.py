"""Logits as numbers to compare: log-probabilities, the best words, and margins between them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decoding import log_softmax

Array = NDArray[Any]
# The words that are likeliest at a step, of each side.
CHOICES = 2


def scores_of(logits: Array) -> Array:
    """Log-probabilities (vocabulary,) of one step's logits, as a search sees them."""
    scores: Array = log_softmax(logits[None])[0]
    return scores


def best_of(scores: Array) -> tuple[tuple[int, float], ...]:
    """The likeliest (token, log-probability), best first."""
    order = np.argsort(-scores, kind="stable")[:CHOICES]
    return tuple((int(index), float(scores[index])) for index in order)


def centred(logits: Array) -> Array:
    """Without their mean over words, which no softmax sees."""
    wide = logits.astype(np.float64)
    result: Array = wide - wide.mean(axis=1, keepdims=True)
    return result


def margin_errors(reference: Array, own: Array) -> Array:
    """By how much the margin between the reference's two best words is off, at each step."""
    best = np.argsort(-np.stack([scores_of(row) for row in reference]), axis=1, kind="stable")[:, :2]
    rows = np.arange(len(reference))
    theirs, ours = (
        values[rows, best[:, 0]].astype(np.float64) - values[rows, best[:, 1]] for values in (reference, own)
    )
    errors: Array = ours - theirs
    return errors
