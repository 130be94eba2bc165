"""Times artifacts in interleaved rounds, one process a row and round; finished rounds are kept until all are there."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.disturbance import is_disturbed
from bench.job import Job
from bench.launcher import Launcher, WorkerError
from bench.measurement import Disturbance
from bench.setting import RunPlan
from bench.timed import Timed, best_reading, read_timed
from convert.store import Store
from models.files import content_key, write_text_atomic
from models.progress import say, track

# Raised when a change makes the same artifact be timed in another way.
TIMING_VERSION = 3
# How long to time is planned from the fastest warm-up call, and samples are left out: more makes sure that enough stay.
MARGIN = 1.6
TIMED_IMAGES = 16
_SPENT = "spent.seconds"


@dataclass(frozen=True)
class Timer:
    """Times rows under one plan. `key` tells this measurement from others in the store."""

    store: Store
    launcher: Launcher
    plan: RunPlan
    key: str
    references: dict[str, float] = field(default_factory=dict)  # interpreter -> the canary's best time

    def time(self, jobs: Mapping[str, Job]) -> dict[str, Timed | str]:
        """Raw seconds by row name, or why a row failed. Only one measurement runs at a time on a store."""
        failures: dict[str, str] = {}
        with self.store.lock("timing", "a benchmark (two at once would time each other)"):
            self._calibrate({job.runtime for job in jobs.values()})
            self._time_rounds(jobs, failures)
        done = {name: self._paths(name) for name in jobs if name not in failures}
        for name, paths in done.items():
            python = self._interpreter(jobs[name].runtime)
            self.references[python] = best_reading(paths, self.references[python])
        timed = {
            name: read_timed(paths, self.references[self._interpreter(jobs[name].runtime)])
            for name, paths in done.items()
        }
        return timed | failures

    def forget(self) -> None:
        """Remove the finished rounds of a complete measurement, so that the next run measures anew."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def spent_seconds(self) -> float:
        """What the finished rounds took, calm or not, by whichever process; 0 before the first and once forgotten."""
        path = self._folder / _SPENT
        return float(path.read_text(encoding="ascii")) if path.is_file() else 0.0

    @property
    def _folder(self) -> Path:
        return self.store.work("timing", self.key)

    def _paths(self, name: str) -> list[Path]:
        return [self._path(round_, name) for round_ in range(self.plan.rounds)]

    def _path(self, round_: int, name: str) -> Path:
        return self._folder / f"{round_}-{content_key(name)}.json"

    def _interpreter(self, runtime: str) -> str:
        """Environments made of one Python share its loop, and so its best time."""
        return str(self.launcher.python(runtime).resolve())

    def _calibrate(self, runtimes: set[str]) -> None:
        for runtime in sorted(runtimes):
            python = self._interpreter(runtime)
            if python not in self.references:
                self.references[python] = self.launcher.calibrate(runtime, self.plan.threads)

    def _time_rounds(self, jobs: Mapping[str, Job], failures: dict[str, str]) -> None:
        """Time each row once a round, in rotating order; a row that fails joins `failures` and is left out."""
        self._folder.mkdir(parents=True, exist_ok=True)
        again = len(jobs)  # a machine that is always busy must not double the time
        for round_, name in track(schedule(list(jobs), self.plan.rounds), "timing"):
            out = self._path(round_, name)
            if out.is_file() or name in failures:
                continue
            started = time.monotonic()
            try:
                again -= self._time_once(jobs[name], out, again=again > 0)
            except WorkerError as error:
                failures[name] = str(error)
                say(f"{name}: {error}")
            spent = self.spent_seconds + time.monotonic() - started
            write_text_atomic(self._folder / _SPENT, f"{spent:.6f}\n")

    def _time_once(self, job: Job, out: Path, *, again: bool) -> int:
        """One row in one round; once more when something else ran, if `again`. Returns how often it was repeated."""
        reference = self.references[self._interpreter(job.runtime)]
        job_file = replace(job, canary=reference).write(out.with_suffix(".job"))
        first = out.with_suffix(".first")
        self.launcher.time(job.runtime, job_file, first)
        if not again or not is_disturbed(_disturbance(first)):
            first.replace(out)
            return 0
        second = out.with_suffix(".second")
        self.launcher.time(job.runtime, job_file, second)
        calmer = min((first, second), key=lambda path: _cores(_disturbance(path)))
        calmer.replace(out)
        return 1


def schedule(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """(round, row) with the rows rotated from round to round: A B C, B C A, ..."""
    return [(round_, names[(index + round_) % len(names)]) for round_ in range(rounds) for index in range(len(names))]


def timing_job(job: Job, plan: RunPlan) -> Job:
    """`job` with the plan's share of one process."""
    return replace(
        job,
        seconds=plan.minimum_seconds / plan.rounds * MARGIN,
        samples=-(-plan.minimum_samples // plan.rounds),
        warmup=plan.warmup,
        cpus=plan.cpus,
    )


def representative_images(lengths: Mapping[str, int], seed: int) -> tuple[str, ...]:
    """Images to time: evenly spaced in the length of their captions (`lengths`: image -> words), in random order.

    A caption's time is mostly its length. Few images make every half of every round hold all of them, so that
    halves and rows differ by speed and not by which captions they happened to get.
    """
    by_length = sorted(lengths, key=lambda image: (lengths[image], image))
    count = min(TIMED_IMAGES, len(by_length))
    chosen = [by_length[(2 * rank + 1) * len(by_length) // (2 * count)] for rank in range(count)]
    return tuple(chosen[i] for i in np.random.default_rng(seed).permutation(count))


def _disturbance(path: Path) -> Disturbance:
    return Disturbance(**json.loads(path.read_text(encoding="utf-8"))["disturbance"])


def _cores(disturbance: Disturbance) -> float:
    return disturbance.other_cores + disturbance.stolen_cores + disturbance.throttled
