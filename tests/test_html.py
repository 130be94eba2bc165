"""The page as text: what it holds, what it lets run, and that data stays text in every format."""

import base64
import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from report_edits import BASELINE, GOLDEN, INT8_TFLITE, change, keep, with_gallery
from rich.console import Console

from bench.parity.record import Cause
from bench.result import Example, Result, Results, Status, row_name
from bench.result_file import read_results, write_results
from reports import text
from reports.drawing import draw_figures
from reports.flat import render_csv, render_jsonl
from reports.gallery import make_gallery
from reports.html import GALLERY, render_html
from reports.markdown import render_markdown
from reports.markup import slug, to_html
from reports.report import Report, make_report
from reports.sections import find_sections
from reports.terminal import print_report
from reports.thumbnails import read_thumbnails
from reports.write import write_report

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Elements and visible text of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    report = make_report(results)
    return Page(render_html(report, draw_figures(report), {"dog.jpg": "data:image/png;base64,AAAA"}))


# --- the page ---


def test_content_equals_golden_file(results: Results) -> None:
    """Without pictures, style and script. After a wanted change: UPDATE_GOLDEN=1 pytest tests/test_html.py."""
    html = render_html(make_report(results), {}, {})
    content = html[html.index("<main") : html.index("</main>")]
    path = GOLDEN / "report.html"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(content, encoding="utf-8")
    assert content == path.read_text(encoding="utf-8")


def test_page_says_what_the_markdown_says(results: Results, page: Page) -> None:
    sections = find_sections(make_report(results), {"figure": "f", "waterfall": "w"}, pictures=False)
    titles = [section.title for section in sections if section.title]
    heads = [attributes["id"] for attributes in page.named("h2")]
    assert heads == [slug(title) for title in [*titles, GALLERY]]
    assert len(page.named("table")) == sum(section.text.count("| :-- |") > 0 for section in sections) or page.text
    for item in make_report(results).rows:
        assert item.name in page.text


def test_page_loads_nothing_and_runs_only_its_own_script(page: Page) -> None:
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        assert len(page.named(tag)) == 1
        assert re.search(rf"{kind} 'sha256-[A-Za-z0-9+/=]+'", policy)
    addresses = [a[name] for _, a in page.elements for name in ("src", "href", "xlink:href") if name in a]
    assert all(address.startswith(("#", "data:image/", "https://github.com/")) for address in addresses)
    attributes = {name for _, a in page.elements for name in a}
    assert "style" not in attributes
    assert not [name for name in attributes if name.startswith("on")]


def test_policy_names_the_hashes_of_style_and_script(results: Results) -> None:
    html = render_html(make_report(results), {}, {})
    for tag in ("style", "script"):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html


def test_identifiers_are_unique_and_links_within_the_page_arrive(page: Page) -> None:
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    inner = [a[n] for _, a in page.elements for n in ("href", "xlink:href") if a.get(n, "").startswith("#")]
    assert {address[1:] for address in inner} <= set(identifiers)
    labels = [a["aria-label"] for _, a in page.elements if a.get("role") == "region"]
    assert len(labels) == len(set(labels)) > 5


def test_marks_say_what_they_stand_for(page: Page, results: Results) -> None:
    marks = [a["aria-label"] for _, a in page.elements if a.get("class") == "mark"]
    assert sum(INT8_TFLITE in mark for mark in marks) == 2  # once for size, once for time
    row = next(row for row in results.rows if row_name(row) == INT8_TFLITE)
    assert row.size_bytes is not None
    assert f"{row.size_bytes.total / 1e6:.2f} MB" in next(mark for mark in marks if INT8_TFLITE in mark)


def test_page_without_figures_says_how_to_get_them(results: Results) -> None:
    assert "pip install matplotlib" in Page(render_html(make_report(results), {}, {})).text


# --- the gallery ---


def test_gallery_tells_who_said_what_and_why(results: Results) -> None:
    report = make_report(with_gallery(results, rows=7, images=6))
    cards = make_gallery(report)
    assert len(cards) == 6
    assert [bool(card.causes) for card in cards] == [True, True, False, False, False, False]
    by_name = {item.name: number for number, item in enumerate(report.rows, start=1)}
    for card in cards:
        assert sorted(row for said in card.said for row in said.rows) == sorted(by_name.values())
        assert by_name[BASELINE] in card.said[0].rows
    assert [set(card.causes.values()) for card in cards[:2]] == [{str(cause)} for cause in list(Cause)[:2]]


