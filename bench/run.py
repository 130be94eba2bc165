"""One suite run, end to end: train what is missing, build it, caption, time, score, write results.json."""

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.building import Built, build_suite, dataset_reference
from bench.environment import commit, load_average
from bench.hashes import run_hashes
from bench.head import choose_examples, constant_caption, describe_captioner, merge_environments
from bench.launcher import Launcher, WorkerError
from bench.measure import AGAIN, Bench, Captioned
from bench.measurement import Difference, Phase
from bench.parity import choose_twin
from bench.pytest_benchmark_file import write_benchmarks
from bench.result import Result, Results, Status
from bench.result_file import write_results
from bench.roofline import measure_rooflines
from bench.rows import Measured, References, failed_row, measured_row
from bench.runtime_cost import runtime_costs
from bench.runtimes import find_runtime
from bench.setting import RunPlan
from bench.statistics import noise_floor, paired_difference
from bench.suite import Cell, Suite
from bench.timed import Timed
from convert.artifact import Artifact
from convert.store import Store
from models.datasets import CaptionedImage, Dataset, Split
from models.errors import CaptionbenchError, UnsupportedError
from models.progress import say

# A quick run says whether everything works and roughly how it stands; its rows are never `valid`.
QUICK_ROUNDS, QUICK_SECONDS, QUICK_SAMPLES, QUICK_IMAGES = 1, 1.0, 30, 100


@dataclass(frozen=True)
class Options:
    """What a user may choose for a run."""

    data: Path | None = None
    quick: bool = False
    threads: int = 0  # 0: the suite's
    cpus: tuple[int, ...] = ()  # to time on; (): the suite's
    command: str = ""


def run_suite(suite: Suite, store: Store, launcher: Launcher, out: Path, options: Options) -> Path:
    """Run a suite and write `out/results.json`; returns its path."""
    reference = dataset_reference(suite, options.data)
    dataset = reference.open()
    built = build_suite(suite, store, dataset)
    described = _describe_runtimes(suite, launcher)
    versions = {name: found["version"] for name, found in described.items() if not isinstance(found, str)}
    test = _test_images(suite, dataset, options)
    images = tuple(image.id for image in test)
    plan = _plan(suite, options)
    bench = Bench(store, launcher, reference, dataset.fingerprint, images, plan, versions)
    cells, failures = _runnable(suite, built, described)
    rooflines = {} if plan.quick else measure_rooflines(store, launcher, versions, plan.threads)
    load_before = load_average()
    measured, timed = _measure(bench, cells, failures)
    environment = dataclasses.replace(merge_environments(described), load_before=load_before, load_after=load_average())
    references = {image.id: image.references for image in test}
    say("scoring")
    rows = _rows(suite, plan, measured, failures, references)
    noise, floor = _noise(timed)
    results = Results(
        suite=suite.name,
        title=suite.table.title,
        dataset=dataset.name,
        test_images=len(test),
        commit=commit(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=environment,
        run_plan=plan,
        captioners=tuple(describe_captioner(entry, name[1]) for name, entry in built.captioners.items()),
        constant_caption=constant_caption(dataset, references),
        baseline=suite.table.baseline,
        noise_floor=floor,
        examples=choose_examples(dataset, test, rows, out),
        rows=rows,
        noise=noise,
        harness_seconds=_harness_seconds(timed),
        forced_steps=bench.forced_steps(
            {cell: found.artifact for cell, found in measured.items()},
            {cell: found.captioned for cell, found in measured.items()},
        ),
        runtime_costs={} if plan.quick else runtime_costs(store, launcher, versions),
        rooflines=rooflines,
        hashes=run_hashes(suite, images, dataset.fingerprint),
    )
    write_results(results, out / "results.json")
    write_benchmarks(results, out / "benchmarks.json")
    bench.forget_timing({cell: found.artifact for cell, found in measured.items()})
    return out / "results.json"


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
    bench: Bench, cells: Mapping[Cell, Artifact], failures: dict[Cell, Result]
) -> tuple[dict[Cell, Measured], Mapping[str, Timed | str]]:
    """Caption, profile and time what can run; cells whose captioning failed join `failures`."""
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
        return {}, {}
    say("looking where the time goes")
    profiles = {cell: bench.profile(cell, artifact) for cell, artifact in ready.items()}
    timed = bench.time(ready, captioned)
    measured = {cell: Measured(cells[cell], captioned[cell], timed[cell.name], profiles[cell]) for cell in ready}
    return measured, timed


def _noise(timed: Mapping[str, Timed | str]) -> tuple[Difference | None, float | None]:
    """How far apart one artifact measured twice came out: the difference, and the most that its interval allows.

    With too few rounds for an interval the floor is the difference itself, either way round.
    """
    again = next((name for name in timed if name.endswith(AGAIN)), "")
    first, second = timed.get(again.removesuffix(AGAIN)), timed.get(again)
    if not isinstance(first, Timed) or not isinstance(second, Timed):
        return None, None
    difference = paired_difference(second.seconds[Phase.CAPTION], first.seconds[Phase.CAPTION])
    if difference is None:
        return None, noise_floor(first.samples(Phase.CAPTION), second.samples(Phase.CAPTION))
    return difference, max(map(abs, difference.ci99))


def _harness_seconds(timed: Mapping[str, Timed | str]) -> float | None:
    return min((found.harness_seconds for found in timed.values() if isinstance(found, Timed)), default=None)


def _rows(
    suite: Suite,
    plan: RunPlan,
    measured: Mapping[Cell, Measured],
    failures: Mapping[Cell, Result],
    references: References,
) -> tuple[Result, ...]:
    """All rows in the suite's order."""
    ran = [cell for cell in suite.cells if cell in measured]
    baseline = measured.get(suite.baseline)

    def row(cell: Cell) -> Result:
        if cell in failures:
            return failures[cell]
        chosen = choose_twin(cell, ran, suite.baseline)
        twin = (chosen.name, measured[chosen].captioned) if chosen and chosen in measured else None
        return measured_row(cell, measured[cell], plan=plan, references=references, baseline=baseline, twin=twin)

    return tuple(row(cell) for cell in suite.cells)


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
    limit = suite.table.test_images or len(images)
    return images[: min(limit, QUICK_IMAGES) if options.quick else limit]
