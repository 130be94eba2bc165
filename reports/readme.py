"""Keeps the README's tables true: `python -m reports.readme` writes them from the published results."""

import sys
from pathlib import Path

from bench.measurement import Phase
from bench.result import Result, Results, row_name
from bench.result_file import read_results
from convert.recipe import Graph
from models.errors import ConfigError
from models.files import write_text_atomic
from reports.comparison import is_compressed, is_full_precision, technique_of
from reports.report import Report, make_report
from reports.sections import figure_text
from reports.speed import MEASURED, times_faster
from reports.tables import RANK_NOTE, headline_table, speed_text
from reports.text import (
    DASH,
    escape,
    megabytes,
    milliseconds,
    name_text,
    percent,
    ratio,
    score,
    table,
)
from reports.verdict import render_conditions, render_verdict

PUBLISHED = Path("reports/published")
# The runtime whose rows the table of techniques shows.
COMPRESSION_RUNTIME = "onnxruntime"
# What a first screen holds.
README_ROWS = 8


def render_readme(readme: str, published: Path) -> str:
    """`readme` with its generated blocks from the results under `published`."""
    flickr8k = published / "flickr8k"
    report = make_report(read_results(flickr8k / "results.json"))
    figure = (flickr8k / "figure.svg").as_posix()
    readme = replace_between(readme, "results", readme_block(report, figure))
    readme = replace_between(readme, "study", study_block(read_results(published / "study_loop" / "results.json")))
    techniques = make_report(read_results(published / "techniques" / "results.json"))
    readme = replace_between(readme, "compression", compression_block(techniques))
    precisions = make_report(read_results(published / "precisions" / "results.json"))
    return replace_between(readme, "precisions", precision_block(precisions))


def readme_block(report: Report, figure: str | None) -> str:
    """The verdict, the first rows and the picture, for the top of a README."""
    rows = report.rows[:README_ROWS]
    hidden = len(report.rows) - len(rows)
    more = f" {hidden} more rows in the full report." if hidden else ""
    parts = (
        render_verdict(report),
        headline_table(report, rows),
        f"{render_conditions(report)} {RANK_NOTE}{more}",
        figure_text(report, figure),
    )
    return "\n\n".join(parts)


def study_block(results: Results) -> str:
    """Decoding times of the study's loop and of the stateful step, side by side in one run."""
    baseline = next(row for row in results.rows if row_name(row) == results.baseline)
    rows = [_study_cells(row, baseline, results) for row in results.rows if Phase.DECODE in row.latency_seconds]
    headers = ("decoding one caption", "median (ms)", "95 %", "faster", "same captions", "status")
    conditions = (
        f"Decoder only, batch 1, {results.run_plan.threads} threads on {results.environment.cpu}; "
        f"{results.test_images} Flickr8k test images, rounds interleaved. "
        "[Report](reports/published/study_loop/report.md)."
    )
    return f"{table(headers, rows, words=(0, 5))}\n\n{conditions}"


def compression_block(report: Report) -> str:
    """What each technique is worth on one runtime, beside the dense captioner."""
    rows = [row for row in report.results.rows if row.runtime == COMPRESSION_RUNTIME and row.size_bytes and row.quality]
    dense = next(row for row in rows if not is_compressed(row) and is_full_precision(row))
    headers = ("technique", "precision", "CIDEr", "file (MB)", "zipped (MB)", "zipped, smaller", "different captions")
    cells = [_technique_cells(row, dense) for row in rows]
    conditions = (
        f"{report.results.test_images} test scenes, captions and files of {name_text(COMPRESSION_RUNTIME)}. A gain "
        "over `none` may be more training alone: compare with `train_on`."
    )
    return f"{table(headers, cells, words=(0, 1))}\n\n{conditions}"


def precision_block(report: Report) -> str:
    """What each precision is worth and how much of it is integer, for every format that has it."""
    full = {row.format: row for row in report.results.rows if is_full_precision(row) and row.graph == Graph.STEP}
    rows = [row for row in report.results.rows if row.coverage.macs_int8 is not None and row.size_bytes and row.quality]
    headers = (
        "recipe",
        "file (MB)",
        "smaller",
        "CIDEr",
        "same captions",
        "INT8 or INT4 weights",
        "integer arithmetic",
        "caption (ms)",
    )
    conditions = (
        f"{report.results.test_images} test scenes; smaller: than fp32 of the same format; {DASH}: timing not sound. "
        f"{render_conditions(report)} "
        "[Report](reports/published/precisions/report.md)."
    )
    return f"{table(headers, [_precision_cells(row, full[row.format]) for row in rows])}\n\n{conditions}"


def _precision_cells(row: Result, full: Result) -> list[str]:
    sizes, quality, base = row.size_bytes, row.quality, full.size_bytes
    if sizes is None or quality is None or base is None:
        raise ConfigError(f"{row_name(row)} has no sizes or no quality; measure it again.")
    small = (row.coverage.weights_int8 or 0.0) + (row.coverage.weights_int4 or 0.0)
    caption = row.latency_seconds.get(Phase.CAPTION)
    return [
        name_text(row.recipe.partition(".")[2]),
        megabytes(sizes.total),
        DASH if row is full else ratio(base.total / sizes.total),
        score(quality.cider),
        percent(row.parity.captions_identical if row.parity else None),
        percent(small),
        percent(row.coverage.macs_int8),
        milliseconds(caption.median if caption and row.status in MEASURED else None),
    ]


def _technique_cells(row: Result, dense: Result) -> list[str]:
    sizes, quality, base = row.size_bytes, row.quality, dense.size_bytes
    if sizes is None or quality is None or base is None:
        raise ConfigError(f"{row_name(row)} has no sizes or no quality; measure it again.")
    half = (quality.cider_ci95[1] - quality.cider_ci95[0]) / 2
    return [
        name_text(technique_of(row)),
        row.decoder.precision,
        f"{score(quality.cider)} ± {score(half)}",
        megabytes(sizes.total),
        megabytes(sizes.deflated),
        DASH if row is dense else ratio(base.deflated / sizes.deflated),
        f"{quality.distinct_captions}/{quality.images}",
    ]


def _study_cells(row: Result, baseline: Result, results: Results) -> list[str]:
    latency, theirs = row.latency_seconds[Phase.DECODE], baseline.latency_seconds[Phase.DECODE]
    low, high = latency.ci95
    faster = times_faster(latency, theirs, results.noise_floor)
    return [
        name_text(row_name(row)),
        milliseconds(latency.median),
        f"{milliseconds(low)} to {milliseconds(high)}",
        "the study's loop" if row is baseline else speed_text(faster),
        percent(row.parity.captions_identical if row.parity else None),
        f"{row.status.value}: {escape(row.reason)}" if row.reason else row.status.value,
    ]


def replace_between(text: str, name: str, block: str) -> str:
    """`text` with `block` between the markers of `name`. Raises ConfigError unless they are there once, in order."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise ConfigError(f"expected {start} and then {end}, once each; add them where the block goes.")
    before, rest = text.split(start)
    after = rest.split(end)[1]
    return f"{before}{start}\n\n{block}\n\n{end}{after}"


def main() -> int:
    """Write the README; with `--check`, only say whether it is current (status 1 when not)."""
    readme = Path("README.md")
    text = readme.read_text(encoding="utf-8")
    current = render_readme(text, PUBLISHED)
    if "--check" in sys.argv[1:]:
        if current != text:
            print("README.md is not what the published results say: run `python -m reports.readme`.", file=sys.stderr)
        return int(current != text)
    write_text_atomic(readme, current)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
