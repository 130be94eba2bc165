"""The tables of a report: headline, latency, sizes, quality. Pure."""

from bench.result import Latency, Phase, Quality, Status
from reports.comparison import Comparison
from reports.report import Report
from reports.text import (
    DASH,
    SAME,
    caption_text,
    escape,
    link,
    megabytes,
    milliseconds,
    name_text,
    percent,
    ratio,
    score,
    table,
)
from reports.verdict import row_label

# A 90th percentile of fewer samples is an anecdote.
P90_SAMPLES = 64
_PHASE_NAMES = {
    Phase.LOAD: "load",
    Phase.FIRST_CAPTION: "first caption",
    Phase.PREPROCESS: "preprocess",
    Phase.ENCODE: "encode",
    Phase.STEP: "step",
    Phase.DECODE: "decode",
    Phase.CAPTION: "caption",
}


def headline_table(report: Report, rows: tuple[Comparison, ...] | None = None) -> str:
    """One line a row: bytes, quality, agreement, time, worth."""
    headers = (
        "recipe @ runtime",
        "size (MB)",
        "smaller",
        "BLEU-4",
        "CIDEr",
        "captions identical",
        "caption (ms)",
        "faster",
        "status",
    )
    shown = report.rows if rows is None else rows
    return table(headers, [_headline_cells(report, item) for item in shown], words=(0, 8))


def _headline_cells(report: Report, item: Comparison) -> list[str]:
    row = item.row
    return [
        row_label(report, item),
        megabytes(row.size_bytes.total if row.size_bytes else None),
        DASH if item.is_baseline else ratio(item.size_ratio),
        score(row.quality.bleu_4 if row.quality else None),
        _cider(row.quality),
        identical(report, item),
        _median_with_interval(item.caption),
        _faster(item),
        status_text(item),
    ]


def _cider(quality: Quality | None) -> str:
    if quality is None:
        return DASH
    return f"{score(quality.cider)} ± {score((quality.cider_ci95[1] - quality.cider_ci95[0]) / 2)}"


def identical(report: Report, item: Comparison) -> str:
    """Share and count of captions that are the reference row's."""
    if item.captions_identical is None:
        is_reference = any(c.row.parity and c.row.parity.reference == item.name for c in report.rows)
        return "reference" if is_reference else DASH
    images = item.row.quality.images if item.row.quality else report.results.test_images
    if item.row.parity and item.row.parity.reference == item.name:
        return "reference"
    return f"{percent(item.captions_identical)} ({round(item.captions_identical * images)}/{images})"


def _median_with_interval(latency: Latency | None) -> str:
    if latency is None:
        return DASH
    low, high = latency.ci95
    return f"{milliseconds(latency.median)} [{milliseconds(low)}, {milliseconds(high)}]"


def _faster(item: Comparison) -> str:
    if item.is_baseline or item.speed_up is None:
        return DASH
    return ratio(item.speed_up.ratio) if item.speed_up.certain else SAME


def status_text(item: Comparison) -> str:
    """The worth of a row, why it failed, and the upstream thread."""
    row = item.row
    gate = ", below the quality gate" if item.in_gate is False else ""
    gate += ", **collapsed**" if item.collapsed else ""
    gate += f", {escape(row.note)}" if row.note else ""
    if row.status in (Status.VALID, Status.QUICK):  # why rows are quick stands once, in the cautions
        return f"{row.status}{gate}"
    reason = f": {escape(row.reason)}" if row.reason else ""
    thread = f" ({link('thread', row.thread)})" if row.thread else ""
    return f"{row.status}{gate}{reason}{thread}"


def latency_table(report: Report) -> str:
    """Every phase, each timed on its own, and the peak memory."""
    headers = ("recipe @ runtime", *(f"{name} (ms)" for name in _PHASE_NAMES.values()), "peak memory (MB)")
    rows = [item for item in report.rows if item.row.latency_seconds or item.row.memory]
    cells = []
    for item in rows:
        memory = item.row.memory
        phases = [_median_with_p90(item.row.latency_seconds.get(phase)) for phase in _PHASE_NAMES]
        peak = f"{memory.peak_rss_bytes / 1e6:.0f}" if memory else DASH
        cells.append([name_text(item.name), *phases, peak])
    return table(headers, cells)


def _median_with_p90(latency: Latency | None) -> str:
    if latency is None:
        return DASH
    text = milliseconds(latency.median)
    return f"{text} (p90 {milliseconds(latency.p90)})" if latency.n >= P90_SAMPLES else text


def throughput_table(report: Report) -> str:
    """Images a second in batches; empty where no row was measured so."""
    cells = [
        [name_text(item.name), str(entry.batch), f"{entry.images_per_second:.1f}"]
        for item in report.rows
        for entry in item.row.throughput
    ]
    return table(("recipe @ runtime", "batch", "images/s"), cells) if cells else ""


def size_table(report: Report) -> str:
    """Bytes on disk by part."""
    headers = (
        "recipe @ runtime",
        "total (MB)",
        "encoder (MB)",
        "decoder (MB)",
        "zipped (MB)",
        "weights (MB)",
        "loaded (MB)",
    )
    cells = []
    for item in report.rows:
        sizes = item.row.size_bytes
        if sizes:
            loaded = item.row.memory.loaded_bytes if item.row.memory else None
            parts = (sizes.total, sizes.encoder, sizes.decoder, sizes.deflated, sizes.weights, loaded)
            cells.append([name_text(item.name), *map(megabytes, parts)])
    return table(headers, cells)


def quality_table(report: Report) -> str:
    """Every score, the constant caption among them; beam search where it was run."""
    headers = (
        "captions of",
        "BLEU-1",
        "BLEU-2",
        "BLEU-3",
        "BLEU-4",
        "CIDEr",
        "ROUGE-L",
        "words",
        "distinct captions",
        "paper BLEU-1",
    )
    cells = []
    for item in report.rows:
        if item.row.quality:
            cells.append([f"{name_text(item.name)}, greedy", *_quality_cells(item.row.quality)])
        if item.row.quality_beam3:
            cells.append([f"{name_text(item.name)}, beam 3", *_quality_cells(item.row.quality_beam3)])
    constant = report.results.constant_caption
    if constant:
        label = f"*constant caption* {caption_text(constant.caption)}"
        cells.append([label, *_quality_cells(constant.quality)])
    return table(headers, cells)


def _quality_cells(quality: Quality) -> list[str]:
    bleu = (quality.bleu_1, quality.bleu_2, quality.bleu_3, quality.bleu_4)
    return [
        *map(score, bleu),
        _cider(quality),
        score(quality.rouge_l),
        f"{quality.caption_length_mean:.1f}",
        f"{quality.distinct_captions}/{quality.images}",
        score(quality.paper_bleu_1),
    ]
