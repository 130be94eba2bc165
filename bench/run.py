"""One suite run, end to end: train what is missing, build it, caption, time, score, write results.json."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.environment import commit
from bench.head import choose_examples, constant_caption, describe_captioner, merge_environments
from bench.job import DatasetReference
from bench.launcher import Launcher, WorkerError
from bench.measure import AGAIN, Bench, Captioned, Timed
from bench.quality import cider_mean
from bench.result import (
    Phase,
    Result,
    Results,
    RunPlan,
    Status,
)
from bench.result_file import write_results
from bench.rows import Measured, choose_twin, failed_row, measured_row
from bench.runtimes import find_runtime
from bench.statistics import noise_floor
from bench.suite import Cell, Suite
from convert.artifact import Artifact, load_artifact
from convert.build import ArtifactBuilder, train
from convert.compress import check_techniques, compress
from convert.machine import describe_defaults, machine_kind
from convert.recipe import Format, Recipe
from convert.scheme import INTEGER
from convert.store import Entry, Store
from models.datasets import CaptionedImage, Dataset, Split
from models.errors import CaptionbenchError, CompressionError, ConversionError, TrainingError, UnsupportedError
from models.keras import release_memory
from models.progress import say

# A quick run says whether everything works and roughly how it stands; its rows are never `valid`.
QUICK_ROUNDS, QUICK_SECONDS, QUICK_SAMPLES, QUICK_IMAGES = 1, 1.0, 30, 100


@dataclass(frozen=True)
class Options:
    """What a user may choose for a run."""

    data: Path | None = None
    quick: bool = False
    threads: int = 0  # 0: the suite's
    command: str = ""


@dataclass(frozen=True)
class Built:
    """Captioners by name and technique, and artifacts; an artifact that could not be built is the error."""

    captioners: Mapping[tuple[str, str], Entry]
    artifacts: Mapping[Recipe, Artifact | CaptionbenchError]


def build_suite(suite: Suite, store: Store, dataset: Dataset) -> Built:
    """Train and export what the store lacks. A recipe that fails does not stop the others."""
    if any(_has_onnx_integers(recipe) for recipe in suite.recipes):
        say(describe_defaults(machine_kind()))
    dense = {spec.name: train(store, spec, dataset, cider_mean) for spec in suite.table.captioners}
    pairs = list(dict.fromkeys((recipe.captioner, recipe.technique) for recipe in suite.recipes))
    for name, entry in dense.items():
        chains = [technique for captioner, technique in pairs if captioner == name]
        check_techniques(store, entry, chains, dataset, cider_mean)
    captioners: dict[tuple[str, str], Entry] = {}
    artifacts: dict[Recipe, Artifact | CaptionbenchError] = {}
    for name, technique in pairs:
        recipes = [r for r in suite.recipes if (r.captioner, r.technique) == (name, technique)]
        try:
            entry = compress(store, dense[name], technique, dataset, cider_mean)
        except (CompressionError, TrainingError) as error:
            say(f"{name} {technique}: {error}")
            artifacts |= dict.fromkeys(recipes, error)
            continue
        captioners[name, technique] = entry
        with ArtifactBuilder(store, entry, dataset, suite.table.calibration) as builder:
            artifacts |= _build_recipes(builder, recipes)
        release_memory()
    new = sum(not entry.reused for entry in captioners.values())
    say(f"{new} of {len(captioners)} captioners trained or compressed now, {len(artifacts)} artifacts")
    return Built(captioners, artifacts)


def _has_onnx_integers(recipe: Recipe) -> bool:
    return recipe.format is Format.ONNX and not {recipe.encoder.precision, recipe.decoder.precision}.isdisjoint(INTEGER)


def _build_recipes(builder: ArtifactBuilder, recipes: Sequence[Recipe]) -> dict[Recipe, Artifact | CaptionbenchError]:
    """The artifacts of one captioner."""
    artifacts: dict[Recipe, Artifact | CaptionbenchError] = {}
    for recipe in recipes:
        try:
            artifacts[recipe] = load_artifact(builder.build(recipe).path)
        except ConversionError as error:
            say(f"{recipe.name}: {error}")
            artifacts[recipe] = error
    return artifacts


def run_suite(suite: Suite, store: Store, launcher: Launcher, out: Path, options: Options) -> Path:
    """Run a suite and write `out/results.json`; returns its path."""
    reference = _dataset_reference(suite, options.data)
    dataset = reference.open()
    built = build_suite(suite, store, dataset)
    described = _describe_runtimes(suite, launcher)
    versions = {name: found["version"] for name, found in described.items() if not isinstance(found, str)}
    test = _test_images(suite, dataset, options)
    images = tuple(image.id for image in test)
    plan = _plan(suite, options)
    bench = Bench(store, launcher, reference, dataset.fingerprint, images, plan, versions)
    cells, failures = _runnable(suite, built, described)
    measured, floor = _measure(bench, cells, failures, suite.table.baseline)
    references = {image.id: image.references for image in test}
    say("scoring")
    rows = _rows(suite, plan, measured, failures, references)
    results = Results(
        suite=suite.name,
        title=suite.table.title,
        dataset=dataset.name,
        test_images=len(test),
        commit=commit(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=merge_environments(described),
        run_plan=plan,
        captioners=tuple(describe_captioner(entry, name[1]) for name, entry in built.captioners.items()),
        constant_caption=constant_caption(dataset, references),
        baseline=suite.table.baseline,
        noise_floor=floor,
        examples=choose_examples(dataset, test, rows, out),
        rows=rows,
    )
    write_results(results, out / "results.json")
    bench.forget_timing({cell: found.artifact for cell, found in measured.items()})
    return out / "results.json"


def open_suite_dataset(suite: Suite, data: Path | None) -> Dataset:
    """The data set of a suite. Raises DataError when it can't be had."""
    return _dataset_reference(suite, data).open()


