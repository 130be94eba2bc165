"""The hard gate: what changed of a row's status, captions, bytes, integer share, hash and quality.

None of these depends on how busy a machine was, so one pair of runs is enough to judge them.
"""

from collections.abc import Iterator

from bench.change import Change, Metric, Verdict
from bench.result import Coverage, Result, Status, row_name
from bench.score_changes import changed_captions, score_changes

MISSING = "missing"  # the status of a row that a run does not have
WORKING = frozenset({Status.VALID, Status.QUICK, Status.INVALID})

# Zipped bytes depend on the values of the weights, which training moves; total bytes do not.
ZIPPED_TOLERANCE = 0.01
# The share of multiply-adds weighs the step by the mean length of captions, which changes with a few captions.
MACS_TOLERANCE = 0.005
# How a row's reason begins (bench.verdict) when its captions are at fault and not the machine.
_WRONG_OUTPUTS = ("the timed captions", "a repeated image")


def status_changes(name: str, before: Result | None, after: Result | None) -> Iterator[Change]:
    """A row that appeared, vanished, broke or works again.

    Whether its timing is valid, quick or invalid is no change: that is about the machine, and only says whether times
    can be compared. Unless the timed captions were wrong, or cached.
    """
    verdict = _status_verdict(before, after)
    if verdict:
        statuses = before.status if before else MISSING, after.status if after else MISSING
        yield Change(name, Metric.STATUS, verdict, *statuses, detail=after.reason if after else "")


def _status_verdict(before: Result | None, after: Result | None) -> Verdict | None:
    if before is None:
        return Verdict.CHANGED
    if after is None:
        return Verdict.WORSE
    for is_so in (_is_broken, _has_wrong_outputs):
        if is_so(before) != is_so(after):
            return Verdict.WORSE if is_so(after) else Verdict.BETTER
    return Verdict.CHANGED if _is_broken(after) and before.status != after.status else None


def _is_broken(row: Result) -> bool:
    return row.status not in WORKING


def _has_wrong_outputs(row: Result) -> bool:
    return row.status is Status.INVALID and row.reason.startswith(_WRONG_OUTPUTS)


def row_changes(before: Result, after: Result) -> list[Change]:
    """All but status and times, of a row that both runs have."""
    broke = _is_broken(after) and not _is_broken(before)
    quality = list(score_changes(before, after))
    found = [
        *_caption_changes(before, after, better=any(change.verdict is Verdict.BETTER for change in quality)),
        *_size_changes(before, after),
        *_coverage_changes(row_name(after), before.coverage, after.coverage),
        *_hash_changes(before, after),
        *quality,
    ]
    # What a broken row no longer has is said by its status.
    return [change for change in found if not (broke and change.after is None)]


def _caption_changes(before: Result, after: Result, *, better: bool) -> Iterator[Change]:
    """Another caption fails the gate unless the row's captions are significantly better."""
    name, images = row_name(after), len(before.captions)
    if images and not after.captions:
        yield Change(name, Metric.CAPTIONS, Verdict.WORSE, images, None)
    changed = changed_captions(before, after)
    if not changed or not after.captions:
        return
    same_file = before.sha256 == after.sha256 and before.sha256
    example = f"{changed[0]}: “{before.captions[changed[0]]}” became “{after.captions[changed[0]]}”"
    cause = "; the artifact is the same file, so the runtime or the machine says something else" if same_file else ""
    yield Change(
        name,
        Metric.CAPTIONS,
        Verdict.CHANGED if better else Verdict.WORSE,
        images,
        images - len(changed),
        -float(len(changed)),
        detail=example + cause,
    )


def _size_changes(before: Result, after: Result) -> Iterator[Change]:
    name, old, new = row_name(after), before.size_bytes, after.size_bytes
    if old is None:
        return
    if new is None:
        yield Change(name, Metric.SIZE, Verdict.WORSE, old.total, None)
        return
    if old.total != new.total:
        yield _size_change(name, Metric.SIZE, old.total, new.total)
    elif abs(new.deflated - old.deflated) > ZIPPED_TOLERANCE * old.deflated:
        yield _size_change(name, Metric.ZIPPED, old.deflated, new.deflated)


def _size_change(name: str, metric: Metric, before: int, after: int) -> Change:
    verdict = Verdict.WORSE if after > before else Verdict.BETTER
    return Change(name, metric, verdict, before, after, after / before - 1 if before else None)


def _coverage_changes(name: str, old: Coverage, new: Coverage) -> Iterator[Change]:
    """Less computed in integers, or more that could go wrong there."""
    more_float = sorted(set(new.floats) - set(old.floats))
    detail = f"now in floating point: {'; '.join(f'{part} ({new.floats[part]})' for part in more_float)}"
    shares = (
        (Metric.INTEGER_WEIGHTS, _integer_weights(old), _integer_weights(new), 1e-9),
        (Metric.INTEGER_MACS, old.macs_int8, new.macs_int8, MACS_TOLERANCE),
    )
    for metric, before, after, tolerance in shares:
        yield from _measure(name, metric, before, after, tolerance, good=1, detail=detail if more_float else "")
    counts = (
        (Metric.LEFTOVER_PAIRS, old.leftover_pairs, new.leftover_pairs),
        (Metric.OVERFLOWS, old.overflow_possible, new.overflow_possible),
    )
    for metric, before, after in counts:
        yield from _measure(name, metric, before, after, 0.0, good=-1)
    if old.lstm and old.lstm != new.lstm:
        yield Change(name, Metric.LSTM, Verdict.CHANGED, old.lstm, new.lstm)


def _integer_weights(coverage: Coverage) -> float | None:
    if coverage.weights_int8 is None:
        return None
    return coverage.weights_int8 + (coverage.weights_int4 or 0.0)


def _measure(
    name: str,
    metric: Metric,
    before: float | None,
    after: float | None,
    tolerance: float,
    *,
    good: int,
    detail: str = "",
) -> Iterator[Change]:
    """A change of more than `tolerance`, better in the direction `good`; what is no longer known is worse."""
    if before is None:
        return
    if after is None:
        yield Change(name, metric, Verdict.WORSE, before, None, detail="it is not known any more")
    elif abs(after - before) > tolerance:
        better = (after - before) * good > 0
        yield Change(
            name,
            metric,
            Verdict.BETTER if better else Verdict.WORSE,
            before,
            after,
            after - before,
            detail="" if better else detail,
        )


def _hash_changes(before: Result, after: Result) -> Iterator[Change]:
    """Other bytes alone are no harm: what they do is judged by the other metrics."""
    if before.sha256 and before.sha256 != after.sha256:
        yield Change(row_name(after), Metric.SHA256, Verdict.CHANGED, before.sha256, after.sha256 or None)
