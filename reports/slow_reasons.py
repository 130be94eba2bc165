"""Why a quantized row is no faster than in fp32, in words: which half is slow, and what is known against it. Pure."""

from collections.abc import Iterator

from bench.measurement import Phase
from bench.result import Result, Results
from convert.artifact import ENCODER
from convert.recipe import Graph
from convert.scheme import Precision, Scheme, parse_scheme
from models.errors import ConfigError
from reports.comparison import Comparison
from reports.slow_rules import RULES, Half
from reports.text import enumerate_names, escape, milliseconds, name_text, percent

CAUSES = 2  # told at most
SAME_SPEED = 1.05  # a half within 5 % of its twin is not called slower: medians of one artifact differ by 2 to 4 %


def explain_slower(item: Comparison, twin: Comparison, results: Results) -> str:
    """One or two sentences (Markdown) on why `item` is no faster than `twin`, its fp32 row."""
    half = find_half(item.row, twin.row, results)
    causes = [cause for rule in RULES if (cause := rule(half))][:CAUSES]
    return " ".join([_where(half), *(causes or [_unknown(half)])]).strip()


def find_half(row: Result, twin: Result, results: Results) -> Half:
    """The graph whose runs cost a caption most more than the twin's; the fused graph, or else the encoder."""
    isa = frozenset(results.environment.isa)
    found = max(_timed_halves(row, twin), default=(0.0, row.graph if row.graph == Graph.FUSED else ENCODER, None, None))
    _, graph, mine, theirs = found
    precision = row.decoder.precision if graph == row.graph != Graph.FUSED else row.encoder.precision
    return Half(row, twin, graph, _scheme(precision), mine, theirs, isa)


def _timed_halves(row: Result, twin: Result) -> Iterator[tuple[float, str, float, float]]:
    """(seconds lost in a caption, graph, seconds of a run, the twin's) of each half that both rows timed."""
    steps = row.quality.caption_length_mean + 1 if row.quality else 1.0
    for graph, phase, times in ((ENCODER, Phase.ENCODE, 1.0), (row.graph, Phase.STEP, steps)):
        mine, theirs = row.latency_seconds.get(phase), twin.latency_seconds.get(phase)
        if mine and theirs:
            yield (mine.median - theirs.median) * times, graph, mine.median, theirs.median


def _scheme(precision: str) -> Scheme:
    try:
        return parse_scheme(precision)[0]
    except ConfigError:  # of a file that somebody else wrote
        return Scheme(Precision.FP32)


def _where(half: Half) -> str:
    """Which half is slow, where both were timed."""
    if half.seconds is None or half.twin_seconds is None:
        return ""
    times = f"{milliseconds(half.seconds)} ms, against {milliseconds(half.twin_seconds)} ms in fp32"
    if half.seconds <= SAME_SPEED * half.twin_seconds:
        return f"Neither half is slower by itself: a run of the {half.graph} takes {times}."
    return f"It is the {half.graph} that is slower: {times}."


def _unknown(half: Half) -> str:
    top = enumerate_names([f"{name_text(name)} {percent(share)}" for name, share in half.profile.top], limit=5)
    most = f"operators that take most of the {half.graph}: {top}." if top else _no_profile(half)
    return f"The cause is not known; {most}"


def _no_profile(half: Half) -> str:
    reason = escape(half.profile.reason) or "none was recorded"
    return f"there is no profile to tell ({reason})."
