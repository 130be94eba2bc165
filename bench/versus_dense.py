"""What compression cost a captioner: a row's captions beside those of its own captioner, uncompressed, in fp32.

The baseline of a suite may be another captioner; a difference from it mixes what compression costs with what the
captioners are worth.
"""

from collections.abc import Mapping, Sequence

from bench.measure import Captioned
from bench.quality import paired_differences
from bench.result import DenseDifference
from bench.suite import Cell
from convert.recipe import Graph
from convert.scheme import FLOAT
from models.compression.chain import NONE
from models.decoding import Search


def choose_dense(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The uncompressed fp32 row of a row's captioner, on its own runtime if there is one; None for such a row."""
    dense = [other for other in cells if other.recipe.captioner == cell.recipe.captioner and _is_dense(other)]
    if not dense or _is_dense(cell):
        return None
    return min(dense, key=lambda other: (other.runtime != cell.runtime, other.recipe.graph is not Graph.STEP))


def compare_with_dense(
    captioned: Captioned, dense: tuple[Cell, Captioned] | None, references: Mapping[str, Sequence[str]]
) -> DenseDifference | None:
    """How much better or worse greedy captions are than the dense row's, on the same images; None if they differ."""
    if dense is None:
        return None
    cell, theirs = dense[0], dense[1].sentences(Search.GREEDY)
    captions = captioned.sentences(Search.GREEDY)
    if captions.keys() != theirs.keys():
        return None
    cider, bleu_4 = paired_differences(captions, theirs, {image: references[image] for image in captions})
    return DenseDifference(cell.name, cider, bleu_4)


def _is_dense(cell: Cell) -> bool:
    recipe = cell.recipe
    return recipe.technique == NONE and recipe.encoder == recipe.decoder == FLOAT
