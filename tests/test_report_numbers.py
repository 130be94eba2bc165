"""What a report prints is what results.json says: every number is found there, every ratio comes out again.

The file is read with the json module alone and worked with by hand, so that no code under test checks itself.
"""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from report_edits import BASELINE, GOLDEN, INT8_TFLITE

from bench.result_file import read_results
from reports.exporters import EXPORTERS
from reports.markdown import render_markdown
from reports.report import make_report

ROOT = Path(__file__).parent.parent
RUNS = [GOLDEN, *sorted(path.parent for path in (ROOT / "reports" / "published").glob("*/results.json"))]
# A number as a table shows it; not the digits inside a name.
PRINTED = re.compile(r"(?<![\w.@/#-])[+−]?\d[\d,]*(?:\.\d+)?")


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / "results.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def rows(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{row['recipe']} @ {row['runtime']}": row for row in raw["rows"]}


def read_tables(page: str) -> list[list[dict[str, str]]]:
    """The Markdown tables of a page, as rows by the names of their columns."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        head, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        tables.append([dict(zip(head, cells, strict=True)) for cells in body])
    return tables


def find_table(tables: list[list[dict[str, str]]], *columns: str) -> list[dict[str, str]]:
    return next(table for table in tables if set(columns) <= set(table[0]))


def numbers(cell: str) -> list[float]:
    return [float(text.replace(",", "").replace("−", "-")) for text in PRINTED.findall(cell)]


def shown(cell: str, *values: float) -> bool:
    """Whether the first numbers of a cell are these values, to the places that are printed."""
    texts = PRINTED.findall(cell)
    return len(texts) >= len(values) and all(map(_is_rounded, texts, values))


def _is_rounded(text: str, value: float) -> bool:
    digits = len(text.partition(".")[2])
    distance: float = abs(float(text.replace(",", "").replace("−", "-")) - value)
    return distance <= 0.5000001 * 10.0**-digits


def test_headline_is_the_files_numbers_and_their_ratios(raw: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    page = render_markdown(make_report(read_results(GOLDEN / "results.json")), {})
    base = rows[BASELINE]
    for line in find_table(read_tables(page), "recipe @ runtime", "smaller", "faster", "rank"):
        row = rows[re.findall(r"`([^`]+)`", line["recipe @ runtime"])[0]]
        if not row["size_bytes"]:
            assert line["size (MB)"] == line["CIDEr"] == line["caption (ms)"] == "–"
            continue
        quality, caption = row["quality"], row["latency_seconds"]["caption"]
        assert shown(line["size (MB)"], row["size_bytes"]["total"] / 1e6)
        assert shown(line["BLEU-4"], quality["bleu_4"])
        low, high = quality["cider_ci95"]
        assert shown(line["CIDEr"], quality["cider"], (high - low) / 2)
        assert shown(line["caption (ms)"], *(1e3 * value for value in (caption["median"], *caption["ci95"])))
        if row is base:
            continue
        assert shown(line["captions identical"], 100 * row["parity"]["captions_identical"])
        assert shown(line["smaller"], base["size_bytes"]["total"] / row["size_bytes"]["total"])
        if row["versus_baseline"] and line["faster"] != "–":
            # A change of time by -0.8 is one to a fifth of it.
            assert shown(line["faster"], 1 / (1 + row["versus_baseline"]["relative"]))


def test_steps_of_the_way_multiply_to_the_whole(rows: dict[str, dict[str, Any]]) -> None:
    page = render_markdown(make_report(read_results(GOLDEN / "results.json")), {})
    *steps, whole = find_table(read_tables(page), "step", "row that was reached")
    reached = [rows[re.findall(r"`([^`]+)`", step["row that was reached"])[0]] for step in steps]
    assert reached[0] is rows[BASELINE]
    assert reached[-1] is rows[INT8_TFLITE]
    smaller = faster = 1.0
    for step, before, after in zip(steps[1:], reached, reached[1:], strict=False):
        size = before["size_bytes"]["total"] / after["size_bytes"]["total"]
        speed = before["latency_seconds"]["caption"]["median"] / after["latency_seconds"]["caption"]["median"]
        assert shown(step["smaller"], size)
        # Speeds are medians over paired rounds, not quotients of medians: near, not the same.
        assert numbers(step["faster"])[0] == pytest.approx(speed, rel=0.02)
        smaller, faster = smaller * size, faster * speed
    assert shown(whole["smaller"], smaller)
    assert numbers(whole["faster"])[0] == pytest.approx(faster, rel=0.02)


def test_phases_are_the_files(rows: dict[str, dict[str, Any]]) -> None:
    page = render_markdown(make_report(read_results(GOLDEN / "results.json")), {})
    for line in find_table(read_tables(page), "recipe @ runtime", "load (ms)", "step (ms)"):
        found = rows[re.findall(r"`([^`]+)`", line["recipe @ runtime"])[0]]["latency_seconds"]
        for phase in ("load", "preprocess", "encode", "step", "decode"):
            if line[f"{phase} (ms)"] != "–":
                assert shown(line[f"{phase} (ms)"], 1e3 * found[phase]["median"])


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_exports_hold_the_files_numbers(run: Path) -> None:
    loaded = json.loads((run / "results.json").read_text(encoding="utf-8"))
    rows = {f"{row['recipe']} @ {row['runtime']}": row for row in loaded["rows"]}
    report = make_report(read_results(run / "results.json"))
    base = rows[loaded["baseline"]]
    records = [json.loads(line) for line in EXPORTERS["jsonl"](report).splitlines()]
    assert {record["row"] for record in records} == set(rows)
    for record in records:
        row = rows[record["row"]]
        assert record["size_bytes"] == (row["size_bytes"] or {}).get("total")
        assert record["cider"] == (row["quality"] or {}).get("cider")
        assert record["bleu_4"] == (row["quality"] or {}).get("bleu_4")
        if record["times_smaller"] is not None:
            assert record["times_smaller"] == pytest.approx(base["size_bytes"]["total"] / row["size_bytes"]["total"])
        if record["caption_seconds"] is not None:
            assert record["caption_seconds"] == row["latency_seconds"]["caption"]["median"]


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.name)
def test_sizes_and_scores_of_every_table_are_in_the_file(run: Path) -> None:
    loaded = json.loads((run / "results.json").read_text(encoding="utf-8"))
    report = make_report(read_results(run / "results.json"))
    known = [
        row["size_bytes"][part] / 1e6
        for row in loaded["rows"]
        for part in ("total", "encoder", "decoder", "deflated")
        if row["size_bytes"] and row["size_bytes"].get(part) is not None
    ]
    lines = chain.from_iterable(read_tables(render_markdown(report, {})))
    printed = [line["size (MB)"] for line in lines if line.get("size (MB)", "–") != "–"]
    assert printed
    for cell in printed:
        assert any(_is_rounded(PRINTED.findall(cell)[0], size) for size in known), cell
