"""Turns what was captioned and timed into result rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.coverage import caption_coverage, stored_weight_bytes
from bench.measure import Captioned, Timed
from bench.quality import paired_difference_ci95, score_captions
from bench.result import (
    Divergence,
    Memory,
    Parity,
    Part,
    Phase,
    Quality,
    Result,
    RunPlan,
    Sizes,
    Status,
)
from bench.statistics import drift, summarise, verdict
from bench.suite import Cell
from convert.artifact import Artifact
from convert.scheme import FLOAT
from models.compression.chain import technique_halves
from models.decoding import Search

References = Mapping[str, Sequence[str]]

# A report lists a few; every caption is in the row anyway.
LISTED_DIVERGENCES = 20


@dataclass(frozen=True)
class Measured:
    """A row's findings before they are judged."""

    artifact: Artifact
    captioned: Captioned
    timed: Timed | str  # or why timing failed


def failed_row(cell: Cell, version: str, status: Status, reason: str, *, thread: str = "") -> Result:
    """The row of a cell that could not be built or run."""
    techniques = technique_halves(cell.recipe.technique)
    return Result(
        recipe=cell.recipe.name,
        captioner=cell.recipe.captioner,
        encoder=Part(techniques[0], str(cell.recipe.encoder)),
        decoder=Part(techniques[1], str(cell.recipe.decoder)),
        format=cell.recipe.format,
        graph=cell.recipe.graph,
        runtime=cell.runtime,
        runtime_version=version,
        status=status,
        reason=reason,
        thread=thread,
        note=cell.note,
    )


def measured_row(
    cell: Cell,
    measured: Measured,
    *,
    plan: RunPlan,
    references: References,
    baseline: Measured | None,
    twin: tuple[str, Measured] | None,
) -> Result:
    """The row of a cell that ran under `plan`. `twin`: name and findings of the row that its captions should equal."""
    artifact, captioned, timed = measured.artifact, measured.captioned, measured.timed
    status, reason = _judge(plan, timed)
    empty = failed_row(cell, captioned.runtime_version, status, reason)
    compared = {search: _parity(search, captioned, twin) for search in Search}
    quality = _quality(captioned, baseline, references, Search.GREEDY)
    return replace(
        empty,
        size_bytes=Sizes(**artifact.size_bytes, weights=stored_weight_bytes(artifact)),
        sha256=artifact.sha256,
        coverage=caption_coverage(artifact, quality.caption_length_mean if quality else 0.0),
        quality=quality,
        quality_beam3=_quality(captioned, baseline, references, Search.BEAM3),
        parity=compared[Search.GREEDY],
        parity_beam3=compared[Search.BEAM3],
        latency_seconds=_latencies(timed),
        memory=Memory(captioned.peak_rss_bytes, captioned.loaded_bytes),
        captions=captioned.sentences(Search.GREEDY),
    )


def _judge(plan: RunPlan, timed: Timed | str) -> tuple[Status, str]:
    """The verdict by the rules of `bench.statistics`."""
    if isinstance(timed, str):
        return Status.FAILED, timed
    captions = timed.samples(Phase.CAPTION)
    status, reason = verdict(
        plan,
        samples=len(captions),
        seconds=timed.total_seconds,
        drifts=[drift(timed.seconds[Phase.CAPTION])],
        outputs_equal=not timed.differing,
    )
    if plan.quick and not timed.differing:
        return Status.QUICK, "measured with --quick: run again without it before deciding"
    return status, reason


def _latencies(timed: Timed | str) -> dict[Phase, Any]:
    if isinstance(timed, str):
        return {}
    return {phase: summarise(timed.samples(phase)) for phase in timed.seconds}


def _quality(captioned: Captioned, baseline: Measured | None, references: References, search: Search) -> Quality | None:
    """The scores of a search; None where the artifact does not offer it."""
    if search not in captioned.captions:
        return None
    captions = captioned.sentences(search)
    quality = score_captions(captions, references)
    if baseline is None or baseline.captioned is captioned or search not in baseline.captioned.captions:
        return quality
    difference = paired_difference_ci95(captions, baseline.captioned.sentences(search), references)
    return replace(quality, cider_difference_ci95=difference)


def choose_twin(cell: Cell, cells: Sequence[Cell], baseline: Cell) -> Cell | None:
    """The row that this one's captions should equal: the same captioner after the same techniques, best in fp32.

    That is the baseline for its own kin. Another captioner's captions would say nothing about a conversion.
    """
    kin = [
        c for c in cells if (c.recipe.captioner, c.recipe.technique) == (cell.recipe.captioner, cell.recipe.technique)
    ]
    full = [c for c in kin if c.recipe.encoder == c.recipe.decoder == FLOAT]
    return baseline if baseline in kin else next(iter([*full, *kin]), None)


def _parity(search: Search, captioned: Captioned, twin: tuple[str, Measured] | None) -> Parity | None:
    """Agreement with the twin row; None when there is none to agree with, or one of the two has no such search."""
    if twin is None:
        return None
    reference, measured = twin
    baseline = measured.captioned
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
