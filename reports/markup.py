"""A report's Markdown as HTML: no markup of the text's own, no style attributes, tables that scroll. Pure.

Sections are written once, as Markdown, whose escaping the tests prove; here CommonMark's own reader turns them into
elements with raw HTML switched off, so that whatever a caption holds stays text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_NUMBERS = "text-align:right"


def slug(title: str) -> str:
    """An address within the page: words of letters and digits, joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower())) or "section"


def to_html(markdown: str, *, label: str, figures: Mapping[str, str]) -> str:
    """Elements of one section. `figures`: by the address that Markdown gives a picture, the elements to show instead.

    `label` names its tables for screen readers. A picture that is not in `figures` shows its text.
    """
    reader = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    tokens = list(_number_tables(reader.parse(markdown), label))
    return str(reader.renderer.render(tokens, reader.options, {"figures": figures}))


def to_text(markdown: str) -> str:
    """What a reader of one paragraph sees, without marks: for terminals and programs."""
    tokens = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").parseInline(markdown)
    return "".join(" " if token.type == "softbreak" else token.content for token in tokens[0].children or [])


def _number_tables(tokens: Sequence[Token], label: str) -> Iterator[Token]:
    """The tokens, the tables of the section named so that no two have the same name; alignment as a class."""
    tables = 0
    for token in tokens:
        if token.type == "table_open":
            tables += 1
            token.meta["label"] = label if tables == 1 else f"{label} ({tables})"
        if token.type in ("th_open", "td_open"):
            style = token.attrs.pop("style", "")
            if style == _NUMBERS:
                token.attrSet("class", "num")
            if token.type == "th_open":
                token.attrSet("scope", "col")
        yield token


class _Renderer(RendererHTML):
    """CommonMark's renderer, but for tables, pictures and links."""

    def table_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        """A table in a box that scrolls, that the keyboard can reach and that has a name."""
        label = escape(tokens[index].meta["label"])
        return f'<div class="table" role="region" aria-label="{label}" tabindex="0"><table>\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        """The end of both."""
        return "</table></div>\n"

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        """A figure that the page holds itself; nothing is loaded."""
        token = tokens[index]
        shown: str | None = env["figures"].get(token.attrGet("src"))
        return shown if shown is not None else escape(token.content)

    def link_open(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        """A link that tells the other side nothing."""
        tokens[index].attrSet("rel", "noopener noreferrer")
        return str(self.renderToken(tokens, index, options, env))
