"""The registry of a report's pictures: a new one costs one module and one line here."""

from collections.abc import Callable

from models.errors import MissingPackageError
from reports.figures import render_figure
from reports.report import Report
from reports.waterfall_figure import render_waterfall

PARETO, WATERFALL = "figure", "waterfall"
# Each gives an SVG, or "" where there is nothing to draw.
FIGURES: dict[str, Callable[[Report], str]] = {
    PARETO: render_figure,
    WATERFALL: render_waterfall,
}


def draw_figures(report: Report) -> dict[str, str]:
    """SVG by name, of what can be drawn; nothing without matplotlib, which the page then says."""
    try:
        drawn = {name: draw(report) for name, draw in FIGURES.items()}
    except MissingPackageError:
        return {}
    return {name: svg for name, svg in drawn.items() if svg}
