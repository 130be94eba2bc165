"""A matplotlib figure as SVG text that stands alone: text stays text, identifiers repeat, nothing points outside."""

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any
from xml.etree import ElementTree

# Mid-grey and mid-tone colours read on white paper and on a dark page; shapes serve those
# who see no colour. The colours follow Okabe and Ito's safe set.
INK = "#777777"
COLOURS = ("#2F86C9", "#DD7A12", "#1FA187", "#C45BA0", "#8A7A2E")
_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def to_svg(figure: Any, title: str, description: str) -> str:
    """The figure with a name and its content in words, for those who can't see it."""
    import matplotlib

    # Text stays text (small, searchable, read aloud); a fixed salt makes identifiers repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "captionbench"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata=_NOTHING)
    return _accessible(text.getvalue(), title, description)


def _accessible(svg: str, title: str, description: str) -> str:
    """Name the picture for screen readers; drop the document type, which points to the network."""
    svg = re.sub(r"<!DOCTYPE[^>]*>\s*", "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    names = f"<title>{escape(title)}</title>\n <desc>{escape(description)}</desc>\n"
    return re.sub(r"(<svg\b[^>]*)>", lambda m: f'{m[1]} role="img">\n {names}', svg, count=1)


def style_axes(axes: Any) -> None:
    """Two spines and a faint grid, in ink."""
    axes.tick_params(colors=INK, which="both")
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(INK)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


def log_ticks(axis: Any) -> None:
    """1, 2, 5 of each decade, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def inline_svg(svg: str, prefix: str, marks: Mapping[str, str]) -> str:
    """`svg` as part of a page with a strict content policy: no styles, identifiers that begin with `prefix`.

    `marks`: by the identifier of a group, what it stands for: shown by the browser when pointed at, and read aloud.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == f"{_SVG}style"]:
            parent.remove(child)
    for element in root.iter():
        _mark(element, marks.get(element.get("id", "")))
        _without_style(element, prefix)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "group")
    root.set("class", "chart")
    root.set("stroke-linejoin", "round")
    root.set("aria-label", root.findtext(f"{_SVG}title") or prefix)
    title = root.find(f"{_SVG}title")
    if title is not None:
        root.remove(title)  # it would pop up wherever there is no mark
    return ElementTree.tostring(root, encoding="unicode")


def _mark(element: ElementTree.Element, label: str | None) -> None:
    if label is not None:
        element.attrib.update({"class": "mark", "role": "img", "aria-label": label})
        title = ElementTree.Element(f"{_SVG}title")
        title.text = label
        element.insert(0, title)


def _without_style(element: ElementTree.Element, prefix: str) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            element.set(name.strip(), value.strip())
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.get('id')}")
    for name, value in element.attrib.items():
        if name == _HREF and value.startswith("#"):
            element.set(name, f"#{prefix}-{value[1:]}")
        elif value.startswith("url(#"):
            element.set(name, value.replace("url(#", f"url(#{prefix}-", 1))
