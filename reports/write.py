"""results.json -> report.md and report.html, and pictures beside them."""

import os
from dataclasses import replace
from pathlib import Path

from bench.result import Results
from bench.result_file import read_results
from models.files import write_text_atomic
from reports.drawing import draw_figures
from reports.html import render_html
from reports.markdown import render_markdown
from reports.report import make_report
from reports.thumbnails import read_thumbnails

REPORT_NAME, PAGE_NAME = "report.md", "report.html"


def write_report(results_path: Path, out: Path | None = None) -> Path:
    """Write the report into the folder `out` (default: where the results are); returns the path of its Markdown."""
    folder = out or results_path.parent
    results = read_results(results_path)
    report = make_report(_move_pictures(results, results_path.parent, folder))
    drawn = draw_figures(report)
    for name, svg in drawn.items():
        write_text_atomic(folder / f"{name}.svg", svg)
    path = folder / REPORT_NAME
    write_text_atomic(path, render_markdown(report, {name: f"{name}.svg" for name in drawn}))
    write_text_atomic(folder / PAGE_NAME, render_html(report, drawn, read_thumbnails(results, results_path.parent)))
    return path


def _move_pictures(results: Results, old: Path, new: Path) -> Results:
    """Pictures are stored relative to the results; make them relative to the report."""
    if old.resolve() == new.resolve():
        return results
    moved = {picture: Path(os.path.relpath(old / picture, new)).as_posix() for picture in _pictures(results)}
    examples = tuple(replace(e, picture=moved.get(e.picture, "")) for e in results.examples)
    return replace(results, examples=examples, pictures={i: moved[path] for i, path in results.pictures.items()})


def _pictures(results: Results) -> list[str]:
    return [path for path in (*(e.picture for e in results.examples), *results.pictures.values()) if path]
