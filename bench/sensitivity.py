"""Does the harness tell the truth? One artifact against itself must not differ, and against itself slowed down it must.

Each comparison is a measurement of its own: two or more alternatives, interleaved over rounds, a process each.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.building import build_suite, dataset_reference
from bench.disturbance import is_disturbed
from bench.job import Job
from bench.launcher import Launcher
from bench.measurement import Difference, Phase
from bench.setting import RunPlan
from bench.statistics import median_over_rounds, paired_difference
from bench.suite import load_suite
from bench.timed import Timed
from bench.timing import TIMING_VERSION, Timer, representative_images, timing_job
from convert.store import Store
from models.datasets import Split
from models.errors import CaptionbenchError, ConfigError, unknown_name
from models.files import content_key, write_text_atomic
from models.progress import say

# A difference this small is not called one, however sure it is (criterion.rs's noise threshold).
NOISE_THRESHOLD = 0.01
# Slowdown -> share of comparisons that must find it; and the share of A/A comparisons that may find one.
REQUIRED: Mapping[float, float] = {0.05: 15 / 20, 0.10: 19 / 20}
ALLOWED = 2 / 40
# Only whole captions are timed, so that a process needs less time than in a suite.
PLAN = RunPlan(threads=1, rounds=12, minimum_samples=64, minimum_seconds=5.5)
PILOT_ROUNDS = 3


class SensitivityError(CaptionbenchError):
    """A measurement of the check itself failed."""


@dataclass(frozen=True, slots=True)
class Check:
    """One slowdown (0: none) over all its comparisons."""

    slowdown: float
    comparisons: tuple[Difference, ...]
    disturbed: int  # comparisons while something else kept the machine busy

    @property
    def flagged(self) -> int:
        """How many comparisons call the alternative slower (or, without a slowdown, different)."""
        return sum(is_flagged(found, slower=self.slowdown > 0) for found in self.comparisons)

    @property
    def holds(self) -> bool:
        """Whether as many were flagged as must be."""
        share = self.flagged / len(self.comparisons)
        return share >= REQUIRED.get(self.slowdown, 0.0) if self.slowdown else share <= ALLOWED


def is_flagged(found: Difference, *, slower: bool) -> bool:
    """Whether the interval leaves 0 out and the difference is worth a word."""
    apart = found.ci99[0] > 0 or (found.ci99[1] < 0 and not slower)
    return apart and abs(found.relative) >= NOISE_THRESHOLD


def check_suite_row(
    store: Store,
    launcher: Launcher,
    suite_name: str,
    data: Path | None,
    row: str,
    *,
    comparisons: int,
    slowed: int,
    out: Path,
) -> tuple[Check, ...]:
    """`check_sensitivity` of one row of a suite, whose artifact is built where it is missing. Raises ConfigError."""
    suite = load_suite(suite_name)
    cells = {cell.name: cell for cell in suite.cells}
    if row not in cells:
        raise unknown_name(f"row of suite '{suite.name}'", row, cells)
    reference = dataset_reference(suite, data)
    dataset = reference.open()
    artifact = build_suite(replace(suite, cells=(cells[row],)), store, dataset).artifacts[cells[row].recipe]
    if isinstance(artifact, CaptionbenchError):
        raise artifact
    images = representative_images({image.id: 0 for image in dataset.images(Split.TEST)}, PLAN.seed)
    job = Job(str(artifact.path), cells[row].runtime, PLAN.threads, reference, images)
    return check_sensitivity(store, launcher, job, comparisons=comparisons, slowed=slowed, out=out)


def check_sensitivity(
    store: Store, launcher: Launcher, job: Job, *, comparisons: int, slowed: int, out: Path
) -> tuple[Check, ...]:
    """Run `comparisons` A/A comparisons, the first `slowed` of them with slowed alternatives beside; write `out`.

    Finished rounds are kept until all are there, so that a stopped check goes on. Raises SensitivityError.
    """
    if not 0 <= slowed <= comparisons or not comparisons:
        raise ConfigError(f"--slowed must be 0 to --comparisons; received {slowed} of {comparisons}.")
    key = content_key(TIMING_VERSION, PLAN, job.artifact, job.runtime, job.images)
    timed_job = replace(timing_job(job, PLAN), phases=(Phase.CAPTION,))
    pilot = Timer(store, launcher, replace(PLAN, rounds=PILOT_ROUNDS), f"{key}-pilot")
    natural, _ = median_over_rounds(_succeeded(pilot.time({"pilot": timed_job}))["pilot"].seconds[Phase.CAPTION])
    timers = [Timer(store, launcher, PLAN, f"{key}-{i}", pilot.references) for i in range(comparisons)]
    found: dict[float, list[tuple[Difference, bool]]] = {0.0: [], **{share: [] for share in REQUIRED if slowed}}
    for index, timer in enumerate(timers):
        shares = found if index < slowed else (0.0,)
        say(f"comparison {index + 1} of {comparisons}")
        jobs = {"itself": timed_job} | {
            f"slower by {share:.0%}": replace(timed_job, delay_seconds=share * natural) for share in shares
        }
        timed = _succeeded(timer.time(jobs))
        for share in shares:
            other = timed[f"slower by {share:.0%}"]
            found[share].append((_difference(other, timed["itself"]), is_disturbed(other.disturbance)))
    checks = tuple(
        Check(share, tuple(difference for difference, _ in pairs), sum(disturbed for _, disturbed in pairs))
        for share, pairs in found.items()
    )
    write_text_atomic(out, json.dumps([asdict(check) for check in checks], indent=1) + "\n")
    for timer in (pilot, *timers):
        timer.forget()
    return checks


def _difference(other: Timed, itself: Timed) -> Difference:
    difference = paired_difference(other.seconds[Phase.CAPTION], itself.seconds[Phase.CAPTION])
    if difference is None:
        raise SensitivityError(
            "too few rounds at full speed to compare: the machine was slowed nearly all the time. "
            "Run the same command again when it is quieter; finished rounds are kept."
        )
    return difference


def _succeeded(timed: Mapping[str, Timed | str]) -> dict[str, Timed]:
    """All rows' findings. Raises SensitivityError when one failed."""
    failed = [found for found in timed.values() if isinstance(found, str)]
    if failed:
        raise SensitivityError(f"timing failed: {failed[0]}")
    return {name: found for name, found in timed.items() if not isinstance(found, str)}