def test_differences_of_old_results_are_shown_without_a_cause(results: Results) -> None:
    rows = with_gallery(results, rows=3, images=1).rows
    old = [replace(row, parity=replace(row.parity, causes={}) if row.parity else None) for row in rows]
    (card,) = make_gallery(make_report(replace(results, rows=tuple(old))))
    assert set(card.causes.values()) == {Cause.NOT_EXAMINED}


def test_captions_are_marked_where_they_differ_and_people_are_heard(results: Results) -> None:
    shown = replace(with_gallery(results, rows=4, images=1), references={"0000.jpg": ("a dog", "ein Hund")})
    html = render_html(make_report(shown), {}, {"0000.jpg": "data:image/png;base64,AAAA"})
    assert "a <mark>cat1</mark> number 0" in html
    assert "<q><bdi>ein Hund</bdi></q>" in html
    assert Page(html).named("img") == [
        {"src": "data:image/png;base64,AAAA", "alt": "", "width": "160", "loading": "lazy"}
    ]


def test_many_rows_stand_by_their_numbers(results: Results) -> None:
    html = render_html(make_report(with_gallery(results, rows=30, images=2)), {}, {})
    assert re.search(r'class="who">rows? [0-9, –]+<', html)
    assert html.count("<li>tflite.variant") == 29


