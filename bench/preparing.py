"""What stands before every run over a suite: data, artifacts, runtimes, images, and captions from the store."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.building import Built, build_suite, dataset_reference
from bench.launcher import Launcher, WorkerError
from bench.measure import Bench, Captioned
from bench.result import Result, Status
from bench.rows import failed_row
from bench.runtimes import find_runtime
from bench.setting import RunPlan
from bench.suite import Cell, Suite
from convert.artifact import Artifact
from convert.store import Store
from models.datasets import CaptionedImage, Dataset, Split
from models.errors import CaptionbenchError, UnsupportedError
from models.progress import say, track

# A quick run says whether everything works and roughly how it stands; its rows are never `valid`.
QUICK_ROUNDS, QUICK_SECONDS, QUICK_SAMPLES, QUICK_IMAGES = 1, 1.0, 30, 100
# Enough to see whether runtimes agree, for captions whose quality is not measured.
SIGHTLESS_IMAGES = 100


@dataclass(frozen=True)
class Options:
    """What a user may choose for a run."""

    data: Path | None = None
    quick: bool = False
    images: int = 0  # of the test split; 0: the suite's
    threads: int = 0  # 0: the suite's
    cpus: tuple[int, ...] = ()  # to time on; (): the suite's
    command: str = ""


@dataclass(frozen=True)
class Prepared:
    """A suite whose artifacts are built. `failures`: rows of the cells that can't run; `cells`: the others."""

    bench: Bench
    dataset: Dataset
    test: tuple[CaptionedImage, ...]
    built: Built
    described: Mapping[str, dict[str, Any] | str]  # by runtime: version and environment, or why it can't run
    cells: Mapping[Cell, Artifact]
    failures: dict[Cell, Result]
    sightless: frozenset[str] = frozenset()  # captioners of which only size and time are worth knowing


def prepare(suite: Suite, store: Store, launcher: Launcher, options: Options) -> Prepared:
    """Build what is missing, and see which runtimes are there."""
    reference = dataset_reference(suite, options.data)
    dataset = reference.open()
    built = build_suite(suite, store, dataset)
    described = _describe_runtimes(suite, launcher)
    versions = {name: found["version"] for name, found in described.items() if not isinstance(found, str)}
    test = tuple(_test_images(suite, dataset, options))
    images = tuple(image.id for image in test)
    bench = Bench(store, launcher, reference, dataset.fingerprint, images, _plan(suite, options), versions)
    return Prepared(bench, dataset, test, built, described, *_runnable(suite, built, described), suite.sightless)


def caption_cells(prepared: Prepared) -> dict[Cell, Captioned]:
    """Captions of all test images by every cell that can run; cells whose captioning failed join the failures."""
    bench, captioned = prepared.bench, {}
    few = dataclasses.replace(bench, images=bench.images[:SIGHTLESS_IMAGES])
    label = f"captioning {len(bench.images)} images on"
    for cell, artifact in track(list(prepared.cells.items()), f"{label} {len(prepared.cells)} rows"):
        say(f"{label} {cell.name}")
        try:
            captions = few if cell.recipe.captioner in prepared.sightless else bench
            captioned[cell] = captions.caption(cell, artifact)
        except WorkerError as error:
            say(f"{cell.name}: {error}")
            version = bench.versions[cell.runtime]
            prepared.failures[cell] = failed_row(cell, version, Status.FAILED, str(error))
    return captioned


def _describe_runtimes(suite: Suite, launcher: Launcher) -> dict[str, dict[str, Any] | str]:
    """By runtime: its version and environment, or why it can't run."""
    described: dict[str, dict[str, Any] | str] = {}
    for name in dict.fromkeys(cell.runtime for cell in suite.cells):
        try:
            found = launcher.describe(name)
        except WorkerError as error:
            described[name] = str(error)
            continue
        package = find_runtime(name).package
        described[name] = found if found["version"] else f"{package} is not installed in {launcher.python(name)}"
    return described


def _runnable(
    suite: Suite, built: Built, described: Mapping[str, dict[str, Any] | str]
) -> tuple[dict[Cell, Artifact], dict[Cell, Result]]:
    """The cells that have an artifact and a runtime, and the rows of those that have not."""
    cells: dict[Cell, Artifact] = {}
    failures: dict[Cell, Result] = {}
    for cell in suite.cells:
        artifact, found = built.artifacts[cell.recipe], described[cell.runtime]
        version = "" if isinstance(found, str) else found["version"]
        if isinstance(artifact, CaptionbenchError):
            unsupported = isinstance(artifact, UnsupportedError)
            status = Status.UNSUPPORTED if unsupported else Status.FAILED
            failures[cell] = failed_row(cell, version, status, str(artifact), thread=getattr(artifact, "thread", ""))
        elif isinstance(found, str):
            failures[cell] = failed_row(cell, "", Status.FAILED, found)
        else:
            cells[cell] = artifact
    return cells, failures


def _plan(suite: Suite, options: Options) -> RunPlan:
    plan = suite.table.plan
    plan = dataclasses.replace(plan, threads=options.threads or plan.threads, cpus=options.cpus or plan.cpus)
    if not options.quick:
        return plan
    return dataclasses.replace(
        plan, rounds=QUICK_ROUNDS, minimum_seconds=QUICK_SECONDS, minimum_samples=QUICK_SAMPLES, quick=True
    )


def _test_images(suite: Suite, dataset: Dataset, options: Options) -> list[CaptionedImage]:
    images = list(dataset.images(Split.TEST))
    limit = options.images or suite.table.test_images or len(images)
    return images[: min(limit, QUICK_IMAGES) if options.quick else limit]
