"""What a report says, in order, each section as Markdown: every page is made of these. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.compression_record import Captioner
from bench.result import parity_rows
from convert.recipe import Graph
from reports.captions import render_examples
from reports.compression import compression_section
from reports.coverage import coverage_section
from reports.drawing import PARETO, WATERFALL
from reports.figures import describe_point
from reports.glossary import render_glossary
from reports.headline import EVERY_ROW, every_row, opening_table
from reports.losses import losses_section
from reports.parity import parity_section
from reports.points import find_points, find_unbeaten
from reports.report import Report
from reports.roofline import roofline_section
from reports.slowness import slowness_section
from reports.tables import RANK_NOTE, change_table, quality_table, size_table
from reports.text import DASH, code_block, duration, enumerate_names, escape, name_text, path_address, score, table
from reports.timing import caption_table, latency_table, runtime_table, throughput_table
from reports.trust import environment_rows, trust_section
from reports.verdict import render_choice, render_conditions, render_verdict
from reports.waterfall_text import waterfall_section

FRONTIER_SHOWN = 8
NO_FIGURE = (
    "*No figure: this environment has no matplotlib. `pip install matplotlib`, then write the report again "
    "with `captionbench report`.*"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading ("" for the opening, which brings its own) and what stands below it."""

    title: str
    text: str


def find_sections(report: Report, figures: Mapping[str, str], *, pictures: bool = True) -> list[Section]:
    """All sections that have something to say. `figures`: address of each picture that could be drawn, by name.

    Without `pictures` the images of the data set are left out: a page that shows them all has no need of some.
    """
    sections = (
        ("", _opening(report, figures)),
        ("Before you trust this", _cautions(report)),
        ("What each step bought", waterfall_section(report, _waterfall_figure(report, figures))),
        ("What compression cost in quality", losses_section(report)),
        ("Do captions match across runtimes?", _parity(report, pictures=pictures)),
        ("What the captions look like", render_examples(report) if pictures else ""),
        (EVERY_ROW, every_row(report)),
        ("Where the time goes", _latency(report)),
        ("How far to trust the times", trust_section(report)),
        ("Why rows are slow", slowness_section(report)),
        ("How near the machine's limits", roofline_section(report)),
        ("Where the bytes go", _sizes(report)),
        ("What a runtime costs", _runtimes(report)),
        ("What is really integer", coverage_section(report)),
        ("Caption quality", _quality(report)),
        ("What compression reached", compression_section(report)),
        ("What was measured", _captioners(report)),
        ("Environment", _environment(report)),
        ("Reproduce", _reproduce(report)),
        ("Glossary", render_glossary()),
    )
    return [Section(title, text) for title, text in sections if text]


def _opening(report: Report, figures: Mapping[str, str]) -> str:
    results = report.results
    what = f"Suite {name_text(results.suite)} on {escape(results.dataset)}, {results.test_images} test images."
    parts = (
        f"# {escape(results.title)}",
        render_verdict(report),
        opening_table(report),
        f"{what} {render_conditions(report)} {RANK_NOTE} Captions identical: word for word those of the reference row.",
        render_choice(report),
        figure_text(report, figures.get(PARETO)),
        _frontier(report),
    )
    return "\n\n".join(filter(None, parts))


def figure_text(report: Report, figure: str | None) -> str:
    """The picture, or how to get it."""
    if figure is None:
        return NO_FIGURE
    winner = f"; to ship: {report.winner.name}" if report.winner else ""
    return f"![CIDEr against size and time of every artifact{escape(winner)}]({path_address(figure)})"


def _frontier(report: Report) -> str:
    """Which rows are worth a choice at all; "" for a single one."""
    unbeaten = find_unbeaten(find_points(report))
    if len(unbeaten) < 2:
        return ""
    told = [f"{name_text(point.item.name)} ({describe_point(point)})" for point in unbeaten]
    names = enumerate_names(told, limit=FRONTIER_SHOWN)
    return f"On the frontier, where no other row is better in size, CIDEr and time at once: {names}."


def _waterfall_figure(report: Report, figures: Mapping[str, str]) -> str:
    if WATERFALL not in figures:
        return ""
    ship = f", from the baseline to {report.winner.name}" if report.winner else ""
    return f"![What each step took off size and time{escape(ship)}]({path_address(figures[WATERFALL])})"


