"""Reads what the harness wrote: raw seconds by phase and round, without what a slowed machine took."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.canary import best_of, is_clean
from bench.disturbance import merge
from bench.latency import SHARES
from bench.measurement import Disturbance, Phase
from bench.statistics import Rounds

# Raw samples of whole captions that a row keeps in all its rounds, and of another phase: results.json stays small.
MAXIMUM_SAMPLES = 3600
MAXIMUM_PHASE_SAMPLES = 720
# Five digits: far below the clock's and the machine's noise.
_DIGITS = 5


@dataclass(frozen=True)
class Timed:
    """Raw seconds of one row: phase -> samples of each round in time order; a round may have none left."""

    seconds: Mapping[Phase, Rounds]
    total_seconds: float  # of timing in the steady phases
    differing: Sequence[str]  # images whose timed caption was not the quality run's
    disturbance: Disturbance
    harness_seconds: float  # what timing one caption costs

    def samples(self, phase: Phase) -> list[float]:
        """All samples of a phase in time order."""
        return [sample for part in self.seconds.get(phase, ()) for sample in part]


def read_timed(paths: Sequence[Path], reference: float) -> Timed:
    """One row's rounds. `reference`: the canary's best time; samples beside slower readings are left out."""
    tables = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    steady = [benchmark for table in tables for benchmark in table["benchmarks"]]
    phases = [phase for phase in Phase if any(_phase(benchmark) == phase for benchmark in steady)]
    rounds = {phase: [_round(table, phase, reference) for table in tables] for phase in phases}
    disturbance = merge([Disturbance(**table["disturbance"]) for table in tables], [t["seconds"] for t in tables])
    slowed = _share_left_out(rounds.get(Phase.CAPTION, []))
    return Timed(
        seconds={phase: _kept(phase, found) for phase, found in rounds.items()},
        total_seconds=sum(r.seconds for phase in SHARES for r in rounds.get(phase, ())),
        differing=sorted({image for benchmark in steady for image in benchmark["extra_info"].get("differing", ())}),
        disturbance=Disturbance(
            disturbance.other_cores, disturbance.stolen_cores, disturbance.throttled, round(slowed, 4)
        ),
        harness_seconds=min(_harness(benchmark) for benchmark in steady if _phase(benchmark) is None),
    )


def best_reading(paths: Iterable[Path], calibrated: float) -> float:
    """The canary's best time over the calibration and all rounds: a machine may have been slow during the first."""
    found = [calibrated]
    for path in paths:
        benchmarks = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
        found.append(best_of([reading for b in benchmarks for pair in b["extra_info"]["canary"] for reading in pair]))
    return min(found)


@dataclass(frozen=True, slots=True)
class _Round:
    """One phase in one process."""

    clean: tuple[float, ...]  # seconds of a call, at full speed
    every: tuple[float, ...]
    seconds: float  # that the clean samples took


def _round(table: Mapping[str, Any], phase: Phase, reference: float) -> _Round:
    benchmark = next((b for b in table["benchmarks"] if _phase(b) == phase), None)
    if benchmark is None:
        return _Round((), (), 0.0)
    calls, canary = benchmark["extra_info"]["calls"], benchmark["extra_info"]["canary"]
    data = [(float(f"{value / calls:.{_DIGITS}g}"), i) for i, value in enumerate(benchmark["stats"]["data"])]
    clean = tuple(value for value, i in data if is_clean(canary[i][0], canary[i][1], reference))
    return _Round(clean, tuple(value for value, _ in data), sum(clean) * calls)


def _kept(phase: Phase, rounds: Sequence[_Round]) -> list[tuple[float, ...]]:
    """The clean samples of each round; all samples where the machine was never at full speed."""
    maximum = MAXIMUM_SAMPLES if phase is Phase.CAPTION else MAXIMUM_PHASE_SAMPLES
    found = [r.clean for r in rounds] if any(r.clean for r in rounds) else [r.every for r in rounds]
    return [thinned(samples, max(1, maximum // len(rounds))) for samples in found]


def thinned(samples: tuple[float, ...], maximum: int) -> tuple[float, ...]:
    """Every k-th sample, at most `maximum`. An odd k meets all images of a cycle whose length is a power of two."""
    step = -(-len(samples) // maximum) or 1
    return samples[:: step + 1 - step % 2]


def _share_left_out(rounds: Sequence[_Round]) -> float:
    every = sum(len(r.every) for r in rounds)
    return 1 - sum(len(r.clean) for r in rounds) / every if every else 0.0


def _phase(benchmark: Mapping[str, Any]) -> Phase | None:
    name = benchmark["extra_info"]["phase"]
    return Phase(name) if name else None


def _harness(benchmark: Mapping[str, Any]) -> float:
    return float(min(benchmark["stats"]["data"]) / benchmark["extra_info"]["calls"])
