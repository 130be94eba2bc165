"""The tables of a report: headline, sizes, quality and its change. Pure."""

from bench.result import Quality, Status
from reports.comparison import GATE, Comparison, cider_loss_ci95, keeps_quality
from reports.report import Report
from reports.speed import Rank, SpeedUp
from reports.text import (
    DASH,
    SAME,
    caption_text,
    escape,
    interval,
    link,
    median_with_interval,
    megabytes,
    name_text,
    percent,
    ratio,
    ratio_with_interval,
    score,
    signed,
    table,
)
from reports.verdict import row_label

RANK_NOTE = "Rank: by caption time; rows of one rank (“2=”) can't be told from the fastest of them."


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
        "rank",
        "status",
    )
    shown = report.rows if rows is None else rows
    if not shown:
        return "*This run has no rows.*"
    return table(headers, [_headline_cells(report, item) for item in shown], words=(0, 9))


def _headline_cells(report: Report, item: Comparison) -> list[str]:
    row = item.row
    return [
        row_label(report, item),
        megabytes(row.size_bytes.total if row.size_bytes else None),
        DASH if item.is_baseline else ratio(item.size_ratio),
        score(row.quality.bleu_4 if row.quality else None),
        _cider(row.quality),
        identical(report, item),
        median_with_interval(item.caption),
        faster_text(item),
        rank_text(report.ranks.get(item.name)),
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
    images = item.row.quality.images if item.row.quality else len(item.row.captions) or report.results.test_images
    if item.row.parity and item.row.parity.reference == item.name:
        return "reference"
    return f"{percent(item.captions_identical)} ({round(item.captions_identical * images)}/{images})"


def faster_text(item: Comparison) -> str:
    """How many times faster than the baseline."""
    return DASH if item.is_baseline else speed_text(item.speed_up)


def speed_text(faster: SpeedUp | None) -> str:
    """A speed-up with its interval, where one can be claimed."""
    if faster is None:
        return DASH
    return ratio_with_interval(faster.ratio, faster.ci99) if faster.certain else SAME


def rank_text(rank: Rank | None) -> str:
    """A place as in a race: 1, 2=, 2=, 4."""
    if rank is None:
        return DASH
    return f"{rank.place}=" if rank.tied else str(rank.place)


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
    return table(headers, cells) if cells else ""


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
    return table(headers, cells) if cells else ""


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


def change_table(report: Report) -> str:
    """What each row's scores are above or below the baseline's, and what that says of the gate; empty if unknown."""
    headers = (
        "captions of",
        "CIDEr, change",
        "BLEU-4, change",
        "CIDEr lost, in the worst case",
        f"gate: at most {(1 - GATE) * 100:.0f} % lost",
    )
    cells = []
    if report.baseline:
        base = report.baseline.row
        for item in report.rows:
            cells += _change_cells(f"{name_text(item.name)}, greedy", item.row.quality, base.quality, gated=True)
            beam = item.row.quality_beam3, base.quality_beam3
            cells += _change_cells(f"{name_text(item.name)}, beam 3", *beam, gated=False)
    return table(headers, cells, words=(0, 4)) if cells else ""


def _change_cells(label: str, quality: Quality | None, base: Quality | None, *, gated: bool) -> list[list[str]]:
    """One row, or none where the interval is not known; the gate is for greedy captions."""
    lost = cider_loss_ci95(quality, base) if quality and base else None
    if quality is None or base is None or lost is None:
        return []
    return [
        [
            label,
            _change(quality.cider - base.cider, quality.cider_difference_ci95),
            _change(quality.bleu_4 - base.bleu_4, quality.bleu_4_difference_ci95),
            percent(lost[1]) if lost[1] > 0 else "nothing",
            gate_text(quality.cider, base.cider, lost) if gated else DASH,
        ]
    ]


def _change(value: float, ci95: tuple[float, float] | None) -> str:
    if ci95 is None:
        return DASH
    if ci95 == (0.0, 0.0):
        return "none"
    shown = SAME if ci95[0] <= 0 <= ci95[1] else signed(value)
    return f"{shown} {interval(ci95, signed)}"


def gate_text(cider: float, baseline_cider: float, lost: tuple[float, float]) -> str:
    """Whether the gate is kept, and whether the 95 % interval of what is lost lies on that side of it."""
    allowed = 1 - GATE
    if keeps_quality(cider, baseline_cider):
        return "kept" if lost[1] <= allowed else "kept, but not beyond doubt"
    return "missed" if lost[0] > allowed else "missed, but not beyond doubt"
