"""Each claim of the 2020 study: what it says, what its notebooks print, what we measured, what holds. Pure.

Factual, and thankful: without its public notebooks nothing could be checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measurement import Phase
from bench.result import Quality, Result
from reports.comparison import Comparison
from reports.study.evidence import (
    DECODER_PARAMETERS,
    FLOAT_BYTES,
    KERAS_LOOP,
    MIB,
    PRINTED_MEGABYTES,
    PRINTED_MINUTES,
    Evidence,
    is_bleu_of,
    is_possible,
    pareto_bleu,
    reduction,
)
from reports.study.runs import TEST_IMAGES, DecoderTechnique, EncoderTechnique, StudyRun, find_run
from reports.study.sentences import ABOVE_THE_BEST, FOUR_RUNS
from reports.text import DASH, SAME, caption_text, enumerate_names, interval, megabytes, percent, ratio, score, signed
from reports.waterfall import find_way

NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim; all fields are Markdown.

    `protocol` is our measurement scored or counted as the study does it, `honest` as this project does it.
    """

    title: str
    says: str
    prints: str
    protocol: str
    honest: str
    verdict: str


def check_claims(evidence: Evidence) -> list[Claim]:
    """All of them, in the order of a reader's interest."""
    return [check(evidence) for check in CHECKS]


def _size(evidence: Evidence) -> Claim:
    before, after = PRINTED_MEGABYTES
    base, row = evidence.keras_row, evidence.row(evidence.best)
    return Claim(
        "73.1 % smaller",
        f"{before} MB become {after} MB (abstract: 73.1 %; its repository's page: 71.3 %)",
        f"{percent(reduction(before, after))}: the abstract is right, the page has size and time swapped. "
        f"{after} MB are VGG16's 134.3 million weights in a byte each and an LSTM in fp32",
        _size_text(base, row),
        _smallest(evidence),
        "**Holds**, for the encoder alone: its decoder did not shrink",
    )


def _size_text(base: Result | None, row: Result | None) -> str:
    if not (base and row and base.size_bytes and row.size_bytes):
        return NOT_MEASURED
    share = reduction(base.size_bytes.total, row.size_bytes.total)
    return (
        f"the same combination, with a decoder that is integer too: {megabytes(base.size_bytes.total)} MB become "
        f"{megabytes(row.size_bytes.total)} MB, {percent(share)}"
    )


def _smallest(evidence: Evidence) -> str:
    """The one to ship by our own rule: of the study's captioner, and of all where that is another."""
    reports = [report for report in (evidence.own_terms, evidence.report) if report]
    winners = [report.winner for report in reports if report.winner and not report.winner.is_baseline]
    said = dict.fromkeys(_reduction_text(winner) for winner in winners if winner.row.size_bytes and winner.size_ratio)
    return "; with another captioner, ".join(said) or NOT_MEASURED


def _reduction_text(winner: Comparison) -> str:
    size = winner.row.size_bytes.total if winner.row.size_bytes else 0
    quality = f", CIDEr {score(winner.row.quality.cider)}" if winner.row.quality else ""
    return f"`{winner.name}`: {megabytes(size)} MB, {percent(1 - 1 / (winner.size_ratio or 1))} smaller{quality}"


def _time(evidence: Evidence) -> Claim:
    before, after = PRINTED_MINUTES
    keras, only_qat = evidence.baseline, find_run(evidence.runs, "vgg16", EncoderTechnique.DENSE, DecoderTechnique.QAT)
    return Claim(
        "71.3 % faster",
        f"{before} minutes become {after} (abstract: 71.3 %; its repository's page: 73.1 %)",
        f"{percent(reduction(before, after))}, of the decoder alone: features are read from a file. With the dense "
        f"encoder it is {percent(reduction(keras.minutes, only_qat.minutes))} already, from `Model.predict` to the "
        "TFLite interpreter on the same fp32 numbers",
        _loop_time(evidence),
        _way_text(evidence),
        "**Holds as a number, not as compression**: it is a faster runtime",
    )


