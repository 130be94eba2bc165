"""What the captions look like: pictures with what people and every row wrote. Pure."""

import html
from collections.abc import Sequence

from bench.result import Example
from reports.comparison import Comparison
from reports.report import Report
from reports.text import (
    caption_text,
    enumerate_names,
    name_text,
    path_address,
    plain,
)


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
