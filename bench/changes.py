"""Two runs of a suite side by side: what changed significantly, and whether that may pass."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.change import Change, Changes, Metric, Run
from bench.result import Result, Results, row_name
from bench.row_changes import row_changes, status_changes
from bench.time_changes import (
    Timing,
    compare_times,
    incomparable_rows,
    incomparable_runs,
    noise,
    time_changes,
    unconfirmed,
)
from models.errors import ConfigError

_IMAGES = "images"  # the hash that says which pictures were captioned
_SHOWN = 3  # rows in a note

Times = Mapping[str, Mapping[Metric, Timing]]  # by row


def find_changes(before: Results, after: Results, confirm: Results | None = None) -> Changes:
    """What changed significantly from one run to the next. `confirm` is a second fresh run of what `after` measured.

    Raises ConfigError, naming the field, for runs that differ in what they measure: suite, data set, test images,
    scoring.
    """
    _require_same_measure(before, after, "after")
    if confirm:
        _require_same_measure(before, confirm, "in the confirming run")
        _require_fresh(after, confirm)
    old, new = _by_name(before), _by_name(after)
    times, notes = _times(before, after, "time not compared", lambda _: True)
    confirming: Times = {}
    if confirm:
        confirming, more = _times(before, confirm, "time not confirmed", lambda name: bool(times.get(name)))
        notes += more + list(_cleared(times, confirming))
    changes: list[Change] = []
    for name in [*old, *(name for name in new if name not in old)]:
        changes += status_changes(name, old.get(name), new.get(name))
        if name in old and name in new:
            changes += row_changes(old[name], new[name])
            changes += time_changes(old[name], times.get(name, {}), confirming.get(name, {}))
    return Changes(
        before=Run.of(before),
        after=Run.of(after),
        confirm=Run.of(confirm) if confirm else None,
        rows=len(old.keys() & new.keys()),
        changes=tuple(changes),
        notes=(*_head_notes(before, after), *notes),
    )


def _by_name(results: Results) -> dict[str, Result]:
    return {row_name(row): row for row in results.rows}


def _require_same_measure(before: Results, after: Results, which: str) -> None:
    """Raises ConfigError: what was measured differs, so that no difference would say anything."""
    for field, old, new in _measures(before, after):
        if old != new:
            raise ConfigError(
                f"these runs can't be compared: {field} is {old} before and {new} {which}. Give two runs of one suite "
                "on the same data and images."
            )


def _measures(before: Results, after: Results) -> Iterator[tuple[str, object, object]]:
    """What must be equal: field, its value before and after."""
    for field in ("suite", "dataset", "test_images"):
        yield field, repr(getattr(before, field)), repr(getattr(after, field))
    hashes = before.hashes.get(_IMAGES), after.hashes.get(_IMAGES)
    if all(hashes):
        yield f"hashes.{_IMAGES}", *hashes
    rows = _by_name(after)
    for row in before.rows:
        other = rows.get(row_name(row))
        if other and row.quality and other.quality:
            yield f"quality.protocol of {row_name(row)}", row.quality.protocol, other.quality.protocol
        if other and row.captions and other.captions:
            yield f"captioned images of {row_name(row)}", _images(row, other), _images(other, row)


def _images(row: Result, other: Result) -> str:
    """How many images a row captions, and some that the other does not: equal texts mean equal images."""
    only = sorted(row.captions.keys() - other.captions.keys())
    return f"{len(row.captions)}" + (f" with {', '.join(only[:3])}" if only else "")


def _require_fresh(after: Results, confirm: Results) -> None:
    """Raises ConfigError unless `confirm` is another run of the same code."""
    if confirm == after or confirm.created == after.created:
        raise ConfigError(
            f"the confirming run is the second run itself (created {after.created}): run the suite once more."
        )
    code = [results.hashes.get("code") or results.commit for results in (after, confirm)]
    if code[0] != code[1]:
        raise ConfigError(
            f"the confirming run is of other code than the second run ({code[1]}, not {code[0]}): run that code again."
        )


def _times(before: Results, after: Results, what: str, wanted: Callable[[str], bool]) -> tuple[Times, list[str]]:
    """What lies between the times of all rows that can be compared, and why the others of the wanted ones can't be."""
    reason = incomparable_runs(before, after)
    if reason:
        return {}, [f"{what}: {reason}."]
    floor = max(noise(before) or 0.0, noise(after) or 0.0)
    times: dict[str, Mapping[Metric, Timing]] = {}
    left_out: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rows = _by_name(after)
    for row in before.rows:
        name = row_name(row)
        if name not in rows or not (row.latency_seconds and rows[name].latency_seconds):
            continue
        kind, reason = incomparable_rows(row, rows[name])
        times[name] = {} if kind else compare_times(row, rows[name], floor)
        if wanted(name) and not times[name]:
            left_out[kind or "too few rounds"].append((name, reason or "5 on each side are enough"))
    return times, [f"{what}: {kind}: {_some(listed)}." for kind, listed in left_out.items()]


def _some(rows: Sequence[tuple[str, str]]) -> str:
    """The first rows, each with its reason; the others are counted."""
    shown = "; ".join(f"{name} ({reason})" for name, reason in rows[:_SHOWN])
    return shown if len(rows) <= _SHOWN else f"{shown}; and {len(rows) - _SHOWN} more"


def _cleared(times: Times, confirming: Times) -> Iterator[str]:
    for name, timings in times.items():
        for metric, timing in unconfirmed(timings, confirming.get(name, {})):
            longer = f"{timing.difference.relative:.1%}"
            yield f"{metric} of {name} was {longer} longer in the second run, and is not in the confirming run."


def _head_notes(before: Results, after: Results) -> Iterator[str]:
    """Differences around the rows that explain others."""
    for name in sorted(before.hashes.keys() & after.hashes.keys()):
        if before.hashes[name] != after.hashes[name]:
            yield f"{name} changed: hash {before.hashes[name][:12]}, then {after.hashes[name][:12]}."
    packages = before.environment.packages, after.environment.packages
    differing = [
        name for name in sorted(packages[0].keys() & packages[1].keys()) if packages[0][name] != packages[1][name]
    ]
    if differing:
        shown = ", ".join(f"{name} {packages[0][name]} → {packages[1][name]}" for name in differing)
        yield f"packages changed: {shown}."
