"""What compression cost each captioner in quality, beside its own uncompressed fp32 row. Pure.

The baseline of a report may be another captioner, which a compressed one can beat and still have lost much.
"""

from collections.abc import Iterator

from bench.result import DenseDifference, Quality
from reports.comparison import GATE, Comparison
from reports.report import Report
from reports.tables import gate_text
from reports.text import DASH, SAME, interval, name_text, percent, score, signed_percent, table

HEADERS = (
    "recipe @ runtime",
    "CIDEr, uncompressed",
    "CIDEr",
    "change",
    "CIDEr lost, in the worst case",
    "BLEU-4, change",
    "different captions",
    f"at most {(1 - GATE) * 100:.0f} % of CIDEr lost",
)
NOTE = (
    "Each row beside its own captioner's uncompressed fp32 row on the same images, greedy. Changes are shares of the "
    "uncompressed score, with their 95 % intervals by a paired bootstrap, which draws the same images for both; "
    f"“{SAME}”: the interval holds 0. The last column goes by the scores as measured; it is beyond doubt where the "
    "whole interval agrees."
)


def losses_section(report: Report) -> str:
    """The table, how to read it, and which rows say just the same; empty where nothing was compressed."""
    same = sum(_same_score(item) for item in report.rows if item.row.quality)
    cells = [_line(*each) for each in sorted(_losses(report), key=_by_loss)]
    if not cells:
        return ""
    rest = f" {same} more compressed rows score just what their uncompressed row does." if same else ""
    return f"{table(HEADERS, cells, words=(0, 7))}\n\n{NOTE}{rest}"


# A row, its quality, its uncompressed row's, and how they differ.
_Loss = tuple[Comparison, Quality, Quality, DenseDifference]


def _losses(report: Report) -> Iterator[_Loss]:
    """The rows that score otherwise than their uncompressed row."""
    by_name = {item.name: item for item in report.rows}
    for item in report.rows:
        difference, quality = item.row.versus_dense, item.row.quality
        dense = by_name[difference.reference].row.quality if difference and difference.reference in by_name else None
        if difference and quality and dense and dense.cider > 0 and not _same_score(item):
            yield item, quality, dense, difference


def _by_loss(loss: _Loss) -> tuple[str, float, str]:
    """Captioners apart, what lost least first."""
    item, quality, dense, _ = loss
    return item.row.captioner, -quality.cider / dense.cider, item.name


def _same_score(item: Comparison) -> bool:
    return item.row.versus_dense is not None and item.row.versus_dense.cider_ci95 == (0.0, 0.0)


def _line(item: Comparison, quality: Quality, dense: Quality, difference: DenseDifference) -> list[str]:
    low, high = (bound / dense.cider for bound in difference.cider_ci95)
    return [
        name_text(item.name),
        score(dense.cider),
        score(quality.cider),
        _change(quality.cider - dense.cider, dense.cider, difference.cider_ci95),
        percent(-low) if low < 0 else "nothing",
        _change(quality.bleu_4 - dense.bleu_4, dense.bleu_4, difference.bleu_4_ci95),
        f"{quality.distinct_captions} (of {dense.distinct_captions})",
        gate_text(quality.cider, dense.cider, (-high, -low)),
    ]


def _change(value: float, base: float, ci95: tuple[float, float]) -> str:
    if base <= 0:
        return DASH
    sign = f"{SAME} " if ci95[0] <= 0 <= ci95[1] else ""
    return f"{sign}{signed_percent(value / base)} {interval((ci95[0] / base, ci95[1] / base), signed_percent)}"
