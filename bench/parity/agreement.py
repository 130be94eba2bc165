"""Whether captions are those of another row, string by string and token by token, and why they are not."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from bench.measure import Bench, Captioned
from bench.parity.causes import judge_divergence, noise
from bench.parity.evidence import Examined
from bench.parity.examining import differing_images, examine_rows
from bench.parity.record import Cause, Divergence, Parity
from bench.suite import Cell
from convert.artifact import Artifact
from convert.recipe import Graph
from convert.scheme import FLOAT
from models.compression.chain import learned_technique
from models.decoding import Search

# Of each row in results.json, in all; every caption and every cause is there anyway.
LISTED_DIVERGENCES = 20
_PLANNED = "the suite's plan has the first images alone replayed"


def choose_twin(cell: Cell, cells: Sequence[Cell], baseline: Cell) -> Cell | None:
    """The row that this one's captions should equal: the same captioner after the same training, best in fp32.

    That is the baseline for its own kin. Another captioner's captions would say nothing about a conversion. Where the
    baseline is a loop over prefixes, which has no state to compare and takes a second an image, quantized steps are
    compared with the full-precision step, and that one with the baseline.
    """
    kin = [c for c in cells if _origin(c) == _origin(cell)]
    full = [c for c in kin if c.recipe.encoder == c.recipe.decoder == FLOAT and c.recipe.technique == _origin(c)[1]]
    if baseline not in kin:
        return next(iter([*full, *kin]), None)
    steps = [c for c in full if c.recipe.graph is Graph.STEP]
    if baseline.recipe.graph is Graph.PREFIX and cell.recipe.graph is Graph.STEP and cell not in full:
        return next(iter(steps), baseline)
    return baseline


def _origin(cell: Cell) -> tuple[str, str]:
    """What decides what a row should say; weights that were only rounded should say the same."""
    return cell.recipe.captioner, learned_technique(cell.recipe.technique)


def choose_twins(cells: Sequence[Cell], baseline: Cell) -> dict[Cell, Cell]:
    """The twin of each row that has one."""
    return {cell: twin for cell in cells if (twin := choose_twin(cell, cells, baseline))}


def match_captions(
    bench: Bench,
    cells: Mapping[Cell, Artifact],
    captioned: Mapping[Cell, Captioned],
    twins: Mapping[Cell, Cell],
    *,
    listed: int | None = LISTED_DIVERGENCES,
) -> dict[Cell, dict[Search, Parity]]:
    """Agreement of each row with its twin, by search; a search that one of the two does not offer is left out."""
    examined = examine_rows(bench, cells, captioned, twins)
    return {
        cell: {
            search: compare_captions(
                search, twin.name, captioned[twin], captioned[cell], cells[cell], found, listed=listed
            )
            for search in Search
            if search in captioned[twin].captions and search in captioned[cell].captions
        }
        for cell, twin in twins.items()
        for found in (examined.get(cell, ""),)
    }


def compare_captions(
    search: Search,
    name: str,
    baseline: Captioned,
    captioned: Captioned,
    artifact: Artifact,
    examined: Examined | str,
    *,
    listed: int | None,
) -> Parity:
    """Agreement with the row `name`, whose captions are `baseline`. `listed`: how many divergences are told in full."""
    theirs, ours = baseline.ids(search), captioned.ids(search)
    agreed = [_agreement(theirs[image], ours[image]) for image in theirs]
    divergences = list(_divergences(search, baseline, captioned, artifact, examined))
    return Parity(
        reference=name,
        captions_identical=1 - len(divergences) / len(theirs),
        tokens_identical=sum(equal for equal, _ in agreed) / sum(total for _, total in agreed),
        max_abs_difference=_max_abs_difference(baseline.probe, captioned.probe),
        divergences=tuple(_representative(divergences)[:listed]),
        graph_captions_identical=_graph_captions_identical(search, baseline, captioned, examined),
        pixels_identical=sum(captioned.pixels[i] == baseline.pixels[i] for i in theirs) / len(theirs),
        causes={found.image: found.cause for found in divergences},
        tensors=examined.tensors if isinstance(examined, Examined) else {},
        noise=noise(examined.margin_rms) if isinstance(examined, Examined) else None,
    )


def first_divergence(a: Sequence[int], b: Sequence[int]) -> int:
    """The first step (0-based) at which two captions differ; the shorter's length when one begins the other."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _divergences(
    search: Search, baseline: Captioned, captioned: Captioned, artifact: Artifact, examined: Examined | str
) -> Iterator[Divergence]:
    """Each caption that differs, with its cause where a replay told it."""
    known = examined.evidence.get(search, ()) if isinstance(examined, Examined) else ()
    evidence = {found.image: found for found in known}
    vocabulary = artifact.vocabulary()
    sentences = baseline.sentences(search), captioned.sentences(search)
    ids = baseline.ids(search), captioned.ids(search)
    for image in differing_images(search, captioned, baseline):
        said = sentences[0][image], sentences[1][image]
        if image in evidence and isinstance(examined, Examined):
            yield judge_divergence(evidence[image], examined, vocabulary, said)
        else:
            step = first_divergence(ids[0][image], ids[1][image])
            told = (Cause.UNKNOWN, examined) if isinstance(examined, str) else (Cause.NOT_EXAMINED, _PLANNED)
            yield Divergence(image, *said, step, *told)


def _representative(divergences: Sequence[Divergence]) -> list[Divergence]:
    """Those of every cause in turn, so that a short list shows them all."""
    causes: dict[str, list[Divergence]] = {}
    for found in divergences:
        causes.setdefault(found.cause, []).append(found)
    return [found for found in chain.from_iterable(zip_longest(*causes.values())) if found is not None]


def _graph_captions_identical(
    search: Search, baseline: Captioned, captioned: Captioned, examined: Examined | str
) -> float | None:
    """The share of captions that are the twin's when the graphs are given the twin's own pixels."""
    theirs, ours = baseline.ids(search), captioned.ids(search)
    differing = [i for i in theirs if captioned.pixels[i] != baseline.pixels[i]]
    if isinstance(examined, str):
        again: Mapping[str, tuple[int, ...]] = {}
    else:
        again = examined.graph_captions.get(search, {})
    if any(image not in again for image in differing):
        return None
    graph = ours | {image: tuple(again[image]) for image in differing}
    return sum(graph[image] == theirs[image] for image in theirs) / len(theirs)


def _agreement(a: Sequence[int], b: Sequence[int]) -> tuple[int, int]:
    """(places with the same token, places of the longer caption)."""
    return sum(x == y for x, y in zip(a, b, strict=False)), max(len(a), len(b))


def _max_abs_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    shared = [name for name in a if name in b and a[name].shape == b[name].shape]
    if not shared:
        return None
    return max(float(np.abs(a[name].astype(np.float64) - b[name]).max()) for name in shared)
