"""One suite run, end to end: train what is missing, build it, caption, time, score, write results.json."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.environment import commit, load_average
from bench.hashes import run_hashes
from bench.head import choose_examples, constant_caption, describe_captioner, merge_environments
from bench.launcher import Launcher
from bench.measure import AGAIN, Captioned
from bench.measurement import Difference, Phase
from bench.parity.agreement import choose_twins, match_captions
from bench.preparing import Options, Prepared, caption_cells, prepare
from bench.published_pictures import write_pictures
from bench.pytest_benchmark_file import write_benchmarks
from bench.result import Result, Results
from bench.result_file import write_results
from bench.roofline import measure_rooflines
from bench.rows import Measured, References, measured_row, without_quality
from bench.runtime_cost import runtime_costs
from bench.setting import Environment
from bench.statistics import noise_floor, paired_difference
from bench.suite import Cell, Suite
from bench.timed import Timed
from bench.versus_dense import choose_dense
from convert.store import Store
from models.datasets import CaptionedImage, Dataset
from models.progress import say, track

# Test images of which a run keeps a picture for its page.
PICTURES = 1000


def run_suite(suite: Suite, store: Store, launcher: Launcher, out: Path, options: Options) -> Path:
    """Run a suite and write `out/results.json`; returns its path."""
    prepared = prepare(suite, store, launcher, options)
    bench, plan = prepared.bench, prepared.bench.plan
    rooflines = {} if plan.quick else measure_rooflines(store, launcher, bench.versions, plan.threads)
    load_before = load_average()
    captioned = caption_cells(prepared)
    measured, timed = _measure(suite, prepared, captioned)
    artifacts = {cell: found.artifact for cell, found in measured.items()}
    environment = dataclasses.replace(
        merge_environments(prepared.described), load_before=load_before, load_after=load_average()
    )
    results = dataclasses.replace(
        _results(suite, prepared, measured, timed, environment, out),
        command=options.command,
        runtime_costs={} if plan.quick else runtime_costs(store, launcher, bench.versions),
        rooflines=rooflines,
        spent_seconds=_spent(store, bench.timing_seconds(artifacts)),
    )
    write_results(results, out / "results.json")
    write_benchmarks(results, out / "benchmarks.json")
    bench.forget_timing(artifacts)
    return out / "results.json"


def _results(
    suite: Suite,
    prepared: Prepared,
    measured: Mapping[Cell, Measured],
    timed: Mapping[str, Timed | str],
    environment: Environment,
    out: Path,
) -> Results:
    """Rows, and what follows from the suite, its data and the rows; pictures are written beside them."""
    bench, dataset = prepared.bench, prepared.dataset
    references = {image.id: image.references for image in prepared.test}
    say("scoring")
    rows = _rows(suite, prepared, measured, references)
    noise, floor = _noise(timed)
    return Results(
        suite=suite.name,
        title=suite.table.title,
        dataset=dataset.name,
        test_images=len(prepared.test),
        commit=commit(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command="",
        environment=environment,
        run_plan=bench.plan,
        captioners=tuple(describe_captioner(entry, name[1]) for name, entry in prepared.built.captioners.items()),
        constant_caption=constant_caption(dataset, references),
        baseline=suite.table.baseline,
        noise_floor=floor,
        examples=choose_examples(dataset, prepared.test, rows, out),
        rows=rows,
        noise=noise,
        harness_seconds=_harness_seconds(timed),
        forced_steps=bench.forced_steps(
            {cell: found.artifact for cell, found in measured.items()},
            {cell: found.captioned for cell, found in measured.items()},
        ),
        pictures=_pictures(dataset, prepared.test, out),
        references=references if dataset.may_publish_images else {},
        hashes=run_hashes(suite, bench.images, dataset.fingerprint),
    )


# What a run asks the store for -> what a reader calls it.
_WORK = {
    "captioners": "training and compressing",
    "artifacts": "converting",
    "captions": "captioning",
    "parity": "examining captions that differ",
}


def _spent(store: Store, timing: float) -> dict[str, float]:
    """Seconds by kind of work, whichever process did it."""
    kinds = {label: store.spent_on(kind) for kind, label in _WORK.items()}
    return {**kinds, "timing": timing}


def _pictures(dataset: Dataset, images: Sequence[CaptionedImage], out: Path) -> dict[str, str]:
    """Pictures of the test images, as many as a page shows well."""
    return write_pictures(dataset, [image.id for image in images[:PICTURES]], out)


def _measure(
    suite: Suite, prepared: Prepared, captioned: Mapping[Cell, Captioned]
) -> tuple[dict[Cell, Measured], Mapping[str, Timed | str]]:
    """Compare, profile and time what can run."""
    bench = prepared.bench
    ready = {cell: prepared.cells[cell] for cell in captioned}
    if not ready:
        return {}, {}
    parity = match_captions(bench, ready, captioned, choose_twins(list(ready), suite.baseline))
    items = track(list(ready.items()), "looking where the time goes")
    profiles = {cell: bench.profile(cell, artifact) for cell, artifact in items}
    timed = bench.time(ready, captioned)
    measured = {
        cell: Measured(artifact, captioned[cell], timed[cell.name], profiles[cell], parity.get(cell, {}))
        for cell, artifact in ready.items()
    }
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
    suite: Suite, prepared: Prepared, measured: Mapping[Cell, Measured], references: References
) -> tuple[Result, ...]:
    """All rows in the suite's order."""
    baseline, plan = measured.get(suite.baseline), prepared.bench.plan

    def row(cell: Cell) -> Result:
        if cell in prepared.failures:
            return prepared.failures[cell]
        dense = choose_dense(cell, list(measured))
        found = measured_row(
            cell,
            measured[cell],
            plan=plan,
            references=references,
            baseline=baseline,
            dense=(dense, measured[dense].captioned) if dense else None,
        )
        return without_quality(found) if cell.recipe.captioner in prepared.sightless else found

    return tuple(row(cell) for cell in suite.cells)
