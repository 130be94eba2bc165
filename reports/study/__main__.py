"""`python -m reports.study [--data DIR] [--check]`: writes paper-claims.md; with data, scores the sentences anew."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from bench.result import Results
from bench.result_file import read_results
from models.datasets import open_dataset
from models.errors import CaptionbenchError, MissingPackageError
from models.files import write_text_atomic
from reports.study.evidence import KERAS_LOOP, Evidence
from reports.study.page import FIGURE, render_claims
from reports.study.runs import read_runs
from reports.study.sentences import read_sentences, write_sentences
from reports.waterfall_figure import render_waterfall

PUBLISHED = Path("reports/published")
PAGE, SENTENCES = "paper-claims.md", "paper-sentences.json"
# Suites whose baseline is the study's loop: the one with what is worth shipping, and the one with all combinations.
SHIPPED, GRID = "flickr8k", "paper"


def read_evidence(published: Path) -> Evidence:
    """What is published: the sentences' scores, and the runs over the study's own captioner on Flickr8k."""
    shipped, grid = (_own_run(published / suite / "results.json") for suite in (SHIPPED, GRID))
    return Evidence(read_runs(), read_sentences(published / SENTENCES), shipped or grid, grid)


def _own_run(path: Path) -> Results | None:
    """A published run, if it is one on Flickr8k that starts from the study's loop."""
    run = read_results(path) if path.is_file() else None
    return run if run and run.dataset.startswith("flickr8k") and KERAS_LOOP in run.baseline else None


def main(arguments: list[str] | None = None) -> int:
    """Write the page; with `--check`, only say whether it is current (status 1 when not)."""
    parser = argparse.ArgumentParser(prog="python -m reports.study", description=__doc__)
    parser.add_argument("--data", type=Path, help="Flickr8k's folder; without it the kept scores are used")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page is not current")
    asked = parser.parse_args(arguments)
    try:
        if asked.data:
            write_sentences(open_dataset("flickr8k", asked.data, {}), PUBLISHED / SENTENCES)
        evidence = read_evidence(PUBLISHED)
        page = render_claims(evidence)
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = PUBLISHED / PAGE
    if not asked.check:
        write_text_atomic(path, page)
        _draw(evidence, PUBLISHED / FIGURE)
        return 0
    if not path.is_file() or path.read_text(encoding="utf-8") != page:
        print(f"{path} is not what the published results say: run `python -m reports.study`.", file=sys.stderr)
        return 1
    return 0


def _draw(evidence: Evidence, path: Path) -> None:
    """The picture of the page; the one that is there stays where this environment can't draw."""
    with suppress(MissingPackageError):
        if evidence.own_terms and (svg := render_waterfall(evidence.own_terms)):
            write_text_atomic(path, svg)


if __name__ == "__main__":
    raise SystemExit(main())
