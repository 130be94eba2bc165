"""The registry of data formats that a report's rows are exported in: a new one costs one module and one line here."""

from collections.abc import Callable
from pathlib import Path

from bench.result_file import read_results
from models.errors import unknown_name
from models.files import write_text_atomic
from reports.flat import render_csv, render_jsonl
from reports.report import Report, make_report
from reports.summary import render_json

EXPORTERS: dict[str, Callable[[Report], str]] = {
    "csv": render_csv,
    "jsonl": render_jsonl,
    "json": render_json,
}


def export_rows(results: Path, name: str, out: Path | None = None) -> Path:
    """Write `rows.NAME` into `out` (default: beside the results); returns its path. Raises ConfigError."""
    if name not in EXPORTERS:
        raise unknown_name("export format", name, EXPORTERS)
    path = (out or results.parent) / f"rows.{name}"
    write_text_atomic(path, EXPORTERS[name](make_report(read_results(results))))
    return path
