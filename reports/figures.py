"""Report -> the Pareto picture: CIDEr against size and against time, so that what to ship can be seen. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import MissingPackageError
from reports.comparison import GATE
from reports.labels import FONT_SIZE, MARK, Box, Label, place_labels
from reports.points import Point, find_frontier, find_points
from reports.report import Report
from reports.svg import COLOURS, INK, log_ticks, style_axes, to_svg
from reports.text import milliseconds, plain

SHAPES = ("o", "s", "^", "D", "v")
WIDTH, HEIGHT = 8.0, 8.4  # inches
# Beyond this many rows only the baseline, the winner and the frontier are named.
LABEL_ALL = 14
LABEL_LENGTH = 40
RING = 420  # square points


@dataclass(frozen=True)
class Panel:
    """One picture of the two: what stands on its x axis, and what the size of a mark says."""

    key: str
    label: str
    x: Callable[[Point], float | None]
    interval: Callable[[Point], tuple[float, float] | None]
    weight: Callable[[Point], float | None]
    weight_note: str


PANELS = (
    Panel(
        "size",
        "size (MB, log scale): smaller is better",
        lambda point: point.megabytes,
        lambda point: None,  # bytes are exact
        lambda point: point.seconds,
        "larger mark: slower caption",
    ),
    Panel(
        "time",
        "caption (ms, log scale), 95 % interval: faster is better",
        lambda point: point.seconds * 1e3 if point.seconds else None,
        lambda point: (
            (point.seconds_interval[0] * 1e3, point.seconds_interval[1] * 1e3) if point.seconds_interval else None
        ),
        lambda point: point.megabytes,
        "larger mark: larger file",
    ),
)


def render_figure(report: Report) -> str:
    """The picture as SVG text. Raises MissingPackageError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("figures need matplotlib; `pip install matplotlib`.") from error
    return to_svg(draw_figure(report), _title(report), _description(report))


def draw_figure(report: Report) -> Any:
    """The matplotlib figure behind `render_figure`; the marks of a row are in groups `size-ROW` and `time-ROW`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=72, layout="constrained")  # a pixel is a point
    points = find_points(report)
    drawn = [(panel, axes, _points_of(panel, points)) for panel, axes in zip(PANELS, figure.subplots(2), strict=True)]
    for panel, axes, shown in drawn:
        _draw_panel(panel, axes, shown, report)
    figure.draw_without_rendering()  # settles the layout that labels are placed on
    for panel, axes, shown in drawn:
        _draw_labels(panel, axes, shown, report)
    return figure


def _points_of(panel: Panel, points: Sequence[Point]) -> list[Point]:
    """Those that have a place on the panel's axis, the heaviest first so that they do not hide others."""
    known = [point for point in points if (panel.x(point) or 0) > 0]
    return sorted(known, key=lambda point: -(panel.weight(point) or 0.0))


def _draw_panel(panel: Panel, axes: Any, points: Sequence[Point], report: Report) -> None:
    _draw_axes(panel, axes, points)
    _draw_gate(axes, report)
    _draw_points(panel, axes, points, report)
    _draw_floor(axes, report)
    _draw_frontier(panel, axes, points)
    _draw_winner(panel, axes, points, report)
    _draw_legend(panel, axes, points)


def _draw_axes(panel: Panel, axes: Any, points: Sequence[Point]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(panel.label, color=INK)
    axes.set_ylabel("CIDEr, 95 % interval: higher is better", color=INK)
    style_axes(axes)
    log_ticks(axes.xaxis)
    if not points:
        axes.text(0.5, 0.5, "no row was measured", color=INK, ha="center", transform=axes.transAxes)
        return
    values = [_x(panel, point) for point in points]
    axes.set_xlim(min(values) / 1.6, max(values) * 1.9)
    axes.margins(y=0.12)  # room for names


def _x(panel: Panel, point: Point) -> float:
    return panel.x(point) or 0.0


def _draw_floor(axes: Any, report: Report) -> None:
    """The constant caption's level; where it is far below all marks, a note, so that these keep the room."""
    constant = report.results.constant_caption
    if constant is None:
        return
    level, (low, high) = constant.quality.cider, axes.get_ylim()
    text = "constant caption: worth nothing below"
    if level < low - (high - low) / 2:
        level, text = low, f"↓ constant caption: CIDEr {level:.3f}, worth nothing below"
    else:
        axes.axhline(level, color=INK, linewidth=1, linestyle=":")
    axes.annotate(
        text,
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        color=INK,
        fontsize=8,
    )


def _draw_frontier(panel: Panel, axes: Any, points: Sequence[Point]) -> None:
    frontier = find_frontier(points, panel.x)
    if len(frontier) > 1:
        x, y = [_x(panel, p) for p in frontier], [p.cider for p in frontier]
        axes.step(x, y, where="post", color=INK, linewidth=1, label=f"frontier: best for its {panel.key}")


def _draw_gate(axes: Any, report: Report) -> None:
    quality = report.baseline.row.quality if report.baseline else None
    if quality:
        axes.axhline(GATE * quality.cider, color=INK, linewidth=1, linestyle="--", alpha=0.6, label="quality gate")


def _draw_points(panel: Panel, axes: Any, points: Sequence[Point], report: Report) -> None:
    runtimes = sorted({point.item.row.runtime for point in points})
    order = [id(item) for item in report.rows]
    shrink = 1.0 if len(points) <= LABEL_ALL else 0.4
    heaviest = max((panel.weight(point) or 0.0 for point in points), default=0.0)
    for index, runtime in enumerate(runtimes):
        colour, shape = COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]
        axes.scatter([], [], s=50, c=colour, marker=shape, label=plain(runtime))
        for point in (p for p in points if p.item.row.runtime == runtime):
            mark = _draw_point(panel, axes, point, colour, shape, _area(panel.weight(point), heaviest) * shrink)
            mark.set_gid(f"{panel.key}-{order.index(id(point.item))}")


