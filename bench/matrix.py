"""The matrix: technique x precision x format x runtime, each cell built and run once on a tiny captioner.

Runs in one process, in an environment that holds every runtime; nothing is timed. See docs/matrix.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.building import build_suite
from bench.captioning import caption_all, load_sessions
from bench.quality import score_captions
from bench.runtimes import find_runtime
from bench.suite import Cell, Suite
from convert.artifact import Artifact
from convert.recipe import Graph
from convert.scheme import FLOAT
from convert.store import Store
from models.datasets.base import Dataset, Split
from models.decoding import Search
from models.errors import CaptionbenchError, UnsupportedError
from models.keras import tensorflow
from models.progress import say

Sentences = Mapping[str, str]
THREADS = 2


class Outcome(StrEnum):
    """What became of a cell."""

    WORKS = "works"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


@dataclass(frozen=True)
class MatrixCell:
    """One cell: what it is worth, or why it can't be."""

    cell: Cell
    outcome: Outcome
    size_ratio: float | None = None  # fp32 bytes of the same technique, format and runtime over this one's
    captions_identical: float | None = None  # share of images, with that same fp32 cell
    cider: float | None = None
    reason: str = ""
    thread: str = ""


@dataclass(frozen=True)
class _Ran:
    artifact: Artifact
    sentences: Sentences


def run_matrix(suite: Suite, store: Store, dataset: Dataset) -> tuple[MatrixCell, ...]:
    """Build and caption every cell of a suite. One that fails does not stop the others."""
    # TensorFlow takes thread counts only before its first operation, and everything here is one process.
    tensorflow().config.threading.set_intra_op_parallelism_threads(THREADS)
    built = build_suite(suite, store, dataset)
    ran: dict[Cell, _Ran] = {}
    cells: list[MatrixCell] = []
    for number, cell in enumerate(suite.cells, 1):
        say(f"{number}/{len(suite.cells)} {cell.name}")
        artifact = built.artifacts[cell.recipe]
        if isinstance(artifact, CaptionbenchError):
            cells.append(_impossible(cell, artifact))
            continue
        try:
            ran[cell] = _Ran(artifact, dict(_captions(artifact, cell, dataset)))
        except Exception as error:  # a runtime raises what it likes; all mean that this cell does not work
            cells.append(MatrixCell(cell, Outcome.FAILED, reason=_first_line(error)))
            continue
        cells.append(_compared(cell, ran, dataset))
    return tuple(cells)


def _impossible(cell: Cell, error: CaptionbenchError) -> MatrixCell:
    outcome = Outcome.UNSUPPORTED if isinstance(error, UnsupportedError) else Outcome.FAILED
    return MatrixCell(cell, outcome, reason=str(error), thread=getattr(error, "thread", ""))


def _captions(artifact: Artifact, cell: Cell, dataset: Dataset) -> Iterator[tuple[str, str]]:
    with load_sessions(artifact, find_runtime(cell.runtime), threads=THREADS) as loaded:
        encoded = ((image.id, dataset.read(image.id)) for image in dataset.images(Split.TEST))
        for name, found in caption_all(loaded, encoded, [Search.GREEDY]):
            yield name, loaded.sentence(found[Search.GREEDY])


def _compared(cell: Cell, ran: Mapping[Cell, _Ran], dataset: Dataset) -> MatrixCell:
    """The cell beside fp32 of the same technique on the same runtime, where that ran."""
    mine = ran[cell]
    references = {image.id: image.references for image in dataset.images(Split.TEST)}
    cider = score_captions(mine.sentences, references).cider
    full = next((ran[other] for other in ran if _is_full_twin(other, cell)), None)
    if full is None:
        return MatrixCell(cell, Outcome.WORKS, cider=cider)
    equal = sum(full.sentences[name] == sentence for name, sentence in mine.sentences.items())
    ratio = full.artifact.size_bytes["total"] / mine.artifact.size_bytes["total"]
    return MatrixCell(cell, Outcome.WORKS, ratio, equal / len(mine.sentences), cider)


def _is_full_twin(other: Cell, cell: Cell) -> bool:
    full, mine = other.recipe, cell.recipe
    alike = (full.technique, full.format, other.runtime) == (mine.technique, mine.format, cell.runtime)
    return alike and full.encoder == full.decoder == FLOAT and full.graph is Graph.STEP


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
