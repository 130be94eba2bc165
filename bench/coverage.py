"""How much of a caption integer kernels compute: one image through the encoder, one word at a time through the step."""

from collections.abc import Iterable, Mapping

from bench.measurement import GraphProfile, Latency, Phase
from bench.result import Coverage
from convert.artifact import ENCODER, Artifact
from convert.coverage import GraphCoverage
from convert.ledger_parts import INTEGER, Arithmetic
from convert.recipe import Graph


def caption_coverage(artifact: Artifact, words: float) -> Coverage:
    """The coverage of an artifact whose captions have `words` words on average, END not counted."""
    graphs = artifact.coverage
    if not graphs:
        return Coverage(weights_int8=artifact.weights_int8)
    risks = artifact.saturation.values()
    steps = words + 1  # END is computed as every other word is
    return Coverage(
        weights_int8=_share([(g.weights, 1.0) for g in graphs.values()], {Arithmetic.INT8}),
        macs_int8=_integer_macs(graphs, steps),
        weights_int4=_share([(g.weights, 1.0) for g in graphs.values()], {Arithmetic.INT4}),
        leftover_pairs=sum(g.leftover_pairs for g in graphs.values()),
        lstm=next((g.lstm for name, g in graphs.items() if name != ENCODER), ""),
        overflow_possible=sum(risk.possible for risk in risks) if risks else None,
        overflow_observed=sum(risk.observed for risk in risks) if risks else None,
        floats=_floats(graphs),
    )


def time_int8(
    profiles: Mapping[str, GraphProfile], latency_seconds: Mapping[Phase, Latency], words: float
) -> float | None:
    """The share of a caption's time that is spent in integer kernels, as far as it is spent in operators.

    One encoder's run and one step a word and for END, each taken as long as its median; of a fused graph its profile
    alone. None where a graph has no profile or no time.
    """
    if Graph.FUSED in profiles:
        return integer_time(profiles[Graph.FUSED])
    shares = {name: integer_time(profile) for name, profile in profiles.items()}
    seconds = {name: _seconds_a_caption(name, latency_seconds, words) for name in profiles}
    total = sum(spent or 0.0 for spent in seconds.values())
    if not total or None in seconds.values() or None in shares.values():
        return None
    return sum((shares[name] or 0.0) * (seconds[name] or 0.0) for name in profiles) / total


def integer_time(profile: GraphProfile) -> float | None:
    """The share of a graph's time in integer kernels; None without a profile."""
    if not profile.shares:
        return None
    return min(1.0, sum((share for kind, share in profile.shares.items() if kind in INTEGER), 0.0))


def _seconds_a_caption(graph: str, latency_seconds: Mapping[Phase, Latency], words: float) -> float | None:
    found = latency_seconds.get(Phase.ENCODE if graph == ENCODER else Phase.STEP)
    return found.median * (1.0 if graph == ENCODER else words + 1) if found else None


def _integer_macs(graphs: Mapping[str, GraphCoverage], steps: float) -> float | None:
    """The share of a whole caption; None for a fused graph of two arithmetics, whose halves are counted as one."""
    if Graph.FUSED in graphs and len(graphs[Graph.FUSED].multiply_adds) > 1:
        return None
    amounts = [(graph.multiply_adds, 1.0 if name == ENCODER else steps) for name, graph in graphs.items()]
    return _share(amounts, INTEGER)


def _share(amounts: Iterable[tuple[Mapping[str, int], float]], chosen: Iterable[Arithmetic]) -> float | None:
    """The share of `chosen` in amounts that are each taken so many times."""
    taken = [(kind, amount * times) for counted, times in amounts for kind, amount in counted.items()]
    total = sum(amount for _, amount in taken)
    return sum(amount for kind, amount in taken if kind in set(chosen)) / total if total else None


def _floats(graphs: Mapping[str, GraphCoverage]) -> dict[str, str]:
    return {f"{name}: {part}": reason for name, graph in graphs.items() for part, reason in graph.floats.items()}


def stored_weight_bytes(artifact: Artifact) -> int | None:
    """Bytes of kernels and tables alone; None for a format that has no ledger."""
    if not artifact.coverage:
        return None
    return sum(sum(graph.weight_bytes.values()) for graph in artifact.coverage.values())