def _draw_legend(panel: Panel, axes: Any, points: Sequence[Point]) -> None:
    if any(point.is_hollow for point in points):
        axes.scatter([], [], s=50, facecolors="none", edgecolors=INK, label="hollow: not valid")
    if points:
        legend = axes.legend(
            title=panel.weight_note,
            labelcolor=INK,
            frameon=False,
            fontsize=FONT_SIZE,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )
        legend.get_title().set(color=INK, fontsize=FONT_SIZE)


def _draw_winner(panel: Panel, axes: Any, points: Sequence[Point], report: Report) -> None:
    """A ring around the one to ship."""
    for point in points:
        if point.item is report.winner:
            ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.5}
            axes.scatter([_x(panel, point)], [point.cider], s=RING, zorder=4, **ring)


def _draw_point(panel: Panel, axes: Any, point: Point, colour: str, shape: str, area: float) -> Any:
    """Intervals as bars, and the mark, which is returned."""
    x, y = _x(panel, point), point.cider
    across = panel.interval(point)
    axes.errorbar(
        x,
        y,
        yerr=_ends(y, point.interval),
        xerr=_ends(x, across) if across else None,
        color=colour,
        alpha=0.35,
        linewidth=1,
        fmt="none",
    )
    fill = "none" if point.is_hollow else colour
    return axes.scatter([x], [y], s=area, marker=shape, facecolors=fill, edgecolors=colour, alpha=0.8, zorder=3)


def _ends(value: float, interval: tuple[float, float]) -> list[list[float]]:
    """An interval as the lengths that matplotlib asks for."""
    return [[max(value - interval[0], 0)], [max(interval[1] - value, 0)]]


def _area(weight: float | None, heaviest: float) -> float:
    """Area of a mark, from 30 to 260, by the logarithm of how far it is from the heaviest."""
    if not weight or not heaviest:
        return 30.0
    return max(30.0, 260.0 - 100.0 * math.log10(heaviest / weight))


def _draw_labels(panel: Panel, axes: Any, points: Sequence[Point], report: Report) -> None:
    """Name the points; where there are many, only those that a reader must find."""
    frontier = {id(point.item) for point in find_frontier(points, panel.x)}
    wanted = []
    for point in points:
        rank = 0 if point.item is report.winner else 1 if point.item.is_baseline else 2
        if rank < 2 or id(point.item) in frontier or len(points) <= LABEL_ALL:
            wanted.append((rank, Label(_label(panel, point, report), *_pixel(panel, axes, point), bold=rank < 2)))
    labels = [label for _, label in sorted(wanted, key=lambda pair: pair[0])]
    canvas = Box(*axes.get_window_extent().extents)
    marks = [Box.around(*_pixel(panel, axes, point), MARK) for point in points]
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
        if len(line.get_ydata()) and len(set(line.get_ydata())) == 1
    ]
    return [Box(canvas.left, height - 1, canvas.right, height + 1) for height in heights]


def _pixel(panel: Panel, axes: Any, point: Point) -> tuple[float, float]:
    x, y = axes.transData.transform((_x(panel, point), point.cider))
    return float(x), float(y)


def _label(panel: Panel, point: Point, report: Report) -> str:
    """The recipe (colour says the runtime), its time or size, its part in the story."""
    recipe = _short_recipe(point, report).replace("$", r"\$")  # "$" starts mathematics
    recipe = recipe if len(recipe) <= LABEL_LENGTH else f"{recipe[: LABEL_LENGTH - 1]}…"
    role = "ship: " if point.item is report.winner else "baseline: " if point.item.is_baseline else ""
    value = f"{milliseconds(point.seconds)} ms" if panel.key == "size" else f"{point.megabytes:.2f} MB"
    return f"{role}{recipe}, {value}"


def _short_recipe(point: Point, report: Report) -> str:
    """The recipe without the captioner's name where there is only one."""
    several = len({row.captioner for row in report.results.rows}) > 1
    row = point.item.row
    return plain(row.recipe if several else row.recipe.removeprefix(f"{row.captioner}."))


def _title(report: Report) -> str:
    return f"CIDEr against size and against time: {plain(report.results.title)}"


def _description(report: Report) -> str:
    """The picture in words, for those who can't see it."""
    rows = (f"{p.item.name}: {describe_point(p)}" for p in find_points(report))
    winner = f"To ship: {report.winner.name}. " if report.winner else ""
    return plain(f"{winner}Each mark is one artifact on one runtime. {'; '.join(rows)}.")


def describe_point(point: Point) -> str:
    """What a mark stands for, in words."""
    return f"{point.megabytes:.2f} MB, CIDEr {point.cider:.3f}, {milliseconds(point.seconds)} ms a caption"
