"""The check of the harness, on scripted processes: what is slowed is found, and a bar that is missed is said."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scripted import ScriptedLauncher, write_round

from bench.job import DatasetReference, Job
from bench.measurement import Difference
from bench.sensitivity import (
    NOISE_THRESHOLD,
    PILOT_ROUNDS,
    PLAN,
    REQUIRED,
    Check,
    SensitivityError,
    check_sensitivity,
    is_flagged,
)
from convert.store import Store
from models.errors import ConfigError
from reports.sensitivity_text import print_checks

NATURAL = 0.01  # seconds of a caption
JOB = Job("artifact", "fake", 1, DatasetReference("scenes", ""), ("a", "b"))


class NoisyLauncher(ScriptedLauncher):
    """Captions of NATURAL seconds and the job's delay; processes differ by `spread`."""

    def __init__(self, spread: float, stop_after: int = 10_000) -> None:
        super().__init__(stop_after=stop_after)
        object.__setattr__(self, "spread", spread)
        object.__setattr__(self, "generator", np.random.default_rng(2012))

    def time(self, runtime: str, job: Path, out: Path) -> None:
        super().time(runtime, job, out)
        delay = Job.read(job).delay_seconds
        noise = self.generator.normal(0.0, self.spread)  # type: ignore[attr-defined]
        write_round(out, [(NATURAL + delay) * float(np.exp(noise))] * 5, calls=1)


def test_slowdowns_are_found_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher, out = NoisyLauncher(0.02), tmp_path / "checks.json"
    checks = check_sensitivity(Store(tmp_path), launcher, JOB, comparisons=40, slowed=20, out=out)
    assert [(check.slowdown, len(check.comparisons)) for check in checks] == [(0.0, 40), (0.05, 20), (0.1, 20)]
    assert all(check.holds for check in checks)
    assert len(launcher.log) == PILOT_ROUNDS + PLAN.rounds * (2 * 40 + 2 * 20)  # type: ignore[attr-defined]
    assert [check["slowdown"] for check in json.loads(out.read_text())] == [0.0, 0.05, 0.1]
    print_checks(checks)
    assert len(re.findall("holds", capsys.readouterr().out)) == 3


def test_machine_that_is_too_noisy_misses_its_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = check_sensitivity(
        Store(tmp_path), NoisyLauncher(0.2), JOB, comparisons=6, slowed=6, out=tmp_path / "checks.json"
    )
    assert [check.holds for check in checks] == [True, False, False]  # it never lies about the artifact itself
    print_checks(checks)
    assert "MISSED" in capsys.readouterr().out


def test_stopped_check_goes_on(tmp_path: Path) -> None:
    store, out = Store(tmp_path), tmp_path / "checks.json"
    with pytest.raises(KeyboardInterrupt):
        check_sensitivity(store, NoisyLauncher(0.02, stop_after=30), JOB, comparisons=2, slowed=1, out=out)
    again = NoisyLauncher(0.02)
    check_sensitivity(store, again, JOB, comparisons=2, slowed=1, out=out)
    assert len(again.log) == PILOT_ROUNDS + PLAN.rounds * 6 - 30  # type: ignore[attr-defined]


def test_failing_row_and_wrong_counts_are_told(tmp_path: Path) -> None:
    out = tmp_path / "checks.json"
    with pytest.raises(SensitivityError, match="signal 11"):
        check_sensitivity(Store(tmp_path), ScriptedLauncher(failing="fake"), JOB, comparisons=1, slowed=0, out=out)
    with pytest.raises(ConfigError, match="received 3 of 2"):
        check_sensitivity(Store(tmp_path), ScriptedLauncher(), JOB, comparisons=2, slowed=3, out=out)


@pytest.mark.parametrize(
    ("relative", "ci99", "different", "slower"),
    [
        (0.05, (0.01, 0.09), True, True),
        (0.05, (-0.01, 0.11), False, False),
        (-0.05, (-0.09, -0.01), True, False),
        (NOISE_THRESHOLD / 2, (0.001, 0.009), False, False),
    ],
)
def test_flag_needs_an_interval_without_0_and_a_size(
    relative: float, ci99: tuple[float, float], different: bool, slower: bool
) -> None:
    found = Difference(relative, ci99)
    assert is_flagged(found, slower=False) is different
    assert is_flagged(found, slower=True) is slower


def test_bars_are_those_of_the_issue() -> None:
    same, slow = Difference(0.0, (-0.1, 0.1)), Difference(0.1, (0.05, 0.15))
    assert Check(0.0, (slow, slow) + (same,) * 38, 0).holds
    assert not Check(0.0, (slow,) * 3 + (same,) * 37, 0).holds
    assert Check(0.1, (slow,) * 19 + (same,), 0).holds
    assert not Check(0.1, (slow,) * 18 + (same,) * 2, 0).holds
    assert Check(0.05, (slow,) * 15 + (same,) * 5, 0).holds
    assert not Check(0.05, (slow,) * 14 + (same,) * 6, 0).holds
    assert set(REQUIRED) == {0.05, 0.10}
    assert dataclasses.asdict(Check(0.0, (), 0)) == {"slowdown": 0.0, "comparisons": (), "disturbed": 0}
