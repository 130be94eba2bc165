"""docs/matrix.md: technique x precision x format x runtime, whole; what can't be has its reason below."""

from collections.abc import Sequence

from bench.matrix import MatrixCell, Outcome
from convert.recipe import Graph
from reports.text import escape, name_text, percent, ratio, table

HEAD = """# What works with what

Made by `nox -s matrix` from the registries: every cell was built by the real converter, loaded by the real runtime,
and captioned {images} test images. The captioner is tiny and hardly trained, so the cells say what works and how much
smaller a file gets even at this size, not what it costs in quality: for that read the published reports.

Each cell: how many times smaller than fp32 of the same technique, and the share of captions that are those of fp32.
A number in brackets is a combination that can't work; the reasons are below.
"""


def render_matrix(cells: Sequence[MatrixCell], images: int) -> str:
    """The page."""
    reasons = list(dict.fromkeys((c.reason, c.thread) for c in cells if c.outcome is not Outcome.WORKS))
    numbers = {reason: place for place, reason in enumerate(reasons, 1)}
    parts = [HEAD.format(images=images)]
    groups = dict.fromkeys((c.cell.recipe.format, c.cell.runtime) for c in cells)
    for format_, runtime in groups:
        group = [c for c in cells if (c.cell.recipe.format, c.cell.runtime) == (format_, runtime)]
        parts += [f"## {format_} on {runtime}\n", _techniques(group, numbers), _options(group, numbers)]
    parts.append(_reasons(reasons))
    return "\n".join(filter(None, parts)).rstrip() + "\n"


def _techniques(group: Sequence[MatrixCell], numbers: dict[tuple[str, str], int]) -> str:
    """Techniques down, precisions across."""
    precisions = _main_precisions(group)
    by_key = {(c.cell.recipe.technique, str(c.cell.recipe.encoder)): c for c in group if _is_whole(c)}
    rows = [
        [name_text(technique), *(_text(by_key.get((technique, p)), numbers) for p in precisions)]
        for technique in dict.fromkeys(c.cell.recipe.technique for c in group)
    ]
    return table(["technique", *map(name_text, precisions)], rows) + "\n"


def _options(group: Sequence[MatrixCell], numbers: dict[tuple[str, str], int]) -> str:
    """What only the uncompressed captioner was built with."""
    known = set(_main_precisions(group))
    others = [c for c in group if not (_is_whole(c) and str(c.cell.recipe.encoder) in known)]
    if not others:
        return ""
    rows = [[name_text(_precision(c)), _text(c, numbers)] for c in others]
    return table(["other precisions and graphs, technique `none`", "smaller, captions"], rows) + "\n"


def _main_precisions(group: Sequence[MatrixCell]) -> list[str]:
    """Those that every technique was built with."""
    techniques = {c.cell.recipe.technique for c in group}
    built: dict[str, set[str]] = {}
    for cell in filter(_is_whole, group):
        built.setdefault(str(cell.cell.recipe.encoder), set()).add(cell.cell.recipe.technique)
    return [precision for precision, found in built.items() if found == techniques]


def _is_whole(cell: MatrixCell) -> bool:
    """Whether both halves have one precision, each in a file of its own."""
    recipe = cell.cell.recipe
    return recipe.encoder == recipe.decoder and recipe.graph is Graph.STEP


def _precision(cell: MatrixCell) -> str:
    """What stands behind the format in a recipe's name."""
    recipe = cell.cell.recipe
    return recipe.name.partition(f".{recipe.format}.")[2]


def _text(cell: MatrixCell | None, numbers: dict[tuple[str, str], int]) -> str:
    if cell is None:
        return ""
    if cell.outcome is not Outcome.WORKS:
        word = "" if cell.outcome is Outcome.UNSUPPORTED else "failed "
        return f"{word}[{numbers[cell.reason, cell.thread]}](#why-not)"
    if cell.size_ratio is None or cell.captions_identical is None:
        return "works"
    return f"{ratio(cell.size_ratio)}, {percent(cell.captions_identical)}"


def _reasons(reasons: Sequence[tuple[str, str]]) -> str:
    lines = [
        f"{place}. {escape(reason)}" + (f" ([upstream]({thread}))" if thread else "")
        for place, (reason, thread) in enumerate(reasons, 1)
    ]
    return "\n".join(["## Why not\n", *lines]) if lines else ""
