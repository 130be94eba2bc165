"""results.json -> report.md and figure.svg beside it, and the result block of a README."""

import os
from dataclasses import replace
from pathlib import Path

from bench.result import Results, read_results
from models.errors import ConfigError, MissingPackageError
from models.files import write_text_atomic
from reports.figures import render_figure
from reports.markdown import figure_text, render_markdown
from reports.report import Report, make_report
from reports.tables import headline_table
from reports.verdict import render_conditions, render_verdict

REPORT_NAME = "report.md"
FIGURE_NAME = "figure.svg"
START_MARKER = "<!-- results:start -->"
END_MARKER = "<!-- results:end -->"
# What a first screen holds.
README_ROWS = 8


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
    examples = tuple(
        replace(e, picture=Path(os.path.relpath(old / e.picture, new)).as_posix()) if e.picture else e
        for e in results.examples
    )
    return replace(results, examples=examples)


def readme_block(report: Report, figure: str | None) -> str:
    """The verdict, the first rows and the picture, for the top of a README."""
    rows = report.rows[:README_ROWS]
    hidden = len(report.rows) - len(rows)
    more = f" {hidden} more rows in the full report." if hidden else ""
    parts = (
        render_verdict(report),
        headline_table(report, rows),
        f"{render_conditions(report)}{more}",
        figure_text(report, figure),
    )
    return "\n\n".join(parts)


def replace_between_markers(text: str, block: str) -> str:
    """`text` with `block` between the result markers. Raises ConfigError unless they are there once."""
    if text.count(START_MARKER) != 1 or text.count(END_MARKER) != 1:
        raise ConfigError(f"expected {START_MARKER} and {END_MARKER} once each; add them where results go.")
    before, rest = text.split(START_MARKER)
    if END_MARKER not in rest:
        raise ConfigError(f"{END_MARKER} stands before {START_MARKER}; swap them.")
    after = rest.split(END_MARKER)[1]
    return f"{before}{START_MARKER}\n\n{block}\n\n{END_MARKER}{after}"


def update_readme(readme: Path, report: Report, figure_path: str) -> str:
    """Write the result block into `readme`; returns its new text."""
    text = replace_between_markers(readme.read_text(encoding="utf-8"), readme_block(report, figure_path))
    write_text_atomic(readme, text)
    return text


def readme_is_current(readme: Path, report: Report, figure_path: str) -> bool:
    """Whether `update_readme` would change nothing."""
    text = readme.read_text(encoding="utf-8")
    return replace_between_markers(text, readme_block(report, figure_path)) == text
