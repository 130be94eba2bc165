"""The documents: commands that exist, links that lead somewhere, tables that are current."""

import re
from pathlib import Path

import pytest

from bench.result_file import read_results
from bench.suite import suite_names
from models.errors import ConfigError
from reports.readme import PUBLISHED, render_readme, replace_between

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/compare.md", "docs/parity.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(text: str) -> list[str]:
    return [block.strip() for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]


def sessions() -> set[str]:
    """Names of the nox sessions, read from the noxfile."""
    source = (ROOT / "noxfile.py").read_text()
    named = re.findall(r'@nox\.session\(name="([\w-]+)"', source)
    plain = re.findall(r"@nox\.session(?:\((?!name)[^)]*\))?\ndef (\w+)", source)
    return {*named, *plain}


def test_first_two_commands_install_all_they_need() -> None:
    assert code_blocks(README)[:2] == ["pip install nox && nox -s bench", "pip install nox && nox -s tests"]


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "pip install nox && nox -s tests" in script
    assert "nox -s bench -- --quick" in script


@pytest.mark.parametrize("document", DOCUMENTS)
def test_sessions_and_suites_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for line in re.findall(r"nox -s ([^\n#`&|]*)", text):
        before, _, after = line.partition(" -- ")
        assert set(before.split()) <= sessions(), line
        for suite in re.findall(r"--suite (\w+)(?!\S)", after):
            assert suite in suite_names(), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target


def test_registries_are_listed_in_the_readme() -> None:
    from bench.runtimes import RUNTIMES
    from convert.recipe import Format
    from convert.scheme import Precision
    from models.datasets import DATASETS
    from models.decoders import DECODERS
    from models.encoders import ENCODERS

    public = {name for name in RUNTIMES if name != "fake"}
    for name in {*ENCODERS, *DECODERS, *DATASETS, *Format, *Precision, *public}:
        assert f"`{name}`" in README, name


def test_readme_tables_are_those_of_the_published_results() -> None:
    """When this fails: python -m reports.readme"""
    assert render_readme(README, ROOT / PUBLISHED).replace(f"{ROOT}/", "") == README


@pytest.mark.parametrize("results", sorted((ROOT / PUBLISHED).glob("*/results.json")), ids=lambda p: p.parent.name)
def test_published_results_show_no_photographs_nor_paths_of_a_machine(results: Path) -> None:
    parsed = read_results(results)
    if parsed.dataset != "scenes":  # drawn, so anyone's
        assert not any(example.picture or example.references for example in parsed.examples)
    assert "/" not in parsed.command
    assert not list(results.parent.rglob("*.jpg"))


@pytest.mark.parametrize("text", ["none", "<!-- x:end --><!-- x:start -->", "<!-- x:start -->" * 2 + "<!-- x:end -->"])
def test_markers_that_are_missing_or_swapped_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="once each"):
        replace_between(text, "x", "block")


def test_block_is_replaced_and_nothing_else() -> None:
    text = "before <!-- x:start -->old<!-- x:end --> after"
    once = replace_between(text, "x", "new")
    assert once == "before <!-- x:start -->\n\nnew\n\n<!-- x:end --> after"
    assert replace_between(once, "x", "new") == once


def test_readme_tells_the_spread_of_three_seeds() -> None:
    rows, said = read_results(ROOT / PUBLISHED / "seeds" / "results.json").rows, " ".join(README.split())
    for captioner, verb in (("vgg16-merge", "a CIDEr of"), ("mobilenet_v2-attention", "one of")):
        found = [row.quality.cider for row in rows if row.quality and row.captioner.startswith(captioner)]
        assert len(found) == 3
        assert f"{verb} {min(found):.3f} to {max(found):.3f}" in said


def test_what_is_published_stays_small() -> None:
    """A clone carries it; 15 MB in all."""
    assert sum(path.stat().st_size for path in (ROOT / PUBLISHED).rglob("*") if path.is_file()) < 15_000_000
