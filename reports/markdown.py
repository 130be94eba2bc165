"""Report -> one GitHub-flavoured Markdown page, the verdict first. Pure."""

from collections.abc import Mapping

from reports.report import Report
from reports.sections import find_sections


def render_markdown(report: Report, figures: Mapping[str, str]) -> str:
    """The whole page. `figures`: address of each picture by name; those that could not be drawn are not in it."""
    parts = (f"## {s.title}\n\n{s.text}" if s.title else s.text for s in find_sections(report, figures))
    return "\n\n".join(parts) + "\n"
