"""Report -> one picture: CIDEr against size, so that what to ship can be seen. Pure."""

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from models.errors import MissingPackageError
from reports.comparison import GATE
from reports.labels import FONT_SIZE, MARK, Box, Label, place_labels
from reports.points import Point, find_frontier, find_points
from reports.report import Report
from reports.text import milliseconds, plain

# Mid-grey and mid-tone colours read on white paper and on a dark page; shapes serve those
# who see no colour. The colours follow Okabe and Ito's safe set.
INK = "#777777"
COLOURS = ("#2F86C9", "#DD7A12", "#1FA187", "#C45BA0", "#8A7A2E")
SHAPES = ("o", "s", "^", "D", "v")
WIDTH, HEIGHT = 8.0, 4.8  # inches
# Beyond this many rows only the baseline, the winner and the frontier are named.
LABEL_ALL = 14
LABEL_LENGTH = 40
RING = 420  # square points


def render_figure(report: Report) -> str:
    """The picture as SVG text. Raises MissingPackageError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingPackageError("figures need matplotlib; `pip install matplotlib`.") from error
    # Text stays text (small, searchable, read aloud); a fixed salt makes identifiers repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "captionbench"}):
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw_figure(report).savefig(text, format="svg", transparent=True, metadata=nothing)
    return _accessible(text.getvalue(), _title(report), _description(report))


def draw_figure(report: Report) -> Any:
    """The matplotlib figure behind `render_figure`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72, layout="constrained")  # a pixel is a point
    axes = figure.add_subplot()
    points = find_points(report)
    _draw_axes(axes, points)
    _draw_floor(axes, report)
    _draw_gate(axes, report)
    _draw_points(axes, points)
    _draw_frontier(axes, points)
    _draw_winner(axes, points, report)
    _draw_legend(axes, points)
    figure.draw_without_rendering()  # settles the layout that labels are placed on
    _draw_labels(axes, points, report)
    return figure


def _draw_axes(axes: Any, points: Sequence[Point]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlabel("size (MB, log scale): smaller is better", color=INK)
    axes.set_ylabel("CIDEr, 95 % interval: higher is better", color=INK)
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(INK)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    if not points:
        axes.text(0.5, 0.5, "no row was measured", color=INK, ha="center", transform=axes.transAxes)
        return
    sizes = [point.megabytes for point in points]
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.9)
    axes.margins(y=0.12)  # room for names


def _draw_floor(axes: Any, report: Report) -> None:
    constant = report.results.constant_caption
    if constant:
        level = constant.quality.cider
        axes.axhline(level, color=INK, linewidth=1, linestyle=":")
        axes.annotate(
            "constant caption: worth nothing below",
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize=8,
        )


def _draw_frontier(axes: Any, points: Sequence[Point]) -> None:
    frontier = find_frontier(points)
    if len(frontier) > 1:
        x, y = [p.megabytes for p in frontier], [p.cider for p in frontier]
        axes.step(x, y, where="post", color=INK, linewidth=1, label="best for its size")


def _draw_gate(axes: Any, report: Report) -> None:
    quality = report.baseline.row.quality if report.baseline else None
    if quality:
        axes.axhline(GATE * quality.cider, color=INK, linewidth=1, linestyle="--", alpha=0.6, label="quality gate")


def _draw_points(axes: Any, points: Sequence[Point]) -> None:
    runtimes = sorted({point.item.row.runtime for point in points})
    shrink = 1.0 if len(points) <= LABEL_ALL else 0.4
    slowest = max((point.seconds or 0.0 for point in points), default=0.0)
    for index, runtime in enumerate(runtimes):
        colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]
        axes.scatter([], [], s=50, c=colour, marker=shape, label=plain(runtime))
        for point in (p for p in points if p.item.row.runtime == runtime):
            _draw_point(axes, point, colour, shape, _area(point, slowest) * shrink)


def _draw_legend(axes: Any, points: Sequence[Point]) -> None:
    if any(point.is_hollow for point in points):
        axes.scatter([], [], s=50, facecolors="none", edgecolors=INK, label="hollow: not valid")
    if points:
        legend = axes.legend(
            title="larger mark: slower caption",
            labelcolor=INK,
            frameon=False,
            fontsize=FONT_SIZE,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )
        legend.get_title().set(color=INK, fontsize=FONT_SIZE)


def _draw_winner(axes: Any, points: Sequence[Point], report: Report) -> None:
    """A ring around the one to ship."""
    for point in points:
        if point.item is report.winner:
            ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.5}
            axes.scatter([point.megabytes], [point.cider], s=RING, zorder=4, **ring)