def _dataset_reference(suite: Suite, data: Path | None) -> DatasetReference:
    return DatasetReference(suite.table.dataset, str(data.absolute()) if data else "", suite.table.dataset_options)


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


def _measure(
    bench: Bench, cells: Mapping[Cell, Artifact], failures: dict[Cell, Result], baseline: str
) -> tuple[dict[Cell, Measured], float | None]:
    """Caption and time what can run; cells whose captioning failed join `failures`."""
    captioned: dict[Cell, Captioned] = {}
    for cell, artifact in cells.items():
        say(f"captioning {len(bench.images)} images: {cell.name}")
        try:
            captioned[cell] = bench.caption(cell, artifact)
        except WorkerError as error:
            say(f"{cell.name}: {error}")
            failures[cell] = failed_row(cell, bench.versions[cell.runtime], Status.FAILED, str(error))
    ready = {cell: cells[cell] for cell in captioned}
    if not ready:
        return {}, None
    timed = bench.time(ready, captioned, baseline=baseline)
    measured = {cell: Measured(cells[cell], captioned[cell], timed[cell.name]) for cell in ready}
    return measured, _noise_floor(timed)


def _noise_floor(timed: Mapping[str, Timed | str]) -> float | None:
    """The relative difference of the captions' median between two measurements of one artifact."""
    again = next(name for name in timed if name.endswith(AGAIN))
    first, second = timed[again.removesuffix(AGAIN)], timed[again]
    if isinstance(first, str) or isinstance(second, str):
        return None
    return noise_floor(first.samples(Phase.CAPTION), second.samples(Phase.CAPTION))


def _rows(
    suite: Suite,
    plan: RunPlan,
    measured: Mapping[Cell, Measured],
    failures: Mapping[Cell, Result],
    references: Mapping[str, tuple[str, ...]],
) -> tuple[Result, ...]:
    """All rows in the suite's order."""
    ran = [cell for cell in suite.cells if cell in measured]
    baseline = measured.get(suite.baseline)

    def row(cell: Cell) -> Result:
        if cell in failures:
            return failures[cell]
        chosen = choose_twin(cell, ran, suite.baseline)
        twin = (chosen.name, measured[chosen]) if chosen and chosen in measured else None
        return measured_row(cell, measured[cell], plan=plan, references=references, baseline=baseline, twin=twin)

    return tuple(row(cell) for cell in suite.cells)


def _plan(suite: Suite, options: Options) -> RunPlan:
    plan = suite.table.plan
    if options.threads:
        plan = dataclasses.replace(plan, threads=options.threads)
    if not options.quick:
        return plan
    return dataclasses.replace(
        plan, rounds=QUICK_ROUNDS, minimum_seconds=QUICK_SECONDS, minimum_samples=QUICK_SAMPLES, quick=True
    )


def _test_images(suite: Suite, dataset: Dataset, options: Options) -> list[CaptionedImage]:
    images = list(dataset.images(Split.TEST))
    limit = suite.table.test_images or len(images)
    return images[: min(limit, QUICK_IMAGES) if options.quick else limit]
