"""The proof: how far captions agree across runtimes, where they part, and what they look like. Pure."""

import html
from collections.abc import Sequence
from itertools import chain, zip_longest

from bench.result import Divergence, Example, Parity
from reports.comparison import Comparison
from reports.report import Report
from reports.text import (
    DASH,
    caption_text,
    enumerate_names,
    name_text,
    path_address,
    percent,
    plain,
    table,
)

DIVERGENCES_SHOWN = 10


def parity_table(report: Report) -> str:
    """Agreement with each row's reference, word for word, greedy and beam 3."""
    headers = (
        "recipe @ runtime",
        "compared with",
        "greedy: captions",
        "greedy: words",
        "beam 3: captions",
        "beam 3: words",
        "largest difference",
    )
    cells = []
    for item in report.rows:
        greedy, beam = item.row.parity, item.row.parity_beam3
        known = greedy or beam
        if known and known.reference != item.name:
            shares = (*_shares(greedy), *_shares(beam))
            cells.append([name_text(item.name), name_text(known.reference), *shares, _difference(known)])
    return table(headers, cells, words=(0, 1)) if cells else ""


def _shares(parity: Parity | None) -> tuple[str, str]:
    if parity is None:
        return DASH, DASH
    return percent(parity.captions_identical), percent(parity.tokens_identical)


def _difference(parity: Parity) -> str:
    return DASH if parity.max_abs_difference is None else f"{parity.max_abs_difference:.2g}"


def divergence_table(report: Report) -> str:
    """Up to ten captions that are not the reference's, taken from the rows in turn."""
    found = _divergences(report.rows)
    headers = ("image", "row", "parts at word", "reference caption", "its caption")
    cells = [
        [
            name_text(divergence.image),
            describe_rows(rows),
            str(divergence.first_step + 1),
            caption_text(divergence.reference_caption),
            caption_text(divergence.caption),
        ]
        for divergence, rows in list(found.items())[:DIVERGENCES_SHOWN]
    ]
    return table(headers, cells, words=(0, 1, 3, 4)) if cells else ""


def _divergences(rows: Sequence[Comparison]) -> dict[Divergence, list[Comparison]]:
    """Divergences in turn from each row, with all rows that share them."""
    lists = [[(d, item) for d in item.row.parity.divergences] for item in rows if item.row.parity]
    found: dict[Divergence, list[Comparison]] = {}
    for pair in chain.from_iterable(zip_longest(*lists)):
        if pair is not None:
            found.setdefault(pair[0], []).append(pair[1])
    return found


def describe_rows(rows: Sequence[Comparison]) -> str:
    """Names of rows; those of one recipe share it: `fp32` @ keras, tflite."""
    runtimes: dict[str, list[str]] = {}
    for item in rows:
        runtimes.setdefault(item.row.recipe, []).append(item.row.runtime)
    return enumerate_names([name_text(f"{recipe} @ {', '.join(on)}") for recipe, on in runtimes.items()])


def render_examples(report: Report) -> str:
    """Pictures with what people and every row wrote; rows that agree share a line."""
    return "\n\n".join(_example(report, example) for example in report.results.examples)


def _example(report: Report, example: Example) -> str:
    lines = [f"- people: {'; '.join(map(caption_text, example.references))}"] if example.references else []
    groups = _caption_groups(report.rows, example.image)
    captioned = sum(map(len, groups.values()))
    for caption, rows in groups.items():
        everyone = f"all {captioned} rows" if len(groups) == 1 < captioned else describe_rows(rows)
        lines.append(f"- {everyone}: {caption_text(caption)}")
    return "\n".join([f"{_picture(example)}**{name_text(example.image)}**\n", *lines])


def _caption_groups(rows: Sequence[Comparison], image: str) -> dict[str, list[Comparison]]:
    """Rows by what they say of an image, the baseline's caption first, then the commonest."""
    groups: dict[str, list[Comparison]] = {}
    for item in rows:
        if image in item.row.captions:
            groups.setdefault(item.row.captions[image], []).append(item)
    return dict(sorted(groups.items(), key=lambda group: (not group[1][0].is_baseline, -len(group[1]))))


def _picture(example: Example) -> str:
    if not example.picture:
        return ""
    source = html.escape(path_address(example.picture))
    return f'<img src="{source}" alt="test image {html.escape(plain(example.image))}" width="160">\n\n'
