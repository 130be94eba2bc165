"""Whether captions are those of another row, string by string and token by token."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.measure import Captioned
from bench.result import Divergence, Parity
from bench.suite import Cell
from convert.scheme import FLOAT
from models.decoding import Search

# A report lists a few; every caption is in the row anyway.
LISTED_DIVERGENCES = 20


def choose_twin(cell: Cell, cells: Sequence[Cell], baseline: Cell) -> Cell | None:
    """The row that this one's captions should equal: the same captioner after the same techniques, best in fp32.

    That is the baseline for its own kin. Another captioner's captions would say nothing about a conversion.
    """
    kin = [
        c for c in cells if (c.recipe.captioner, c.recipe.technique) == (cell.recipe.captioner, cell.recipe.technique)
    ]
    full = [c for c in kin if c.recipe.encoder == c.recipe.decoder == FLOAT]
    return baseline if baseline in kin else next(iter([*full, *kin]), None)


def compare_captions(search: Search, captioned: Captioned, twin: tuple[str, Captioned] | None) -> Parity | None:
    """Agreement with the twin row; None when there is none to agree with, or one of the two has no such search."""
    if twin is None:
        return None
    reference, baseline = twin
    if search not in baseline.captions or search not in captioned.captions:
        return None
    theirs, ours = baseline.ids(search), captioned.ids(search)
    differing = [image for image in theirs if theirs[image] != ours[image]]
    agreed = [_agreement(theirs[image], ours[image]) for image in theirs]
    sentences = baseline.sentences(search), captioned.sentences(search)
    listed = [
        Divergence(image, sentences[0][image], sentences[1][image], first_divergence(theirs[image], ours[image]))
        for image in differing[:LISTED_DIVERGENCES]
    ]
    return Parity(
        reference=reference,
        captions_identical=1 - len(differing) / len(theirs),
        tokens_identical=sum(equal for equal, _ in agreed) / sum(total for _, total in agreed),
        max_abs_difference=_max_abs_difference(baseline.probe, captioned.probe),
        divergences=tuple(listed),
    )


def first_divergence(a: Sequence[int], b: Sequence[int]) -> int:
    """The first step (0-based) at which two captions differ; the shorter's length when one begins the other."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _agreement(a: Sequence[int], b: Sequence[int]) -> tuple[int, int]:
    """(places with the same token, places of the longer caption)."""
    return sum(x == y for x, y in zip(a, b, strict=False)), max(len(a), len(b))


def _max_abs_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    shared = [name for name in a if name in b and a[name].shape == b[name].shape]
    if not shared:
        return None
    return max(float(np.abs(a[name].astype(np.float64) - b[name]).max()) for name in shared)
