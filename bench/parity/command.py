"""`captionbench parity`: which rows are compared with what, and the golden set that is left for other machines."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.environment import commit
from bench.launcher import Launcher
from bench.measure import Captioned
from bench.parity.agreement import choose_twin, choose_twins, compare_captions, match_captions
from bench.parity.evidence import Examined
from bench.parity.examining import PROBE_IMAGES, read_examined, run_worker, save_trace
from bench.parity.job import ParityJob
from bench.parity.parity_file import PARITY_FILE, write_parity
from bench.parity.record import Parity, ParityRow, ParityRun
from bench.parity.shown import shown_images
from bench.parity.trace import Trace, check_comparable, open_trace
from bench.pictures import find_artifact
from bench.preparing import Options, Prepared, caption_cells, prepare
from bench.published_pictures import write_pictures
from bench.runtimes import runtimes_for
from bench.suite import Cell, Suite
from convert.artifact import Artifact
from convert.store import Store
from models.decoding import Caption, Search
from models.errors import ConfigError, unknown_name
from models.progress import say
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Selection:
    """Rows to compare (none: all), and the row to compare them with ("": each row's twin, the baseline for its kin)."""

    rows: tuple[str, ...] = ()
    reference: str = ""


def run_parity(
    suite: Suite, store: Store, launcher: Launcher, out: Path, options: Options, selection: Selection
) -> ParityRun:
    """Compare captions and write `out/parity.json`. Raises ConfigError for rows that can't be compared."""
    prepared = prepare(select(suite, selection), store, launcher, options)
    captioned = caption_cells(prepared)
    twins = _twins(suite, prepared, captioned, selection.reference)
    ready = {cell: prepared.cells[cell] for cell in captioned}
    found = match_captions(prepared.bench, ready, captioned, twins, listed=None)
    rows = tuple(_row(cell, prepared, found) for cell in _cells(suite, selection))
    run = ParityRun(
        suite=suite.name,
        dataset=prepared.dataset.name,
        images=len(prepared.test),
        command=options.command,
        commit=commit(),
        created=_now(),
        rows=rows,
        pictures=write_pictures(prepared.dataset, shown_images(rows), out),
    )
    write_parity(run, out / PARITY_FILE)
    return run


def save_golden(suite: Suite, store: Store, launcher: Launcher, folder: Path, options: Options, reference: str) -> None:
    """Write what the reference row makes of every test image, pictures included, for machines without TensorFlow.

    Raises ConfigError when the folder is there already, WorkerError when the reference can't be run.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--save {folder}: it is not empty; name a new folder.")
    name = reference or suite.table.baseline
    prepared = prepare(select(suite, Selection((name,), name)), store, launcher, options)
    captioned = caption_cells(prepared)
    cell = find_cell(suite, name)
    if cell not in captioned:
        raise ConfigError(f"{name} can't be run: {prepared.failures[cell].reason}.")
    say(f"saving what {name} makes of {len(prepared.test)} images")
    save_trace(prepared.bench, cell, prepared.cells[cell], captioned[cell], folder)


def select(suite: Suite, selection: Selection) -> Suite:
    """The suite with the selected rows alone, and what they are compared with."""
    return replace(suite, cells=_cells(suite, selection))


def _cells(suite: Suite, selection: Selection) -> tuple[Cell, ...]:
    """The suite's cells, or those that are named, with what they are compared with."""
    if not selection.rows:
        return suite.cells
    chosen = {find_cell(suite, name) for name in selection.rows}
    if selection.reference:
        chosen.add(find_cell(suite, selection.reference))
    else:
        chosen |= {twin for cell in chosen if (twin := choose_twin(cell, suite.cells, suite.baseline))}
    return tuple(cell for cell in suite.cells if cell in chosen)


def find_cell(suite: Suite, name: str) -> Cell:
    """A row of the suite by its name. Raises ConfigError with the nearest."""
    cells = {cell.name: cell for cell in suite.cells}
    if name not in cells:
        raise unknown_name(f"row of suite '{suite.name}'", name, cells)
    return cells[name]


def _twins(suite: Suite, prepared: Prepared, captioned: Mapping[Cell, Captioned], reference: str) -> dict[Cell, Cell]:
    """What each row is compared with. Raises ConfigError naming the field in which a row and its reference differ."""
    ran = [cell for cell in suite.cells if cell in captioned]
    if not reference:
        return choose_twins(ran, suite.baseline)
    twin = find_cell(suite, reference)
    if twin not in captioned:
        raise ConfigError(f"the reference {reference} can't be run: {prepared.failures[twin].reason}.")
    for cell in ran:
        check_comparable_rows(cell, twin, prepared)
    return dict.fromkeys(ran, twin)


def check_comparable_rows(cell: Cell, twin: Cell, prepared: Prepared) -> None:
    """Raises ConfigError naming the field when two rows are not of the same captioner and words."""
    vocabularies = [prepared.cells[c].vocabulary().words for c in (cell, twin)]
    differing = ""
    if cell.recipe.captioner != twin.recipe.captioner:
        differing = f"captioner ('{cell.recipe.captioner}', '{twin.recipe.captioner}')"
    elif vocabularies[0] != vocabularies[1]:
        differing = f"vocabulary ({len(vocabularies[0])} words, {len(vocabularies[1])} words)"
    if differing:
        raise ConfigError(
            f"{cell.name} can't be compared with {twin.name}: another {differing}. "
            "Choose rows with --row, or another --reference."
        )


def _row(cell: Cell, prepared: Prepared, found: Mapping[Cell, Mapping[Search, Parity]]) -> ParityRow:
    precisions = (str(cell.recipe.encoder), str(cell.recipe.decoder))
    empty = ParityRow(cell.recipe.name, cell.runtime, precisions)
    if cell in prepared.failures:
        return replace(empty, reason=prepared.failures[cell].reason)
    if cell not in found:
        return replace(empty, reason="there is no row to compare it with")
    return replace(empty, greedy=found[cell].get(Search.GREEDY), beam3=found[cell].get(Search.BEAM3))


def check_against(
    store: Store, launcher: Launcher, folder: Path, artifact: str, runtime: str, threads: int, command: str
) -> ParityRun:
    """Caption the pictures of a golden set with an artifact, and compare. Neither data set nor reference is needed.

    Raises ConfigError naming the field when it is of another captioner, ArtifactError for a damaged set.
    """
    if not artifact:
        raise ConfigError("--against needs --artifact: the folder of what is to be checked, or its recipe's name.")
    loaded, reference = find_artifact(store, artifact), open_trace(folder)
    chosen = runtime or runtimes_for(loaded.recipe.format)[0]
    check_comparable(reference.head, loaded, reference.head.fingerprint, reference.head.recipe)
    images = tuple(reference.head.images)
    job = ParityJob(str(loaded.path), chosen, threads, None, reference.head.fingerprint, images, images[:PROBE_IMAGES])
    say(f"captioning and comparing {len(images)} images: {loaded.recipe.name} @ {chosen}")
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "examined.json"
        run_worker(launcher, chosen, "examine", job, Path(scratch), folder.absolute(), out)
        examined = read_examined(out)
    greedy, beam3 = _compare_with_trace(reference, examined, loaded)
    precisions = (str(loaded.recipe.encoder), str(loaded.recipe.decoder))
    row = ParityRow(loaded.recipe.name, chosen, precisions, greedy, beam3)
    return ParityRun("", folder.name, len(images), command, commit(), _now(), (row,))


def _compare_with_trace(
    reference: Trace, examined: Examined, artifact: Artifact
) -> tuple[Parity | None, Parity | None]:
    """Agreement with what a golden set holds, greedy and beam; None for a search that the artifact does not offer."""
    head, words = reference.head, artifact.vocabulary()
    saved = {search: {i: found.captions[search] for i, found in head.images.items()} for search in Search}
    hashes = {image: found.pixels_sha256 for image, found in head.images.items()}
    theirs = _captioned(saved, words, hashes)
    ours = _captioned(examined.captions, words, hashes | dict.fromkeys(examined.pixels_differ, ""))
    name = f"{head.recipe} @ {head.runtime}"
    greedy, beam3 = (
        compare_captions(search, name, theirs, ours, artifact, examined, listed=None)
        if search in ours.captions
        else None
        for search in Search
    )
    return greedy, beam3


def _captioned(
    captions: Mapping[Search, Mapping[str, Caption]], vocabulary: Vocabulary, pixels: Mapping[str, str]
) -> Captioned:
    """Captions in the form of a quality run's."""
    tables = {
        search: {
            image: {"caption": vocabulary.decode(said.ids), "ids": said.ids, "log_probability": said.log_probability}
            for image, said in found.items()
        }
        for search, found in captions.items()
    }
    return Captioned(tables, {}, 0, 0, "", pixels)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
