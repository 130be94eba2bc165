"""`captionbench tune`: the smallest mixed-precision form of a captioner whose captions stay within a gate.

Searched on validation images, checked once on test images, which the search never sees.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.building import open_suite_dataset
from bench.compressing import find_captioner
from bench.runtimes import RUNTIMES, Runtime, find_runtime
from bench.suite import Suite, load_suite
from bench.tuning_gate import Gate
from bench.tuning_images import MINIMUM_IMAGES, PILOT_IMAGES, Examination, images_needed, images_of
from bench.tuning_layers import Half, Revert, scheme_of, snr_db, with_scheme
from bench.tuning_search import Search
from bench.tuning_trials import Trial, Trials, precision_text
from convert.build import ArtifactBuilder
from convert.recipe import Format, Recipe, parse_precisions
from convert.scheme import INTEGER, Precision
from convert.store import Entry, Store
from convert.variants import LAYERED_FORMATS
from models.compression.base import Scope
from models.compression.chain import NONE
from models.datasets import Dataset, Split
from models.datasets.scenes import SceneDataset
from models.errors import ConfigError, UnsupportedError
from models.progress import say


@dataclass(frozen=True)
class Request:
    """What a user asks for; `images` 0 chooses their number by how widely CIDEr scatters."""

    captioner: str  # of the suite, or the folder of a trained one
    runtime: str
    gate: Gate
    suite: str = "scenes"
    data: Path | None = None
    images: int = 0


@dataclass(frozen=True)
class Reason:
    """Why a layer (or a whole half, where `layer` is "") is in float."""

    half: Half
    layer: str
    text: str


@dataclass(frozen=True)
class TestCheck:
    """The winner and fp32 on test images."""

    images: int
    reference: Trial
    winner: Trial


@dataclass(frozen=True)
class Tuning:
    """Everything a tuning found. `winner` is None where nothing passed."""

    captioner: Entry
    suite: Suite
    runtime: str
    gate: Gate
    images: int  # validation images
    reference: Trial
    trials: tuple[Trial, ...]  # in the order in which they were run, the reference first
    failures: dict[str, str]  # by precision: what no converter could make
    reverts: tuple[Revert, ...]
    winner: Trial | None
    nearest_miss: Trial
    reasons: tuple[Reason, ...]  # of the winner's layers in float
    test: TestCheck | None


def tune(store: Store, request: Request) -> Tuning:
    """Search, then check on test images. Raises ConfigError, and what building and captioning raise."""
    runtime, format_ = _runtime(request.runtime)
    if request.images and request.images < MINIMUM_IMAGES:
        raise ConfigError(
            f"--images {request.images}: an interval of CIDEr needs at least {MINIMUM_IMAGES}. "
            "Leave it out to have the number chosen."
        )
    suite = load_suite(request.suite)
    dataset = open_suite_dataset(suite, request.data)
    entry = find_captioner(store, request.captioner, suite, dataset)
    with (
        ArtifactBuilder(store, entry, dataset, suite.table.calibration) as builder,
        tempfile.TemporaryDirectory() as work,
    ):
        fp32 = Recipe(entry.facts["spec"]["name"], format_, technique=technique_of(entry))
        encoder, decoder = parse_precisions(Precision.INT8_STATIC, format_)
        int8 = replace(fp32, encoder=encoder, decoder=decoder)
        examination = _examination(builder, runtime, dataset, request, fp32, int8)
        search = Search(Trials(builder, examination, request.gate, fp32), runtime, int8, Path(work))
        say(f"{search.trials.reference.what} on {len(examination.images)} validation images")
        winner = search.run()
        return Tuning(
            captioner=entry,
            suite=suite,
            runtime=runtime.name,
            gate=request.gate,
            images=len(examination.images),
            reference=search.trials.reference,
            trials=tuple(search.trials.done.values()),
            failures={precision_text(recipe): reason for recipe, reason in search.trials.failures.items()},
            reverts=tuple(search.reverts),
            winner=winner,
            nearest_miss=search.trials.nearest_miss,
            reasons=tuple(_reasons(search, winner)) if winner else (),
            test=_check_on_test(search.trials, winner, dataset) if winner else None,
        )


def technique_of(entry: Entry) -> str:
    """The chain that made a captioner, as a suite writes it."""
    records = entry.facts["card"].get("compressions", ())
    if not records:
        return NONE
    if all(record["scope"] == Scope.CAPTIONER for record in records):
        return "+".join(record["technique"] for record in records)
    halves = [
        "+".join(record["technique"] for record in records if record["scope"] in (Scope.CAPTIONER, scope)) or NONE
        for scope in (Scope.ENCODER, Scope.DECODER)
    ]
    return "/".join(halves)


def _runtime(name: str) -> tuple[Runtime, Format]:
    """The runtime and the format it is tuned in. Raises ConfigError."""
    runtime = find_runtime(name)
    fitting = [format_ for format_ in LAYERED_FORMATS if format_ in runtime.formats]
    if not runtime.by_default or not fitting:
        known = [r.name for r in RUNTIMES.values() if r.by_default and set(r.formats) & set(LAYERED_FORMATS)]
        raise ConfigError(
            f"runtime '{name}' reads no format that holds integers layer by layer; tune on {' or '.join(known)}."
        )
    return runtime, fitting[0]


def _examination(
    builder: ArtifactBuilder, runtime: Runtime, dataset: Dataset, request: Request, fp32: Recipe, int8: Recipe
) -> Examination:
    """Validation images: as many as asked for, or as many as fp32 and INT8 on a pilot say are needed."""

    def examination(count: int) -> Examination:
        drawn, images = images_of(dataset, Split.VALIDATION, count)
        return Examination(builder.store, runtime, drawn, dataset.fingerprint, images)

    every = examination(request.images)
    pilot = replace(every, images=every.images[:PILOT_IMAGES])
    trials = Trials(builder, pilot, request.gate, fp32)
    try:
        reference = trials.reference
    except UnsupportedError as error:
        raise ConfigError(f"'{request.captioner}' can't be tuned, for it has no fp32 form: {error}.") from error
    if request.images or len(every.images) <= PILOT_IMAGES:
        return every
    low, high = (trials.run(int8, "static INT8") or reference).ci95
    allowed = -request.gate.lowest_bound(reference.cider)
    return examination(images_needed((high - low) / 2, allowed, len(every.images)))


def _check_on_test(trials: Trials, winner: Trial, dataset: Dataset) -> TestCheck | None:
    """fp32 and the winner on test images; None where there are too few."""
    drawn = isinstance(dataset, SceneDataset)
    try:
        opened, images = images_of(dataset, Split.TEST, len(trials.examination.images) if drawn else 0)
    except ConfigError as error:
        say(f"no check on test images: {error}")
        return None
    final = Trials(
        trials.builder,
        replace(trials.examination, dataset=opened, images=images),
        trials.gate,
        trials.reference_recipe,
    )
    checked = final.run(winner.recipe, "the winner on test images")
    return TestCheck(len(images), final.reference, checked) if checked else None


def _reasons(search: Search, winner: Trial) -> Iterator[Reason]:
    """Of every layer, and of every half, that the winner has in float."""
    if winner.recipe == search.trials.reference_recipe:
        return
    for half in Half:
        scheme = scheme_of(winner.recipe, half)
        if scheme.precision in (Precision.FP16, Precision.FP32):
            integers = [t for r, t in search.trials.done.items() if _differs_only_in(r, winner.recipe, half)]
            yield Reason(half, "", _bound_text("with it in integers", integers, search))
        for layer in scheme.float_layers:
            others = tuple(name for name in scheme.float_layers if name != layer)
            fewer = with_scheme(winner.recipe, half, replace(scheme, float_layers=others))
            measured = [r for r in search.reverts if (r.half, r.layer) == (half, layer)]
            noise = [
                f"signal to noise of the logits {snr_db(r.noise_int8):.1f} dB with it in INT8, "
                f"{snr_db(r.noise_float):.1f} dB in float"
                for r in measured[-1:]
            ]
            tried = [search.trials.done[fewer]] if fewer in search.trials.done else []
            yield Reason(half, layer, "; ".join([*noise, _bound_text("with it in INT8", tried, search)]))


def _differs_only_in(recipe: Recipe, other: Recipe, half: Half) -> bool:
    scheme = scheme_of(recipe, half)
    return scheme.precision in INTEGER and with_scheme(recipe, half, scheme_of(other, half)) == other


def _bound_text(when: str, trials: Sequence[Trial], search: Search) -> str:
    """What the bound would be; the best of several trials."""
    if not trials:
        return f"the bound {when} was not tried"
    bound = max(trial.ci95[0] for trial in trials)
    share = bound / search.trials.reference.cider if search.trials.reference.cider else 0.0
    allowed = -search.trials.gate.max_drop
    return f"the 95 % bound of CIDEr {when} is {bound:+.3f} ({share:+.2%}, allowed {allowed:+.2%})"