def _loop_time(evidence: Evidence) -> str:
    """Seconds of our decoders, counted as the study does: without the encoder."""
    base, row = evidence.keras_row, evidence.row(evidence.best)
    if not (base and row and base.runtime == KERAS_LOOP):
        return NOT_MEASURED
    before, after = base.latency_seconds.get(Phase.DECODE), row.latency_seconds.get(Phase.DECODE)
    if not (before and after):
        return NOT_MEASURED
    minutes = [latency.median * TEST_IMAGES / 60 for latency in (before, after)]
    return f"decoders, 1000 images: {minutes[0]:.2f} minutes become {minutes[1]:.3f}, {percent(reduction(*minutes))}"


def _way_text(evidence: Evidence) -> str:
    """Whole captions of the study's captioner, from pixels: what each kind of change bought."""
    report = evidence.own_terms
    steps = find_way(report) if report else ()
    taken = [(step.name, step.faster) for step in steps if step.faster]
    parts = [f"{name} {ratio(faster.ratio) if faster.certain else SAME}" for name, faster in taken]
    if not parts or report is None or report.winner is None or report.winner.speed_up is None:
        return NOT_MEASURED
    together = report.winner.speed_up.ratio
    return (
        f"whole captions, pixels to words: {', '.join(parts)}; {ratio(together)} together, "
        f"{percent(1 - 1 / together)} less"
    )


def _bleu(evidence: Evidence) -> Claim:
    base, best = evidence.baseline, evidence.best
    constant = evidence.sentences[ABOVE_THE_BEST]
    return Claim(
        "BLEU-1 rises by 7.7 %",
        "0.527 becomes 0.568: compression helps",
        f"{percent(best.bleu[0] / base.bleu[0] - 1)} more BLEU-1 ({base.bleu[0]:.3f} to {best.bleu[0]:.3f}), but "
        f"{percent(best.bleu[3] / base.bleu[3] - 1)} more BLEU-4 ({base.bleu[3]:.4f} to {best.bleu[3]:.4f})",
        f"{caption_text(ABOVE_THE_BEST)} under every image scores {constant.paper_bleu_1:.3f}, more than either; "
        f"{_scores_text(evidence, lambda quality: quality.paper_bleu_1, 'BLEU-1')}",
        f"{_scores_text(evidence, lambda quality: quality.cider, 'CIDEr')}; that sentence has {score(constant.cider)}",
        "**Not shown**: markers count as words, so BLEU-1 does not need the image",
    )


def _scores_text(evidence: Evidence, of: Callable[[Quality], float], name: str) -> str:
    base, row = evidence.keras_row, evidence.row(evidence.best)
    if not (base and row and base.quality and row.quality):
        return NOT_MEASURED
    ends = row.quality.cider_difference_ci95 if name == "CIDEr" else None
    bounds = f", difference {interval(ends, signed)}" if ends else ""
    return f"ours: {name} {score(of(base.quality))} becomes {score(of(row.quality))}{bounds}"


def _quantized(evidence: Evidence) -> Claim:
    run, row = evidence.best, evidence.row(evidence.best)
    stored = (run.decoder_mib or 0.0) * MIB
    ours = row.size_bytes.decoder if row and row.size_bytes else None
    return Claim(
        "A quantized LSTM",
        "the decoder was quantized with training in the loop",
        f"its file has {run.decoder_mib:.3f} MiB: {stored / DECODER_PARAMETERS:.2f} bytes for each of its "
        f"{DECODER_PARAMETERS:,} weights, and fp32 has {FLOAT_BYTES}. The converter was called without optimizations, "
        "and wrappers were on Dense and Dropout, not on the LSTM",
        "a file says what it is: `captionbench inspect`",
        _integer_text(row, ours),
        "**Does not hold**: the file is fp32",
    )


def _integer_text(row: Result | None, decoder_bytes: int | None) -> str:
    if row is None or decoder_bytes is None or row.coverage.weights_int8 is None:
        return NOT_MEASURED
    return f"our decoder's file has {megabytes(decoder_bytes)} MB; {percent(row.coverage.weights_int8)} of weights INT8"


