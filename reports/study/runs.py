"""The 34 evaluations that the 2020 study's notebooks print (arXiv 2012.09708; github.com/amanmohanty/idl-nncompress).

`study_2012_09708.csv` restates them digit for digit: BLEU in the study's protocol, minutes that the decoder took for
the 1000 test images, and where printed the size of the decoder's TFLite file in MiB.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files

from bench.result import Part, Result

STUDY = "https://arxiv.org/abs/2012.09708"
CODE = "https://github.com/amanmohanty/idl-nncompress"
# Minutes a decoder took divided by this are seconds an image.
TEST_IMAGES = 1000


class EncoderTechnique(StrEnum):
    """What the study did to an encoder."""

    DENSE = "dense"
    INT8 = "int8"  # TFLite, dynamic range
    PRUNED50 = "pruned50"
    PRUNED50_INT8 = "pruned50+int8"


class DecoderTechnique(StrEnum):
    """What the study did to a decoder."""

    DENSE = "dense"
    PRUNED50 = "pruned50"
    PRUNED80 = "pruned80"
    PRUNED90 = "pruned90"
    QAT = "qat"
    POST_TRAINING = "post_training"


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One evaluation. `bleu`: BLEU-1 to BLEU-4 as printed."""

    encoder: str
    encoder_technique: EncoderTechnique
    decoder_technique: DecoderTechnique
    notebook: str
    bleu: tuple[float, float, float, float]
    minutes: float
    decoder_mib: float | None

    @property
    def name(self) -> str:
        """What it combines."""
        return f"{self.encoder} {self.encoder_technique} + LSTM {self.decoder_technique}"


# What stands for a technique of the study here: technique and precision of a half.
ENCODER_PARTS = {
    EncoderTechnique.DENSE: Part("none", "fp32"),
    EncoderTechnique.INT8: Part("none", "int8_dynamic"),
    EncoderTechnique.PRUNED50: Part("prune50", "fp32"),
    EncoderTechnique.PRUNED50_INT8: Part("prune50", "int8_dynamic"),
}
_PRUNED_LAYERS = "(layers=embedding|lstm|words)"
DECODER_PARTS = {
    DecoderTechnique.DENSE: Part("none", "fp32"),
    DecoderTechnique.PRUNED50: Part(f"prune50{_PRUNED_LAYERS}", "fp32"),
    DecoderTechnique.PRUNED80: Part(f"prune80{_PRUNED_LAYERS}", "fp32"),
    DecoderTechnique.PRUNED90: Part(f"prune90{_PRUNED_LAYERS}", "fp32"),
    DecoderTechnique.QAT: Part("qat", "int8_static"),
    DecoderTechnique.POST_TRAINING: Part("none", "int8_dynamic"),
}


def read_runs() -> tuple[StudyRun, ...]:
    """All 34, in the order of the notebooks."""
    text = files("reports.study").joinpath("study_2012_09708.csv").read_text(encoding="utf-8")
    return tuple(map(_run, csv.DictReader(text.splitlines())))


def _run(row: dict[str, str]) -> StudyRun:
    one, two, three, four = (float(row[f"bleu_{order}"]) for order in range(1, 5))
    return StudyRun(
        row["encoder"],
        EncoderTechnique(row["encoder_technique"]),
        DecoderTechnique(row["decoder_technique"]),
        row["notebook"],
        (one, two, three, four),
        float(row["minutes"]),
        float(row["decoder_mib"]) if row["decoder_mib"] else None,
    )


def find_run(
    runs: Sequence[StudyRun], encoder: str, encoder_technique: EncoderTechnique, decoder_technique: DecoderTechnique
) -> StudyRun:
    """The one that combines these. Raises LookupError when the study did not run it."""
    wanted = (encoder, encoder_technique, decoder_technique)
    for run in runs:
        if (run.encoder, run.encoder_technique, run.decoder_technique) == wanted:
            return run
    raise LookupError(f"the study did not run {', '.join(wanted)}")


def remeasured(run: StudyRun, rows: Sequence[Result], runtime: str) -> Result | None:
    """The row that stands for `run` on a runtime: the same encoder with a merge decoder, the same technique of both.

    How a half learned afterwards is left open: of a technique's options only the layers it works on are compared.
    """
    wanted = ENCODER_PARTS[run.encoder_technique], DECODER_PARTS[run.decoder_technique]
    for row in rows:
        same = (_what(row.encoder), _what(row.decoder)) == wanted
        if same and row.captioner == f"{run.encoder}-merge" and row.runtime == runtime:
            return row
    return None


def _what(part: Part) -> Part:
    """A half's technique without the options that say how it learned."""
    return replace(part, technique=re.sub(r"\(([^()]*)\)", _layers, part.technique))


def _layers(options: re.Match[str]) -> str:
    layers = [option for option in options[1].split(",") if option.startswith("layers=")]
    return f"({layers[0]})" if layers else ""
