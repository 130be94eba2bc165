"""What the claims of the 2020 study are checked against, and the arithmetic on it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bench.result import Quality, Result, Results, row_name
from reports.report import Report, make_report
from reports.study.runs import DecoderTechnique, EncoderTechnique, StudyRun, find_run, remeasured

# What its abstract says: MB before and after, minutes before and after.
PRINTED_MEGABYTES = (578.4, 155.39)
PRINTED_MINUTES = (5.68, 1.63)
# Weights of its decoder and bytes of a float.
DECODER_PARAMETERS, FLOAT_BYTES = 5_527_963, 4
MIB = 2**20
# Two printed scores of six digits are one score when no digit differs.
SIX_DIGITS = 1e-6
# The runtime that the study shipped on, and the loop that it started from.
RUNTIME, KERAS_LOOP = "tflite", "keras_predict"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the study printed, what sentences score that look at no image, and our own runs where there are any.

    `results`: of the rows worth shipping, timed at length. `grid`: of all combinations, timed shortly.
    """

    runs: tuple[StudyRun, ...]
    sentences: Mapping[str, Quality]
    results: Results | None = None
    grid: Results | None = None

    @property
    def baseline(self) -> StudyRun:
        """VGG16 with its LSTM, uncompressed."""
        return find_run(self.runs, "vgg16", EncoderTechnique.DENSE, DecoderTechnique.DENSE)

    @property
    def best(self) -> StudyRun:
        """The combination that the study recommends."""
        return find_run(self.runs, "vgg16", EncoderTechnique.INT8, DecoderTechnique.QAT)

    def row(self, run: StudyRun, runtime: str = RUNTIME) -> Result | None:
        """Our row that stands for a run of the study, measured side by side with `keras_row`."""
        return remeasured(run, self.results.rows, runtime) if self.results else None

    @property
    def table(self) -> Results | None:
        """Our run with the most of the study's combinations."""
        return self.grid or self.results

    def combination(self, run: StudyRun) -> Result | None:
        """The same of that run: to be compared with each other."""
        return remeasured(run, self.table.rows, RUNTIME) if self.table else None

    @property
    def report(self) -> Report | None:
        """Our run as a report."""
        return make_report(self.results) if self.results else None

    @property
    def own_terms(self) -> Report | None:
        """The same of the study's captioner alone: another encoder is no compression."""
        if self.results is None or self.keras_row is None:
            return self.report
        same = tuple(row for row in self.results.rows if row.captioner == self.keras_row.captioner)
        return make_report(replace(self.results, rows=same))

    @property
    def keras_row(self) -> Result | None:
        """Our baseline: the study's loop over the uncompressed captioner."""
        rows = self.results.rows if self.results else ()
        return next((row for row in rows if self.results and row_name(row) == self.results.baseline), None)


def reduction(before: float, after: float) -> float:
    """The share that is gone."""
    return 1 - after / before


def is_bleu_of(run: StudyRun, quality: Quality) -> bool:
    """Whether a run printed this score, all four orders to six digits."""
    return all(abs(a - b) < SIX_DIGITS for a, b in zip(run.bleu, paper_bleu(quality), strict=True))


def paper_bleu(quality: Quality) -> tuple[float, float, float, float]:
    """BLEU-1 to BLEU-4 in the study's protocol."""
    return (quality.paper_bleu_1, quality.paper_bleu_2, quality.paper_bleu_3, quality.paper_bleu_4)


def is_possible(run: StudyRun) -> bool:
    """Whether cumulative BLEU does not rise with its order, as it can't where every order has a match.

    BLEU-4 may not exceed BLEU-2; BLEU-3 is left out, because the study's weights for it sum to 0.9.
    """
    return run.bleu[0] >= run.bleu[1] >= run.bleu[3] and len(set(run.bleu)) > 1


def pareto_bleu(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Runs by their BLEU-4, the best first, of those whose scores are possible."""
    return sorted(filter(is_possible, runs), key=lambda run: -run.bleu[3])


def same_scores(runs: Sequence[StudyRun]) -> list[tuple[StudyRun, StudyRun]]:
    """Neighbours, in the order of their scores, that print all four scores alike."""
    ordered = sorted(runs, key=lambda run: run.bleu)
    return [(a, b) for a, b in pairwise(ordered) if a.bleu == b.bleu]
