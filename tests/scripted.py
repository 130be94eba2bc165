"""A launcher that starts nothing: it writes what the harness would, so that nothing in a test has a clock."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from bench.launcher import Launcher, WorkerError
from bench.measurement import Disturbance

CALM = Disturbance(other_cores=0.0, stolen_cores=0.0, throttled=0.0)


def write_round(
    path: Path,
    data: list[float],
    *,
    calls: int = 3,
    canary: list[tuple[float, float]] | None = None,
    disturbance: Disturbance = CALM,
) -> None:
    """What the harness and the launcher write: captions of so many seconds, and what the canary read beside them."""
    readings = canary or [(1.0, 1.0)] * len(data)
    caption = {
        "stats": {"data": data},
        "extra_info": {"phase": "caption", "calls": calls, "differing": [], "canary": readings},
    }
    idle = {"stats": {"data": [0.001]}, "extra_info": {"phase": None, "calls": 1000, "canary": [(1.0, 1.0)]}}
    table = {"benchmarks": [caption, idle], "seconds": 1.0, "disturbance": asdict(disturbance)}
    path.write_text(json.dumps(table))


class ScriptedLauncher(Launcher):
    """Starts nothing: writes what a worker would, and logs what was asked of it."""

    def __init__(self, *, failing: str = "", stop_after: int = 10_000, busy: int = 0) -> None:
        super().__init__()
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "failing", failing)
        object.__setattr__(self, "stop_after", stop_after)
        object.__setattr__(self, "busy", busy)  # so many first calls are disturbed

    def calibrate(self, runtime: str, threads: int) -> float:
        return 1.0

    def time(self, runtime: str, job: Path, out: Path) -> None:
        log: list[str] = self.log  # type: ignore[attr-defined]
        if len(log) >= self.stop_after:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        log.append(f"{runtime} {out.name[0]}")
        if runtime == self.failing:  # type: ignore[attr-defined]
            raise WorkerError("the process was ended by signal 11")
        busy = len(log) <= self.busy  # type: ignore[attr-defined]
        write_round(out, [0.003, 0.006], disturbance=replace(CALM, other_cores=1.0 if busy else 0.0))
