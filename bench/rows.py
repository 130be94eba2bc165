"""Turns what was captioned and timed into result rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.coverage import caption_coverage, stored_weight_bytes, time_int8
from bench.disturbance import is_disturbed, why_disturbed
from bench.latency import BATCHES
from bench.measure import Captioned
from bench.measurement import Difference, Disturbance, GraphProfile, Latency, Memory, Phase, Throughput
from bench.parity.record import Parity
from bench.quality import paired_differences, score_captions
from bench.result import Part, Quality, Result, Sizes, Status
from bench.roofline import graph_work
from bench.setting import RunPlan
from bench.statistics import drift, paired_difference, repeat_gain, summarise
from bench.suite import Cell
from bench.timed import Timed
from bench.timing import TIMED_IMAGES
from bench.verdict import Evidence, judge
from bench.versus_dense import compare_with_dense
from convert.artifact import Artifact
from models.compression.chain import technique_halves
from models.decoding import Search

References = Mapping[str, Sequence[str]]


SIGHTLESS = "random encoder weights: size and time only"


@dataclass(frozen=True)
class Measured:
    """A row's findings before they are judged."""

    artifact: Artifact
    captioned: Captioned
    timed: Timed | str  # or why timing failed
    profiles: Mapping[str, GraphProfile] = field(default_factory=dict)
    parity: Mapping[Search, Parity] = field(default_factory=dict)  # with the row that its captions should equal


def failed_row(cell: Cell, version: str, status: Status, reason: str, *, thread: str = "") -> Result:
    """The row of a cell that could not be built or run."""
    techniques = technique_halves(cell.recipe.technique)
    return Result(
        recipe=cell.recipe.name,
        captioner=cell.recipe.captioner,
        encoder=Part(techniques[0], str(cell.recipe.encoder)),
        decoder=Part(techniques[1], str(cell.recipe.decoder)),
        format=cell.recipe.format,
        graph=cell.recipe.graph,
        runtime=cell.runtime,
        runtime_version=version,
        status=status,
        reason=reason,
        thread=thread,
        note=cell.note,
    )


def measured_row(
    cell: Cell,
    measured: Measured,
    *,
    plan: RunPlan,
    references: References,
    baseline: Measured | None,
    dense: tuple[Cell, Captioned] | None,
) -> Result:
    """The row of a cell that ran under `plan`; `dense` is its captioner's, uncompressed."""
    artifact, captioned, timed = measured.artifact, measured.captioned, measured.timed
    base = baseline.captioned if baseline else None
    quality = score_search(captioned, base, references, Search.GREEDY)
    status, reason = _judge(plan, measured, baseline)
    empty = failed_row(cell, captioned.runtime_version, status, reason)
    row = replace(
        empty,
        size_bytes=Sizes(**artifact.size_bytes, weights=stored_weight_bytes(artifact)),
        sha256=artifact.sha256,
        coverage=caption_coverage(artifact, quality.caption_length_mean if quality else 0.0),
        quality=quality,
        versus_dense=compare_with_dense(captioned, dense, references),
        quality_beam3=score_search(captioned, base, references, Search.BEAM3),
        parity=measured.parity.get(Search.GREEDY),
        parity_beam3=measured.parity.get(Search.BEAM3),
        memory=Memory(captioned.peak_rss_bytes, captioned.loaded_bytes),
        profiles=measured.profiles,
        work=graph_work(artifact),
        captions=captioned.sentences(Search.GREEDY),
    )
    return row if isinstance(timed, str) else _with_times(row, timed, baseline, plan.seed)


def without_quality(row: Result) -> Result:
    """The row of a captioner that can't see: what it says is worth nothing, what it weighs and takes is."""
    note = "; ".join(filter(None, (row.note, SIGHTLESS)))
    return replace(row, quality=None, quality_beam3=None, versus_dense=None, note=note)


def _with_times(row: Result, timed: Timed, baseline: Measured | None, seed: int) -> Result:
    latencies = {phase: summarise(rounds, seed=seed) for phase, rounds in timed.seconds.items() if timed.samples(phase)}
    words = row.quality.caption_length_mean if row.quality else 0.0
    return replace(
        row,
        coverage=replace(row.coverage, time_int8=time_int8(row.profiles, latencies, words)),
        latency_seconds=latencies,
        versus_baseline=_versus(timed, baseline),
        throughput=tuple(_throughput(latencies, len(row.captions))),
        disturbance=timed.disturbance,
    )


def _versus(timed: Timed, baseline: Measured | None) -> Difference | None:
    """By how much a caption takes longer than the baseline's, rounds paired; None for the baseline itself."""
    if baseline is None or isinstance(baseline.timed, str) or baseline.timed is timed:
        return None
    return paired_difference(timed.seconds.get(Phase.CAPTION, ()), baseline.timed.seconds.get(Phase.CAPTION, ()))


def _throughput(latencies: Mapping[Phase, Latency], images: int) -> Iterator[Throughput]:
    """Captions a second in batches, and of all timed files at once."""
    counts = {**BATCHES, Phase.OFFLINE: min(TIMED_IMAGES, images)}
    for phase, count in counts.items():
        if phase in latencies:
            found = latencies[phase]
            scenario = "offline" if phase is Phase.OFFLINE else "batch"
            yield Throughput(count, count / found.median, (count / found.ci95[1], count / found.ci95[0]), scenario)


def _judge(plan: RunPlan, measured: Measured, baseline: Measured | None) -> tuple[Status, str]:
    """The verdict by the rules of `bench.verdict`."""
    timed = measured.timed
    if isinstance(timed, str):
        return Status.FAILED, timed
    rounds = timed.seconds[Phase.CAPTION]
    return judge(
        plan,
        Evidence(
            samples=sum(map(len, rounds)),
            seconds=timed.total_seconds,
            rounds=sum(bool(len(samples)) for samples in rounds),
            drift=drift(rounds),
            differing=len(timed.differing),
            repeat_gain=repeat_gain(timed.seconds.get(Phase.CAPTION_FRESH, ()), rounds),
            length_change=length_change(measured.captioned, baseline.captioned if baseline else None),
            disturbed=_disturbed(timed.disturbance),
        ),
    )


def _disturbed(disturbance: Disturbance) -> str:
    if disturbance.slowed == 1:
        return "the machine never ran at full speed"
    return why_disturbed(disturbance) if is_disturbed(disturbance) else ""


def length_change(captioned: Captioned, baseline: Captioned | None) -> float:
    """The share by which captions are longer than the baseline's of the same images, END counted: it is a step too."""
    if baseline is None:
        return 0.0
    mine, base = captioned.ids(Search.GREEDY), baseline.ids(Search.GREEDY)
    both = mine.keys() & base.keys()
    return sum(len(mine[image]) for image in both) / sum(len(base[image]) for image in both) - 1


def score_search(
    captioned: Captioned, baseline: Captioned | None, references: References, search: Search
) -> Quality | None:
    """The scores of a search over the images it captioned; None where the artifact does not offer it.

    A captioner without sight captions fewer images than the baseline: then there is no difference from it.
    """
    if search not in captioned.captions:
        return None
    captions = captioned.sentences(search)
    references = {image: references[image] for image in captions}
    quality = score_captions(captions, references)
    if baseline is None or baseline is captioned or search not in baseline.captions:
        return quality
    theirs = baseline.sentences(search)
    if theirs.keys() != captions.keys():
        return quality
    cider, bleu_4 = paired_differences(captions, theirs, references)
    return replace(quality, cider_difference_ci95=cider, bleu_4_difference_ci95=bleu_4)
