"""Where two beam searches part: the first step at which one keeps what the other drops."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.captioning import FusedCaptioner, LoadedCaptioner
from models.decoding import BEAM_WIDTHS, BeamStep, Caption, Search, Tensors, decode_beam, normalised_score

_NONE = Caption((), -math.inf)


@dataclass(frozen=True)
class Parting:
    """A step, what each search preferred there, and by how much the first did (nats of total log-probability)."""

    step: int
    theirs: Caption
    ours: Caption
    margin: float


def observe_beam(loaded: LoadedCaptioner, inputs: Tensors) -> tuple[Caption, tuple[BeamStep, ...]]:
    """The beam-3 caption of one image, and the steps of its search; none for a fused graph, which has no beam."""
    if isinstance(loaded, FusedCaptioner):
        return _NONE, ()
    steps: list[BeamStep] = []
    caption = decode_beam(
        loaded.step,
        inputs,
        beam=BEAM_WIDTHS[Search.BEAM3],
        max_length=loaded.artifact.contract.max_length,
        observe=lambda _, step: steps.append(step),
    )[0]
    return caption, tuple(steps)


def find_parting(reference: Sequence[BeamStep], own: Sequence[BeamStep]) -> Parting | None:
    """The first step at which the two keep or end different captions, or how they chose among the same in the end."""
    for index, (a, b) in enumerate(zip(reference, own, strict=False)):
        only_a, only_b = _kept(a) - _kept(b), _kept(b) - _kept(a)
        if only_a or only_b:
            theirs, ours = _best(a, only_a) or _overtaken(a, b, only_b), _best(b, only_b) or _overtaken(b, a, only_a)
            return Parting(index, theirs, ours, _total(a, theirs.ids) - _total(a, ours.ids))
    return _final(reference, own)


def _final(reference: Sequence[BeamStep], own: Sequence[BeamStep]) -> Parting | None:
    """Which of the ended captions was said: a choice by normalised score."""
    if not reference or not own:
        return None
    theirs, ours = (_chosen(steps) for steps in (reference, own))
    again = next((c for c in _candidates(reference) if c.ids == ours.ids), ours)
    gap = normalised_score(theirs) - normalised_score(again)
    return Parting(len(reference) - 1, theirs, ours, gap)


def _candidates(steps: Sequence[BeamStep]) -> list[Caption]:
    return [*(caption for step in steps for caption in step.ended), *steps[-1].kept]


def _chosen(steps: Sequence[BeamStep]) -> Caption:
    ended = [caption for step in steps for caption in step.ended]
    return max(ended or list(steps[-1].kept), key=normalised_score)


def _kept(step: BeamStep) -> set[tuple[int, ...]]:
    return {caption.ids for caption in (*step.kept, *step.ended)}


def _best(step: BeamStep, ids: set[tuple[int, ...]]) -> Caption | None:
    found = [caption for caption in (*step.kept, *step.ended) if caption.ids in ids]
    return max(found, key=lambda caption: caption.log_probability, default=None)


def _overtaken(step: BeamStep, other: BeamStep, only_other: set[tuple[int, ...]]) -> Caption:
    """What kept a caption from ending in `step` that ended in `other`: one that stands before it here, and not there.

    A caption may only end among the best `beam`; one whose rank fell behind leaves no other in its place.
    """
    here, there = ([caption.ids for caption in s.considered] for s in (step, other))
    fallen = next((ids for ids in there if ids in only_other), ())
    behind = here.index(fallen) if fallen in here else len(here)
    ahead_there = set(there[: there.index(fallen)]) if fallen in there else set()
    crossed = [caption for caption in step.considered[:behind] if caption.ids not in ahead_there]
    return crossed[-1] if crossed else _NONE  # the one that it is nearest to


def _total(step: BeamStep, ids: tuple[int, ...]) -> float:
    """The total that a search gave a caption; the lowest it considered, or that kept, where it did not rank so high."""
    known = {caption.ids: caption.log_probability for caption in step.considered}
    return known.get(ids, min(known.values(), default=-math.inf))