def _draw_point(axes: Any, point: Point, colour: str, shape: str, area: float) -> None:
    x, y, (low, high) = point.megabytes, point.cider, point.interval
    error = [[max(y - low, 0)], [max(high - y, 0)]]
    axes.errorbar(x, y, yerr=error, color=colour, alpha=0.35, linewidth=1, fmt="none")
    fill = "none" if point.is_hollow else colour
    axes.scatter([x], [y], s=area, marker=shape, facecolors=fill, edgecolors=colour, alpha=0.8, zorder=3)


def _area(point: Point, slowest: float) -> float:
    """Area of a mark, from 30 to 260, by the logarithm of how much faster it is than the slowest."""
    if not point.seconds or not slowest:
        return 30.0
    return max(30.0, 260.0 - 100.0 * math.log10(slowest / point.seconds))


def _draw_labels(axes: Any, points: Sequence[Point], report: Report) -> None:
    """Name the points; where there are many, only those that a reader must find."""
    frontier = {id(point.item) for point in find_frontier(points)}
    wanted = []
    for point in points:
        rank = 0 if point.item is report.winner else 1 if point.item is report.baseline else 2
        if rank < 2 or id(point.item) in frontier or len(points) <= LABEL_ALL:
            wanted.append((rank, Label(_label(point, report), *_pixel(axes, point), bold=rank < 2)))
    labels = [label for _, label in sorted(wanted, key=lambda pair: pair[0])]
    canvas = Box(*axes.get_window_extent().extents)
    marks = [Box.around(*_pixel(axes, point), MARK) for point in points]
    for label, box in place_labels(labels, marks, _lines(axes, canvas), canvas):
        axes.annotate(
            label.text,
            axes.transData.inverted().transform((label.x, label.y)),
            xytext=(box.left - label.x, box.bottom - label.y),
            textcoords="offset points",
            va="bottom",
            fontsize=FONT_SIZE,
            weight="bold" if label.bold else "normal",
            color=INK,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.6},
        )


def _lines(axes: Any, canvas: Box) -> list[Box]:
    """The horizontal lines, which would strike names out."""
    heights = [
        float(axes.transData.transform((1, line.get_ydata()[0]))[1])
        for line in axes.lines
        if len(set(line.get_ydata())) == 1
    ]
    return [Box(canvas.left, height - 1, canvas.right, height + 1) for height in heights]


def _pixel(axes: Any, point: Point) -> tuple[float, float]:
    x, y = axes.transData.transform((point.megabytes, point.cider))
    return float(x), float(y)


def _label(point: Point, report: Report) -> str:
    """The recipe (colour says the runtime), its time, its part in the story."""
    recipe = _short_recipe(point, report).replace("$", r"\$")  # "$" starts mathematics
    recipe = recipe if len(recipe) <= LABEL_LENGTH else f"{recipe[: LABEL_LENGTH - 1]}…"
    role = "ship: " if point.item is report.winner else "baseline: " if point.item.is_baseline else ""
    return f"{role}{recipe}, {milliseconds(point.seconds)} ms"


def _short_recipe(point: Point, report: Report) -> str:
    """The recipe without the captioner's name where there is only one."""
    several = len({row.captioner for row in report.results.rows}) > 1
    row = point.item.row
    return plain(row.recipe if several else row.recipe.removeprefix(f"{row.captioner}."))


def _title(report: Report) -> str:
    return f"CIDEr against size: {plain(report.results.title)}"


def _description(report: Report) -> str:
    """The picture in words, for those who can't see it."""
    points = find_points(report)
    rows = (
        f"{p.item.name}: {p.megabytes:.2f} MB, CIDEr {p.cider:.3f}, {milliseconds(p.seconds)} ms a caption"
        for p in points
    )
    winner = f"To ship: {report.winner.name}. " if report.winner else ""
    return plain(f"{winner}Each mark is one artifact on one runtime. {'; '.join(rows)}.")


def _accessible(svg: str, title: str, description: str) -> str:
    """Name the picture for screen readers; drop the document type, which points to the network."""
    svg = re.sub(r"<!DOCTYPE[^>]*>\s*", "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    names = f"<title>{escape(title)}</title>\n <desc>{escape(description)}</desc>\n"
    return re.sub(r"(<svg\b[^>]*)>", lambda m: f'{m[1]} role="img">\n {names}', svg, count=1)
