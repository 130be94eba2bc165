"""What else ran while something was timed: by counters without a clock, and once by a process that really ran."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.disturbance import (
    OTHER_CORES,
    STOLEN_CORES,
    THROTTLED,
    Counters,
    Watch,
    disturbance_between,
    is_disturbed,
    merge,
    read_counters,
    why_disturbed,
)
from bench.measurement import Disturbance

START = Counters(clock=100.0, busy=5000.0, own=40.0, stolen=7.0, throttled=2.0)
CALM = Disturbance(0.0, 0.0, 0.0)


def after(seconds: float = 10.0, *, busy: float = 0.0, own: float = 0.0, **others: float) -> Counters:
    """The counters so many seconds later, each grown by so much."""
    grown = {"clock": seconds, "busy": busy, "own": own, **others}
    return replace(START, **{name: getattr(START, name) + value for name, value in grown.items()})


def test_own_work_is_no_disturbance() -> None:
    assert disturbance_between(START, after(busy=20.0, own=20.0)) == CALM


def test_hog_is_what_others_used_of_the_cores() -> None:
    found = disturbance_between(START, after(busy=20.0, own=11.0))
    assert found == replace(CALM, other_cores=0.9)
    assert is_disturbed(found)
    assert why_disturbed(found) == "other processes kept 0.9 cores busy"


def test_counters_that_tick_apart_never_give_less_than_nothing() -> None:
    assert disturbance_between(START, after(busy=9.96, own=10.0)) == CALM


def test_stolen_and_throttled_time_are_found() -> None:
    found = disturbance_between(START, after(stolen=3.0, throttled=1.2))
    assert found == Disturbance(0.0, stolen_cores=0.3, throttled=0.12)
    assert why_disturbed(found) == (
        "the hypervisor gave 0.3 cores to others and the container's quota held processes back for 12 % of the time"
    )


def test_throttled_share_is_at_most_all_of_the_time() -> None:
    assert disturbance_between(START, after(throttled=17.0)).throttled == 1.0


def test_no_time_is_no_disturbance() -> None:
    assert disturbance_between(START, after(0.0, busy=1.0)) == CALM


def test_what_an_idle_system_does_is_no_disturbance() -> None:
    assert not is_disturbed(Disturbance(OTHER_CORES, STOLEN_CORES, THROTTLED))
    assert why_disturbed(Disturbance(0.04, 0.01, 0.0)) == ""


def test_slow_state_of_a_shared_core_is_judged_elsewhere() -> None:
    assert not is_disturbed(replace(CALM, slowed=0.9))


def test_merged_disturbance_weighs_by_time() -> None:
    hog, slowed = Disturbance(1.0, 0.2, 0.4), Disturbance(0.0, 0.0, 0.0, slowed=0.5)
    assert merge([hog, slowed], [1.0, 3.0]) == Disturbance(0.25, 0.05, 0.1, slowed=0.375)


def test_merging_nothing_is_no_disturbance() -> None:
    assert merge([], []) == CALM


_SHARES = st.floats(0.0, 2.0)
_PIECES = st.lists(
    st.tuples(st.builds(Disturbance, _SHARES, _SHARES, _SHARES, _SHARES), st.floats(0.1, 100.0)), min_size=1
)


@given(_PIECES)
def test_merged_disturbance_lies_between_its_parts(pieces: list[tuple[Disturbance, float]]) -> None:
    merged = merge([disturbance for disturbance, _ in pieces], [seconds for _, seconds in pieces])
    for name in ("other_cores", "stolen_cores", "throttled", "slowed"):
        values = [getattr(disturbance, name) for disturbance, _ in pieces]
        assert min(values) - 1e-4 <= getattr(merged, name) <= max(values) + 1e-4


def test_counters_only_grow() -> None:
    first, second = read_counters(), read_counters()
    for name in ("clock", "busy", "own", "stolen", "throttled"):
        assert 0 <= getattr(first, name) <= getattr(second, name)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a child that is handed over to another parent")
def test_busy_process_that_is_not_ours_is_seen(tmp_path: Path) -> None:
    # Its parent, a shell, ends at once: what it uses never joins the times of this process's children. It works for
    # so much CPU time, however long a busy machine takes for that; whatever else runs can only add to what is seen.
    work = "import time, pathlib, sys\nwhile time.process_time() < 0.5: pass\npathlib.Path(sys.argv[1]).touch()"
    done = tmp_path / "done"
    wait = "import time, pathlib, sys\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)"
    with Watch() as watch:
        subprocess.run(["sh", "-c", '"$@" & exit 0', "sh", sys.executable, "-c", work, str(done)], check=True)
        subprocess.run([sys.executable, "-c", wait, str(done)], check=True, timeout=60)
    assert watch.seconds > 0
    assert watch.disturbance.other_cores * watch.seconds > 0.25
