"""results.json -> report.md and figure.svg beside it."""

import os
from dataclasses import replace
from pathlib import Path

from bench.result import Results
from bench.result_file import read_results
from models.errors import MissingPackageError
from models.files import write_text_atomic
from reports.figures import render_figure
from reports.markdown import render_markdown
from reports.report import Report, make_report

REPORT_NAME = "report.md"
FIGURE_NAME = "figure.svg"


def write_report(results_path: Path, out: Path | None = None) -> Path:
    """Write the report into the folder `out` (default: where the results are); returns its path."""
    folder = out or results_path.parent
    results = read_results(results_path)
    report = make_report(_move_pictures(results, results_path.parent, folder))
    figure = _figure_or_none(report)
    if figure is not None:
        write_text_atomic(folder / FIGURE_NAME, figure)
    path = folder / REPORT_NAME
    write_text_atomic(path, render_markdown(report, figure=None if figure is None else FIGURE_NAME))
    return path


def _figure_or_none(report: Report) -> str | None:
    try:
        return render_figure(report)
    except MissingPackageError:
        return None  # the page says how to get it


def _move_pictures(results: Results, old: Path, new: Path) -> Results:
    """Pictures are stored relative to the results; make them relative to the report."""
    if old.resolve() == new.resolve():
        return results
    moved = {picture: Path(os.path.relpath(old / picture, new)).as_posix() for picture in _pictures(results)}
    examples = tuple(replace(e, picture=moved.get(e.picture, "")) for e in results.examples)
    return replace(results, examples=examples, pictures={i: moved[path] for i, path in results.pictures.items()})


def _pictures(results: Results) -> list[str]:
    return [path for path in (*(e.picture for e in results.examples), *results.pictures.values()) if path]
