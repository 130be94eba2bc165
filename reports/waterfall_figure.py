"""Report -> the waterfall: from the baseline to the one to ship, what each step took off size and time. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from reports.comparison import Comparison
from reports.labels import FONT_SIZE
from reports.report import Report
from reports.speed import SpeedUp
from reports.svg import COLOURS, INK, log_ticks, style_axes, to_svg
from reports.text import SAME, milliseconds, plain, ratio
from reports.waterfall import Change, Step, find_way

WIDTH, ROW, EDGES = 8.0, 0.42, 1.0  # inches
Value = Callable[[Comparison], float | None]


def render_waterfall(report: Report) -> str:
    """The picture as SVG text, "" where there is no way to tell of. Needs matplotlib."""
    steps = find_way(report)
    if not steps:
        return ""
    title = f"What each step bought: {plain(report.results.title)}"
    return to_svg(_draw(steps), title, _description(steps))


def _draw(steps: Sequence[Step]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, EDGES + ROW * (len(steps) + 2)), dpi=72, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_bars(left, steps, _megabytes, [_times(step.size_ratio) for step in steps], "size (MB, log scale)")
    _draw_bars(right, steps, _milliseconds, [_faster(step.faster) for step in steps], "caption (ms, log scale)")
    names = ["baseline", *(step.name for step in steps), "to ship"]
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    right.tick_params(axis="y", length=0)
    return figure


def _megabytes(item: Comparison) -> float | None:
    return item.row.size_bytes.total / 1e6 if item.row.size_bytes else None


def _milliseconds(item: Comparison) -> float | None:
    return item.caption.median * 1e3 if item.caption else None


def _times(value: float | None) -> str:
    if value is None:
        return ""
    return SAME if 0.995 < value < 1.005 else ratio(value)


def _faster(faster: SpeedUp | None) -> str:
    if faster is None:
        return ""
    return ratio(faster.ratio) if faster.certain else SAME


def _draw_bars(axes: Any, steps: Sequence[Step], value: Value, notes: Sequence[str], label: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label, color=INK)
    style_axes(axes)
    log_ticks(axes.xaxis)
    rows = [steps[0].before, *(step.after for step in steps)]
    values = [value(item) for item in rows]
    known = [v for v in values if v]
    if not known:
        return
    lowest, highest = min(known), max(known)
    axes.set_xlim(lowest / 2, highest * 2.2)
    for index, step in enumerate(steps, start=1):
        _draw_step(axes, index, values[index - 1], values[index], _colour(step), notes[index - 1])
    for place, item in ((0, values[0]), (len(rows), values[-1])):
        if item:
            axes.barh(place, item, left=0, height=0.6, color=INK, alpha=0.55)
            _note(axes, item, place, f"{item:.3g}")


def _draw_step(axes: Any, place: int, before: float | None, after: float | None, colour: str, note: str) -> None:
    """A bar from what was to what is; a line leads on to the next one."""
    if not before or not after:
        return
    axes.barh(place, before - after, left=after, height=0.6, color=colour)
    axes.plot([after, after], [place, place + 1], color=INK, linewidth=0.8, linestyle=":")
    _note(axes, max(before, after), place, note)


def _note(axes: Any, x: float, place: int, text: str) -> None:
    axes.annotate(
        text, (x, place), xytext=(4, 0), textcoords="offset points", va="center", color=INK, fontsize=FONT_SIZE
    )


def _colour(step: Step) -> str:
    """Each kind of change has its own; mixed steps take their first."""
    return COLOURS[list(Change).index(step.changes[0]) % len(COLOURS)]


def _description(steps: Sequence[Step]) -> str:
    told = (
        f"{step.name}: {_times(step.size_ratio) or 'unknown'} smaller, {_faster(step.faster) or 'unknown'} faster, "
        f"now {_megabytes(step.after) or 0:.2f} MB and {milliseconds(_seconds(step.after))} ms"
        for step in steps
    )
    return plain(f"From {steps[0].before.name} to {steps[-1].after.name}. {'; '.join(told)}.")


def _seconds(item: Comparison) -> float | None:
    return item.caption.median if item.caption else None
