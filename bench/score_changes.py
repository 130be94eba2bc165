"""What changed of a row's CIDEr and BLEU-4, and how sure that is without the references."""

import math
from collections.abc import Iterator

from bench.change import Change, Metric, Verdict
from bench.result import Quality, Result, row_name

Score = tuple[float, tuple[float, float]]  # with its 95 % interval
_ALWAYS_DIFFERENT = 1.0


def score_changes(before: Result, after: Result) -> Iterator[Change]:
    """Of greedy and of beam search, each only where it is significant."""
    name = row_name(after)
    share = _changed_share(before, after)
    yield from _scores(name, (Metric.CIDER, Metric.BLEU_4), before.quality, after.quality, share)
    beam = before.quality_beam3, after.quality_beam3  # whose captions are not kept
    yield from _scores(name, (Metric.CIDER_BEAM3, Metric.BLEU_4_BEAM3), *beam, _ALWAYS_DIFFERENT)


def _changed_share(before: Result, after: Result) -> float:
    """The share of the images whose caption changed; 1 where not all captions were kept."""
    images = before.quality.images if before.quality else 0
    if not images or not len(before.captions) == len(after.captions) == images:
        return _ALWAYS_DIFFERENT
    return len(changed_captions(before, after)) / images


def _scores(
    name: str, metrics: tuple[Metric, Metric], old: Quality | None, new: Quality | None, share: float
) -> Iterator[Change]:
    """CIDEr and BLEU-4, where the interval of their difference leaves out 0; the same captions are worth the same."""
    if old is None or not share:
        return
    if new is None:
        yield Change(name, metrics[0], Verdict.WORSE, old.cider, None)
        return
    pairs = (
        (metrics[0], (old.cider, old.cider_ci95), (new.cider, new.cider_ci95)),
        (metrics[1], (old.bleu_4, old.bleu_4_ci95), (new.bleu_4, new.bleu_4_ci95)),
    )
    for metric, before, after in pairs:
        difference, interval = difference_ci95(before, after, share)
        if difference and not interval[0] <= 0 <= interval[1]:
            verdict = Verdict.BETTER if difference > 0 else Verdict.WORSE
            yield Change(name, metric, verdict, before[0], after[0], difference, interval)


def difference_ci95(before: Score, after: Score, share: float) -> tuple[float, tuple[float, float]]:
    """After minus before of two scores with their 95 % intervals, and an approximate 95 % interval of that.

    Half the width of an interval is 1.96 standard errors, and those of independent estimates add up in squares. The
    same images were captioned twice, so the estimates are not independent: an image whose caption is the same adds
    nothing to the difference. Only the `share` of changed captions does, and their two scores are taken as
    independent, as if nothing connected a caption with the one it replaced.

    A file of results has no references, so no bootstrap over images can be made from it. Beside the paired bootstraps
    of 131 rows of five suites this interval was 0.93 to 7 times as wide, 1.5 times in the median: it called none
    significant that the bootstrap did not, and missed 18 of 92.
    """
    difference = after[0] - before[0]
    half = math.sqrt(share) * math.hypot(*((high - low) / 2 for _, (low, high) in (before, after)))
    return difference, (difference - half, difference + half)


def changed_captions(before: Result, after: Result) -> list[str]:
    """Images of which both runs have a caption, and not the same one."""
    return sorted(image for image, text in before.captions.items() if after.captions.get(image, text) != text)