def _cautions(report: Report) -> str:
    return "\n".join(
        f"- **{caution.kind.capitalize()}.** {caution.text}. *{caution.remedy}*" for caution in report.cautions
    )


def _parity(report: Report, *, pictures: bool) -> str:
    results = report.results
    order = [item.name for item in report.rows]
    rows = sorted(parity_rows(results.rows), key=lambda row: order.index(row.name))
    return parity_section(rows, results.test_images, results.pictures if pictures else {})


def _fused_note(report: Report) -> str:
    """What sets fused rows apart, where there are any."""
    if all(item.row.graph != Graph.FUSED for item in report.rows):
        return ""
    return " A fused row holds a greedy loop in its file: no beam, and pixels to words is one call."


def _latency(report: Report) -> str:
    note = (
        "Medians, each phase timed on its own (none is a difference of two others); p90 where there are at "
        f"least 64 samples. A step is one word.{_steps_note(report)}{_fused_note(report)} {render_conditions(report)}"
    )
    tables = list(filter(None, (latency_table(report), caption_table(report), throughput_table(report))))
    return "\n\n".join((*tables, note)) if tables else ""


def _steps_note(report: Report) -> str:
    """Why captions are timed at equal length, where they are."""
    steps = report.results.forced_steps
    return f" At {steps} steps each, no row looks fast for saying less." if steps else ""


def _runtimes(report: Report) -> str:
    costs = runtime_table(report)
    note = "Before any model: the package and all that it needs on disk, and importing it in a new process."
    return f"{costs}\n\n{note}" if costs else ""


def _sizes(report: Report) -> str:
    note = (
        "MB are millions of bytes; zipped is the same files in one archive, weights are kernels and tables alone, and "
        f"loaded is what loading adds to a process that has imported the runtime ({DASH}: unknown)."
    )
    sizes = size_table(report)
    return f"{sizes}\n\n{note}" if sizes else ""


def _quality(report: Report) -> str:
    rows = [row.quality for row in report.results.rows if row.quality]
    protocols = sorted({quality.protocol for quality in rows})
    note = (
        f"Protocol: {', '.join(map(name_text, protocols)) or DASH}. Judge by CIDEr and BLEU-4, never by BLEU-1: "
        "a fixed sentence that fits many images scores high on it. Paper BLEU-1 counts the START and END "
        "markers and is here only for comparison with older work. Intervals are 95 %, over images."
    )
    scores = quality_table(report)
    return "\n\n".join(filter(None, (scores, note, _changes(report)))) if scores else ""


def _changes(report: Report) -> str:
    changes = change_table(report)
    note = (
        "Change against the baseline, with its 95 % interval: a paired bootstrap, which draws the same images for both "
        "and so tells smaller differences than the intervals of the scores do. “≈”: the interval holds 0. The gate "
        "goes by the scores as measured; it is beyond doubt where the whole interval agrees."
    )
    return f"{changes}\n\n{note}" if changes else ""


def _captioners(report: Report) -> str:
    headers = (
        "captioner",
        "technique",
        "encoder",
        "decoder",
        "parameters",
        "vocabulary",
        "validation CIDEr",
        "epochs",
        "note",
    )
    cells = [_captioner_cells(captioner) for captioner in report.results.captioners]
    return table(headers, cells, words=(0, 1, 2, 3, 8)) if cells else ""


def _captioner_cells(captioner: Captioner) -> list[str]:
    return [
        name_text(captioner.name),
        name_text(captioner.technique),
        name_text(captioner.encoder),
        name_text(captioner.decoder),
        f"{captioner.parameters:,}",
        f"{captioner.vocabulary_size:,}",
        score(captioner.validation_cider),
        str(captioner.epochs),
        escape(captioner.note) or DASH,
    ]


def _environment(report: Report) -> str:
    return table(("what", "value"), environment_rows(report.results), words=(0, 1))


def _reproduce(report: Report) -> str:
    spent = {what: seconds for what, seconds in report.results.spent_seconds.items() if seconds >= 1}
    told = ", ".join(f"{escape(what)} {duration(seconds)}" for what, seconds in spent.items())
    hours = f"What it rests on took, on {escape(report.results.environment.cpu)}: {told}." if told else ""
    return "\n\n".join(filter(None, (code_block(report.results.command), hours)))