def test_thumbnails_are_data_and_small(results: Results, tmp_path: Path) -> None:
    Image.effect_noise((800, 600), 90).convert("RGB").save(tmp_path / "large.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "small.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture" * 1000)
    pictures = {"large": "large.png", "small": "small.png", "broken": "broken.jpg", "missing": "missing.jpg"}
    found = read_thumbnails(replace(results, examples=(Example("e", (), "small.png"),), pictures=pictures), tmp_path)
    assert set(found) == {"e", "large", "small"}
    assert found["large"].startswith("data:image/jpeg;base64,")
    assert len(found["large"]) < 80_000
    assert base64.b64decode(found["small"].partition(",")[2]) == (tmp_path / "small.png").read_bytes()


# --- results that are not whole ---


def without_tflite(row: Result) -> Result:
    """As a run leaves it where that runtime is not installed."""
    if row.runtime != "tflite":
        return row
    kept = ("recipe", "captioner", "encoder", "decoder", "format", "graph", "runtime")
    known = {name: getattr(row, name) for name in kept}
    return Result(**known, runtime_version="", status=Status.FAILED, reason="ai-edge-litert is not installed")


PARTIAL: dict[str, Callable[[Results], Results]] = {
    "no rows": lambda r: replace(r, rows=(), captioners=(), examples=(), constant_caption=None, noise_floor=None),
    "one row": lambda r: keep(r, BASELINE),
    "no baseline": lambda r: keep(r, *(row_name(row) for row in r.rows if row_name(row) != BASELINE)),
    "baseline failed": lambda r: change(
        r, BASELINE, lambda row: replace(row, status=Status.FAILED, reason="killed", quality=None, latency_seconds={})
    ),
    "a runtime is missing": lambda r: replace(r, rows=tuple(map(without_tflite, r.rows))),
    "no valid rows": lambda r: replace(
        r, rows=tuple(replace(row, status=Status.INVALID, reason="drifted") for row in r.rows)
    ),
    "nothing captioned": lambda r: replace(r, rows=tuple(replace(row, captions={}) for row in r.rows), examples=()),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_results_that_are_not_whole_give_a_truthful_page_in_every_format(results: Results, name: str) -> None:
    report = make_report(PARTIAL[name](results))
    markdown = render_markdown(report, {})
    page = Page(render_html(report, draw_figures(report), {}))
    for shown in (markdown, page.text):
        for item in report.rows:
            assert item.name in shown
    if report.winner is None:
        assert "Ship nothing from this run." in markdown
        assert "Ship nothing from this run." in page.text
    # A table without rows says nothing and looks broken.
    assert not re.search(r"\n\| :?--.*\|\n(?!\|)", markdown)
    assert len(render_csv(report).splitlines()) == len(report.rows) + 1
    assert len(render_jsonl(report).splitlines()) == len(report.rows)
    assert shown_on_terminal(report)


def shown_on_terminal(report: Report) -> str:
    console = Console(file=io.StringIO(), width=400)
    print_report(report, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


# --- text that comes from data ---

HOSTILE = st.text(max_size=40) | st.text(
    alphabet="<>&\"'`|*_[](){}#\\~!$@=+-.;:/\n\r\t scriptonaj=\u202e\u2066\u05d0\u0627\U0001f600", max_size=60
)
KNOWN = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a | b || c",
    "`code` ``` ~~~",
    "l1\nl2\r\n\nl3",
    "שלום\u202e עולם",
    "🐕‍🦺 👩🏽‍🚀",
    "]]> -->",
    "{{x}} $x$ %s",
    "[a](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "=1+1",
    "--- \n# h",
    "&lt;b&gt;",
    "<!--",
    "'\"><svg/onload=alert(1)>",
    "[red]bold[/red]",
    "\x1b[31mred",
]


def hostile(results: Results, data: str) -> Report:
    """The golden run with `data` wherever a data set, a model or a tool may put text."""
    # One that differs, so that it is marked too.
    edited = change(results, INT8_TFLITE, lambda row: replace(row, captions={"dog.jpg": f"a {data} b"}))
    edited = change(edited, BASELINE, lambda row: replace(row, captions={"dog.jpg": data}, note=data))
    edited = change(
        edited,
        "flickr8k.saved_model.int8_static @ tensorflow",
        lambda row: replace(row, reason=data, thread=data, recipe=f"r{data}"),
    )
    return make_report(
        replace(edited, title=data, examples=(Example("dog.jpg", (data,), ""),), references={"dog.jpg": (data,)})
    )


TAGS = """
html head meta title style body a header nav ul ol li main h1 h2 h3 p strong em code pre div table
thead tbody tr th td span q bdi mark article details summary form label select option input output
script br s
"""
ALLOWED = frozenset(TAGS.split())


def check_html(report: Report, data: str) -> None:
    page = Page(render_html(report, {}, {}))
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert len(page.named("script")) == len(page.named("style")) == 1
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    addresses = [a["href"] for a in page.named("a")]
    assert all(address.startswith(("#", "https://", "http://")) for address in addresses)
    assert not page.named("img")
    if text.plain(data):
        assert text.plain(data) in page.text


def check_markdown(report: Report, data: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(render_markdown(report, {}))
    children = [child for token in tokens if token.type == "inline" for child in token.children or []]
    assert not [token for token in [*tokens, *children] if token.type in ("html_block", "html_inline", "image")]
    if text.plain(data):
        assert text.plain(data) in "".join(child.content for child in children)


def check_svg(report: Report, data: str) -> None:
    for svg in draw_figures(report).values():
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
        assert tags <= {
            "svg",
            "title",
            "desc",
            "defs",
            "style",
            "g",
            "path",
            "use",
            "text",
            "clipPath",
            "rect",
            "tspan",
        }


def check_csv(report: Report, data: str) -> None:
    lines = list(csv.DictReader(io.StringIO(render_csv(report), newline="")))
    assert [line["row"].removeprefix("'") for line in lines] == [item.name for item in report.rows]


def check_jsonl(report: Report, data: str) -> None:
    records = [json.loads(line) for line in render_jsonl(report).split("\n")[:-1]]
    assert data in [record["reason"] for record in records]


def check_terminal(report: Report, data: str) -> None:
    shown = shown_on_terminal(report)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


CHECKS = {
    "markdown": check_markdown,
    "html": check_html,
    "csv": check_csv,
    "jsonl": check_jsonl,
    "terminal": check_terminal,
}


@pytest.mark.parametrize("name", CHECKS)
@given(data=HOSTILE)
@settings(max_examples=25, deadline=None)
def test_any_text_comes_out_as_text(name: str, data: str) -> None:
    CHECKS[name](hostile(read_results(GOLDEN / "results.json"), data), data)


@pytest.mark.parametrize("data", KNOWN)
def test_known_tricks_come_out_as_text(results: Results, data: str) -> None:
    for check in (*CHECKS.values(), check_svg):
        check(hostile(results, data), data)


@given(HOSTILE)
def test_escaped_markdown_reads_as_itself_in_html(data: str) -> None:
    html = to_html(text.escape(data), label="x", figures={})
    assert Page(html).text.rstrip("\n") == text.plain(data)


# --- size ---

LARGE = """
import sys
from pathlib import Path
from bench.environment import peak_rss_bytes
from reports.write import write_report
write_report(Path(sys.argv[1]))
print(peak_rss_bytes() / 1e6)
"""


def test_two_hundred_rows_and_a_thousand_images_fit(results: Results, tmp_path: Path) -> None:
    large = with_gallery(results, rows=200, images=1000, differing=12)
    write_results(large, tmp_path / "results.json")
    command = [sys.executable, "-c", LARGE, str(tmp_path / "results.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) < 1000  # MB
    assert (tmp_path / "report.html").stat().st_size < 15e6


def test_page_and_markdown_are_written_together(results: Results, tmp_path: Path) -> None:
    write_results(results, tmp_path / "results.json")
    write_report(tmp_path / "results.json")
    assert "<mark>" in (tmp_path / "report.html").read_text(encoding="utf-8")
