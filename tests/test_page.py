"""The page in a real browser: without a complaint, sorted, filtered, by keyboard, on a phone, to a screen reader."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_edits import BASELINE, GOLDEN, with_gallery

from bench.parity.record import Cause
from bench.result import Results
from bench.result_file import read_results
from reports.drawing import draw_figures
from reports.html import render_html
from reports.report import make_report

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
# Without these a browser behind a closed network looks for its maker's hosts.
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")
ROWS, IMAGES = 12, 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(GOLDEN / "results.json")


@pytest.fixture(scope="module")
def file(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a dozen rows and sixty images."""
    return write_page(with_gallery(results, ROWS, IMAGES), tmp_path_factory.mktemp("page") / "report.html")


def write_page(results: Results, path: Path) -> Path:
    report = make_report(results)
    pictures = {"0000.jpg": "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="}
    path.write_text(render_html(report, draw_figures(report), pictures), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    yield from opened(browser, file, viewport={"width": 1200, "height": 900})


def opened(browser: Any, file: Path, **options: Any) -> Iterator[Any]:
    """A page that may not complain: no error, no blocked style or script, nothing asked of a network."""
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if is_local(request.url) else complaints.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    context.close()


def is_local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


def column(page: Any, number: int) -> list[str]:
    cells: list[str] = page.locator(f"table >> nth=0 >> tbody tr:visible td:nth-child({number + 1})").all_inner_texts()
    return cells


def test_a_click_sorts_and_another_one_turns_round(page: Any) -> None:
    head = page.locator("table >> nth=0 >> th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    sizes = [float(text) for text in column(page, 1)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in column(page, 1)] == sorted(sizes, reverse=True)


def test_what_is_not_known_stays_last_both_ways(page: Any) -> None:
    smaller = page.locator("table >> nth=0 >> th").nth(2).get_by_role("button")
    for _ in range(2):
        smaller.click()
        assert column(page, 2)[-1] == "–"  # the baseline's


def test_tables_sort_and_filter_by_keyboard(page: Any) -> None:
    page.locator("table >> nth=0 >> th >> nth=4 >> button").focus()
    page.keyboard.press("Enter")
    assert page.locator("table >> nth=0 >> th").nth(4).get_attribute("aria-sort") == "ascending"
    page.locator("input[type=search]").first.fill("variant3 tflite")
    assert page.locator("table >> nth=0 >> tbody tr:visible").count() == 1
    assert page.get_by_role("status").first.inner_text() == f"1 of {ROWS} rows"


def test_pointing_at_a_mark_shows_its_values_and_its_twin(page: Any) -> None:
    mark = page.locator(".mark").nth(2)
    rest = page.locator(".tip").inner_text()
    mark.dispatch_event("pointerenter")
    assert page.locator(".tip").inner_text() == mark.get_attribute("aria-label")
    assert page.locator(".mark.twin").count() == 2
    mark.dispatch_event("pointerleave")
    assert page.locator(".tip").inner_text() == rest


def test_arrows_walk_the_marks_of_a_chart(page: Any) -> None:
    assert page.locator(".mark[tabindex='0']").count() == 1
    page.locator(".mark").first.focus()
    first = page.locator(".tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text() != first
    assert page.locator(".mark[tabindex='0']").count() == 1


def test_gallery_shows_some_and_more(page: Any) -> None:
    assert page.locator(".card:visible").count() == 24
    page.get_by_role("button", name="Show more images").click()
    assert page.locator(".card:visible").count() == 48
    page.get_by_role("button", name="Show more images").click()
    assert page.locator(".card:visible").count() == IMAGES
    assert not page.get_by_role("button", name="Show more images").is_visible()


def test_gallery_filters_by_difference_cause_row_and_words(page: Any) -> None:
    found = page.locator("#found")
    page.locator("#differ").select_option("any")
    assert found.inner_text() == f"20 of {IMAGES} images"
    page.locator("#differ").select_option(str(Cause.TIE_FLIP))
    tied = page.locator(".card:visible").count()
    assert 0 < tied < 20
    assert page.locator(".card:visible .why").first.inner_text() == str(Cause.TIE_FLIP)
    page.locator("#row").select_option(label=page.locator("#row option").filter(has_text=BASELINE[9:]).inner_text())
    assert found.inner_text() == f"0 of {IMAGES} images"
    page.locator("#row").select_option("")
    page.locator("#differ").select_option("")
    page.locator("#words").fill("number 41 ")
    assert found.inner_text() == f"1 of {IMAGES} images"


def test_gallery_takes_pictures_from_the_readers_own_folder(page: Any, tmp_path: Path) -> None:
    before = page.locator(".card img").count()
    (tmp_path / "0003.jpg").write_bytes((GOLDEN / "dot.jpg").read_bytes())
    page.locator("#folder").set_input_files(str(tmp_path))
    assert page.locator(".card img").count() == before + 1
    shown = page.locator('.card[data-image="0003.jpg"] img')
    shown.scroll_into_view_if_needed()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=shown.element_handle())


def test_phone_needs_no_sideways_scrolling(browser: Any, file: Path) -> None:
    for page in opened(browser, file, viewport={"width": 360, "height": 740}):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_page_is_whole_without_scripts(browser: Any, file: Path) -> None:
    for page in opened(browser, file, java_script_enabled=False):
        assert page.locator(".card:visible").count() == IMAGES
        assert page.locator("#gallery-controls:visible").count() == 0
        assert page.locator("table").first.is_visible()
        assert page.locator("svg.chart").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_accessibility_violations(browser: Any, file: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for page in opened(browser, file, color_scheme=scheme):
        # The rules are put into the page past its content policy; what they find is the page's own.
        found = axe.run(page)
        assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found.response["violations"]] == []


def test_hostile_text_runs_nothing(browser: Any, results: Results, tmp_path: Path) -> None:
    trick = "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    rows = tuple(replace(row, captions={trick: trick}, reason=trick, note=trick) for row in results.rows)
    path = write_page(replace(results, rows=rows, title=trick), tmp_path / "report.html")
    for page in opened(browser, path):
        assert page.title().startswith("</script>")
        assert page.locator("h1").inner_text() == trick


def test_two_hundred_rows_sort_without_a_stall(browser: Any, results: Results, tmp_path: Path) -> None:
    large = write_page(with_gallery(results, 200, 1000, differing=12), tmp_path / "report.html")
    started = time.monotonic()
    for page in opened(browser, large):
        assert time.monotonic() - started < 20
        stall = page.evaluate(SORT)
        # The bar of 200 ms is for a quiet machine; tests run beside others.
        assert max(stall) < 1000


SORT = """async () => {
  const seconds = [];
  for (const button of [...document.querySelectorAll("table")[0].querySelectorAll("th button")].slice(0, 10)) {
    const started = performance.now();
    button.click();
    document.body.getBoundingClientRect();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    seconds.push(performance.now() - started);
  }
  return seconds;
}"""