def _samples(evidence: Evidence) -> Claim:
    constant = evidence.sentences[FOUR_RUNS]
    alike = [run for run in evidence.runs if is_bleu_of(run, constant)]
    return Claim(
        "Evaluated on 2000 samples",
        "2000 samples of Flickr8k (its repository's page)",
        f"{len(alike)} runs print {' / '.join(f'{value:.6f}' for value in alike[0].bleu) if alike else DASH}",
        f"{caption_text(FOUR_RUNS)} under each of the {constant.images} official test images scores exactly that, "
        "all four orders to six digits",
        f"CIDEr of that sentence: {score(constant.cider)}; a person's caption has 0.82 against the other four",
        f"**Does not hold**: it was the usual {constant.images} images. The likeliest reading of the equal digits is "
        f"that {len(alike)} captioners say this one sentence whatever they see: {_names(alike)}",
    )


def _names(runs: Sequence[StudyRun]) -> str:
    return enumerate_names([f"({run.name})" for run in runs])


def _best(evidence: Evidence) -> Claim:
    by_first = max(evidence.runs, key=lambda run: run.bleu[0])
    by_fourth = pareto_bleu(evidence.runs)[0]
    return Claim(
        "The best combination is quantized VGG16 with the quantized LSTM",
        "best in size, time and BLEU-1 at once",
        f"highest BLEU-1: {by_first.name} ({by_first.bleu[0]:.3f}, yet BLEU-4 {by_first.bleu[3]:.3f}); highest BLEU-4 "
        f"that is possible: {by_fourth.name} ({by_fourth.bleu[3]:.3f})",
        _ranked(evidence, lambda quality: quality.paper_bleu_1, "BLEU-1"),
        _ranked(evidence, lambda quality: quality.cider, "CIDEr"),
        "**Depends on the measure**; its own table ranks others first",
    )


def _ranked(evidence: Evidence, of: Callable[[Quality], float], name: str) -> str:
    """Where our row of the study's best combination stands among our rows of its combinations."""
    rows = {run.name: evidence.combination(run) for run in evidence.runs}
    scores = {name: of(row.quality) for name, row in rows.items() if row and row.quality}
    own = scores.get(evidence.best.name)
    if own is None:
        return NOT_MEASURED
    place = 1 + sum(value > own for value in scores.values())
    best = max(scores, key=lambda key: scores[key])
    return f"by {name} it is number {place} of {len(scores)}; first: {best} ({score(scores[best])}, it {score(own)})"


def _impossible(evidence: Evidence) -> Claim:
    doubtful = [run for run in evidence.runs if not is_possible(run)]
    shown = [f"{run.name}: {' / '.join(f'{value:.3f}' for value in run.bleu)}" for run in doubtful]
    return Claim(
        "Pruned and post-training quantized decoders work",
        "34 results",
        f"{len(doubtful)} of them print BLEU-4 above BLEU-2, or one value four times: {'; '.join(shown)}",
        "NLTK leaves an order without a match out of the mean, so broken captions score high; here such an order "
        "makes the score 0. BLEU-3 has weights of 0.3 each, which sum to 0.9 and add about 0.03",
        _pruned(evidence),
        "**Not shown** for these runs",
    )


def _pruned(evidence: Evidence) -> str:
    """Our pruned decoders against the dense one."""
    techniques = (DecoderTechnique.DENSE, DecoderTechnique.PRUNED80, DecoderTechnique.PRUNED90)
    runs = [find_run(evidence.runs, "vgg16", EncoderTechnique.DENSE, technique) for technique in techniques]
    found = [(run, row.quality) for run in runs if (row := evidence.combination(run)) and row.quality]
    if len(found) < len(runs):
        return NOT_MEASURED
    told = [f"{run.decoder_technique} {score(q.cider)} ({q.distinct_captions} different captions)" for run, q in found]
    return f"our decoders, CIDEr: {', '.join(told)}"


# A further claim costs one function and one line here.
CHECKS: tuple[Callable[[Evidence], Claim], ...] = (_size, _time, _bleu, _quantized, _samples, _best, _impossible)
