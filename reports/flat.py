"""A report's rows as flat records, for spreadsheets (CSV) and programs (JSON Lines). Pure.

Units are in the names; a number that was not reached is empty (CSV) or null. Texts that a spreadsheet would run as a
formula get an apostrophe in front (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.measurement import Latency
from bench.result import Quality, Result
from reports.comparison import Comparison, technique_of
from reports.report import Report
from reports.speed import Rank

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Record:
    """One row: what the tables of a report say of it, unrounded. Shares and scores are 0..1 (CIDEr 0..10)."""

    row: str
    captioner: str
    technique: str
    encoder_precision: str
    decoder_precision: str
    format: str
    graph: str
    runtime: str
    runtime_version: str
    status: str
    reason: str
    is_baseline: bool
    to_ship: bool
    size_bytes: int | None
    times_smaller: float | None
    cider: float | None
    cider_low95: float | None
    cider_high95: float | None
    bleu_4: float | None
    rouge_l: float | None
    captions_identical: float | None
    captions_identical_beam3: float | None
    caption_seconds: float | None
    caption_seconds_low95: float | None
    caption_seconds_high95: float | None
    times_faster: float | None
    rank: int | None
    rank_is_tied: bool | None
    weights_int8: float | None
    macs_int8: float | None
    peak_rss_bytes: int | None


def flatten(report: Report) -> list[Record]:
    """All rows in the report's order."""
    return [_record(item, report) for item in report.rows]


def render_csv(report: Report) -> str:
    """A header and a line a row (RFC 4180)."""
    file = io.StringIO()
    writer = csv.DictWriter(file, Record.__dataclass_fields__, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(
        {name: _cell(value) for name, value in record_values(record).items()} for record in flatten(report)
    )
    return file.getvalue()


def render_jsonl(report: Report) -> str:
    """A JSON object a line."""
    return "".join(json.dumps(record_values(record), ensure_ascii=False) + "\n" for record in flatten(report))


def record_values(record: Record) -> dict[str, Any]:
    """The fields by name."""
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _record(item: Comparison, report: Report) -> Record:
    row, rank = item.row, report.ranks.get(item.name)
    return Record(
        row=item.name,
        captioner=row.captioner,
        technique=technique_of(row),
        encoder_precision=row.encoder.precision,
        decoder_precision=row.decoder.precision,
        format=row.format,
        graph=row.graph,
        runtime=row.runtime,
        runtime_version=row.runtime_version,
        status=row.status.value,
        reason=row.reason,
        is_baseline=item.is_baseline,
        to_ship=item is report.winner,
        size_bytes=row.size_bytes.total if row.size_bytes else None,
        times_smaller=item.size_ratio,
        times_faster=item.speed_up.ratio if item.speed_up else None,
        captions_identical=row.parity.captions_identical if row.parity else None,
        captions_identical_beam3=row.parity_beam3.captions_identical if row.parity_beam3 else None,
        **_scores(row.quality),
        **_times(item.caption),
        **_place(rank),
        **_machine(row),
    )


def _scores(quality: Quality | None) -> Mapping[str, Any]:
    if quality is None:
        return dict.fromkeys(("cider", "cider_low95", "cider_high95", "bleu_4", "rouge_l"))
    low, high = quality.cider_ci95
    return {
        "cider": quality.cider,
        "cider_low95": low,
        "cider_high95": high,
        "bleu_4": quality.bleu_4,
        "rouge_l": quality.rouge_l,
    }


def _times(caption: Latency | None) -> Mapping[str, Any]:
    if caption is None:
        return dict.fromkeys(("caption_seconds", "caption_seconds_low95", "caption_seconds_high95"))
    low, high = caption.ci95
    return {"caption_seconds": caption.median, "caption_seconds_low95": low, "caption_seconds_high95": high}


def _place(rank: Rank | None) -> Mapping[str, Any]:
    return {"rank": rank.place if rank else None, "rank_is_tied": rank.tied if rank else None}


def _machine(row: Result) -> Mapping[str, Any]:
    return {
        "weights_int8": row.coverage.weights_int8,
        "macs_int8": row.coverage.macs_int8,
        "peak_rss_bytes": row.memory.peak_rss_bytes if row.memory else None,
    }
