"""Report -> one HTML page that needs nothing else: no network, no file beside it, no script to be read. Pure.

Its content policy (https://www.w3.org/TR/CSP3/) lets only this page's own script and style run, known by their hashes,
and pictures that the page holds or that the reader opens; no address can be loaded, whatever a caption says.
"""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from reports.figures import describe_point
from reports.gallery_html import gallery_section
from reports.markup import slug, to_html
from reports.points import find_points
from reports.report import Report
from reports.sections import Section, find_sections
from reports.svg import inline_svg
from reports.text import plain

GALLERY = "Captions, image by image"
TIP = "Point at a mark, or reach one with the keyboard, for its values."


def render_html(report: Report, figures: Mapping[str, str], pictures: Mapping[str, str]) -> str:
    """The whole page. `figures`: SVG by name; `pictures`: data address by image id, of those that may be shown."""
    style, script = _asset("page.css"), _asset("page.js")
    sections = find_sections(report, {name: name for name in figures}, pictures=False)
    shown = {name: _figure(svg, name, _marks(report)) for name, svg in figures.items()}
    gallery = gallery_section(report, pictures)
    titles = [s.title for s in sections if s.title] + ([GALLERY] if gallery else [])
    body = "\n".join(_section(section, shown, plain(report.results.title)) for section in sections)
    if gallery:
        body += f"\n{_heading(GALLERY)}\n{gallery}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(plain(report.results.title))}: captionbench report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the report</a>
<header><nav aria-label="Sections"><ul>{_links(titles)}</ul></nav></header>
<main id="content">
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (files("reports") / "page" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _links(titles: list[str]) -> str:
    return "".join(f'<li><a href="#{slug(title)}">{escape(title)}</a></li>' for title in titles)


def _heading(title: str) -> str:
    return f'<h2 id="{slug(title)}">{escape(title)}</h2>'


def _section(section: Section, figures: Mapping[str, str], page: str) -> str:
    text = to_html(section.text, label=section.title or page, figures=figures)
    return f"{_heading(section.title)}\n{text}" if section.title else text


def _marks(report: Report) -> dict[str, str]:
    """What each mark of the Pareto picture stands for, by its identifier in either panel."""
    order = [id(item) for item in report.rows]
    return {
        f"{panel}-{order.index(id(point.item))}": plain(f"{point.item.name}: {describe_point(point)}")
        for point in find_points(report)
        for panel in ("size", "time")
    }


def _figure(svg: str, name: str, marks: Mapping[str, str]) -> str:
    """The picture among the elements of a paragraph, and a line for the values of its marks where it has some."""
    chart = inline_svg(svg, name, marks)
    tip = f'<span class="tip" role="status">{TIP}</span>' if 'class="mark"' in chart else ""
    return f'<span class="figure">{chart}{tip}</span>'
