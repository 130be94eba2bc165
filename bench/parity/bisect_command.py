"""`captionbench parity --bisect`: one row against an fp32 row, layer by layer, encoder and step graph."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.launcher import Launcher
from bench.parity.bisect import Bisection, Bisector, Feeds, Side, default_tolerance
from bench.parity.command import Selection, check_comparable_rows, find_cell, select
from bench.parity.examining import save_trace
from bench.parity.reproduction import write_reproduction
from bench.parity.trace import open_trace
from bench.preparing import Options, Prepared, caption_cells, prepare
from bench.suite import Cell, Suite
from convert.artifact import ENCODER
from convert.recipe import Format, Graph
from convert.scheme import FLOAT
from convert.store import Store
from models.decoding import Search
from models.errors import ConfigError
from models.vocabulary import START

# Pictures, and a step in the middle of each one's caption.
CASES = 4


def run_bisect(
    suite: Suite, store: Store, launcher: Launcher, out: Path, options: Options, selection: Selection
) -> list[tuple[Bisection, Path | None]]:
    """Bisect encoder and step; each with the folder of its reproduction, None where all is within tolerance.

    Raises ConfigError for rows that can't be bisected.
    """
    own, reference = _pair(suite, selection)
    prepared = prepare(
        select(suite, Selection((own.name,), reference.name)), store, launcher, replace(options, images=CASES)
    )
    for cell in (own, reference):
        if cell not in prepared.cells:
            raise ConfigError(f"{cell.name} can't be run: {prepared.failures[cell].reason}.")
    check_comparable_rows(own, reference, prepared)
    encoder, step = _feeds(prepared, reference)
    tolerance = default_tolerance(prepared.cells[own], prepared.cells[reference])
    with TemporaryDirectory() as work:
        return [
            _bisect(prepared, own, reference, graph, feeds, tolerance, Path(work), out)
            for graph, feeds in ((ENCODER, encoder), (str(Graph.STEP), step))
        ]


def _bisect(
    prepared: Prepared,
    own: Cell,
    reference: Cell,
    graph: str,
    feeds: list[Feeds],
    tolerance: float,
    work: Path,
    out: Path,
) -> tuple[Bisection, Path | None]:
    theirs, ours = (Side.of(prepared.cells[cell], graph, cell.runtime) for cell in (reference, own))
    found = Bisector(prepared.bench.launcher, theirs, ours, feeds, work).bisect(graph, tolerance)
    if found.suspect is None:
        return found, None
    versions = ", ".join(f"{name} {version}" for name, version in prepared.bench.versions.items())
    said = f"`{own.name}` against `{reference.name}`; {versions}."
    return found, write_reproduction(found, found.suspect, out / graph, said=said)


def _pair(suite: Suite, selection: Selection) -> tuple[Cell, Cell]:
    """The row, and what it is compared with: by default the fp32 row of its format. Raises ConfigError."""
    if len(selection.rows) != 1:
        raise ConfigError(f"--bisect takes one --row, the one in doubt; received {len(selection.rows)}.")
    own = find_cell(suite, selection.rows[0])
    if selection.reference:
        reference = find_cell(suite, selection.reference)
    else:
        kin = replace(own.recipe, encoder=FLOAT, decoder=FLOAT)
        reference = next((c for c in suite.cells if (c.recipe, c.runtime) == (kin, own.runtime)), own)
    for cell in (own, reference):
        if cell.recipe.graph is not Graph.STEP or cell.recipe.format not in (Format.ONNX, Format.TFLITE):
            raise ConfigError(f"{cell.name} can't be cut into layers; choose ONNX or TFLite rows of the step graph.")
    if own == reference:
        raise ConfigError(f"the suite has no other row to bisect {own.name} against; name one with --reference.")
    return own, reference


def _feeds(prepared: Prepared, reference: Cell) -> tuple[list[Feeds], list[Feeds]]:
    """What both graphs take: from the reference's trace, its pixels, and its state in the middle of a caption."""
    captioned = caption_cells(replace(prepared, cells={reference: prepared.cells[reference]}))
    if reference not in captioned:
        raise ConfigError(f"{reference.name} can't be run: {prepared.failures[reference].reason}.")
    with TemporaryDirectory() as folder:
        where = Path(folder) / "trace"
        save_trace(prepared.bench, reference, prepared.cells[reference], captioned[reference], where)
        pairs = list(_read_feeds(where))
    return [encoder for encoder, _ in pairs], [step for _, step in pairs]


def _read_feeds(folder: Path) -> Iterator[tuple[Feeds, Feeds]]:
    trace = open_trace(folder)
    for image, known in trace.head.images.items():
        tensors, words = trace.read(image), known.captions[Search.GREEDY].ids
        middle = len(words) // 2
        token = words[middle - 1] if middle else START
        state = {name: rows[middle - 1 : middle] for name, rows in tensors.states.items()} if middle else {}
        yield {"image": tensors.pixels[None]}, {**tensors.inputs, **state, "token": np.array([token], np.int32)}
