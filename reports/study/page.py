"""`paper-claims.md`: the 2020 study's claims, one by one, and its 34 results beside ours. Pure."""

from collections.abc import Sequence

from bench.measurement import Phase
from bench.result import Result
from reports.report import make_report
from reports.study.claims import Claim, check_claims
from reports.study.evidence import Evidence, is_bleu_of, is_possible
from reports.study.runs import CODE, STUDY, DecoderTechnique, EncoderTechnique, StudyRun
from reports.study.sentences import FOUR_RUNS
from reports.text import (
    DASH,
    caption_text,
    code_block,
    escape,
    interval,
    megabytes,
    milliseconds,
    name_text,
    score,
    table,
)
from reports.verdict import render_conditions
from reports.waterfall_text import waterfall_section

COMMAND = "nox -s study -- --data DIR"
# Lies beside the page.
FIGURE = "paper-claims.svg"


def render_claims(evidence: Evidence) -> str:
    """The whole page."""
    claims = check_claims(evidence)
    parts = (
        "# What the 2020 study claims, measured again",
        _introduction(claims),
        _overview(claims),
        *map(_section, claims),
        *_way(evidence),
        "## Its 34 results and ours",
        _results_text(evidence),
        _results_table(evidence),
        "## Sentences that look at no image",
        _sentences(evidence),
        "## How its encoders were pruned",
        _SHORTCUT,
        "## Again",
        code_block(COMMAND),
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _introduction(claims: Sequence[Claim]) -> str:
    return (
        f"“Efficient CNN-LSTM based image captioning using neural network compression” ([arXiv 2012.09708]({STUDY}), "
        f"[code]({CODE})) compressed VGG16 and ResNet50 captioners in Keras and ran them with TFLite. This project "
        "grew out of it. Its authors published their notebooks with all outputs, and that is why its figures can be "
        f"checked at all. Below are {len(claims)} claims: what is said, what the notebooks print, and what we "
        "measure, in the study's protocol and in one that can't be satisfied without looking at the image."
    )


def _overview(claims: Sequence[Claim]) -> str:
    return table(("claim", "verdict"), [(claim.title, claim.verdict) for claim in claims], words=(0, 1))


def _section(claim: Claim) -> str:
    lines = (
        ("The study says", claim.says),
        ("Its notebooks print", claim.prints),
        ("Its protocol, here", claim.protocol),
        ("Measured honestly", claim.honest),
        ("Verdict", claim.verdict),
    )
    return f"## {claim.title}\n\n" + "\n".join(f"- {label}: {text}." for label, text in lines)


def _way(evidence: Evidence) -> tuple[str, ...]:
    """How much of the study's own captioner's gain is runtime, decoding and compression; nothing without a run."""
    report = evidence.own_terms
    way = waterfall_section(report, f"![What each step took off size and time]({FIGURE})") if report else ""
    return ("## From its Keras loop to INT8, step by step", way) if way else ()


def _results_text(evidence: Evidence) -> str:
    note = (
        "BLEU in the study's protocol throughout: START and END count as words, cleaned text, BLEU-3 weights of 0.3. "
        "Ours: the same combination of techniques on TFLite, another training; our encoder ends at VGG16's last "
        "convolution, the study's at its second dense layer, of which there are no weights without its top here. "
        "Size is encoder and decoder; the study prints a decoder's file only. Same: the six digits of one sentence "
        "under every image. Impossible: BLEU rises with its order."
    )
    if evidence.table is None:
        return note
    suite = evidence.table.suite
    report = (
        f"Ours are of suite `{suite}` ([report]({suite}/report.md)), which may rest on another training than the above."
    )
    return f"{note} {report} {render_conditions(make_report(evidence.table))}"


def _results_table(evidence: Evidence) -> str:
    headers = (
        "encoder",
        "LSTM",
        "BLEU-1, printed",
        "BLEU-4, printed",
        "remark",
        "BLEU-1, ours",
        "BLEU-4, ours",
        "CIDEr, ours",
        "different captions",
        "size (MB)",
        "caption (ms)",
    )
    return table(headers, [_result_cells(run, evidence) for run in evidence.runs], words=(0, 1, 4))


def _result_cells(run: StudyRun, evidence: Evidence) -> list[str]:
    row = evidence.combination(run)
    return [
        f"{run.encoder} {_ENCODERS[run.encoder_technique]}",
        _DECODERS[run.decoder_technique],
        score(run.bleu[0]),
        score(run.bleu[3]),
        _remark(run, evidence),
        *_own_cells(row),
    ]


def _own_cells(row: Result | None) -> list[str]:
    if row is None or row.size_bytes is None:
        return [DASH] * 6
    quality, caption = row.quality, row.latency_seconds.get(Phase.CAPTION)
    scores = (
        [score(quality.paper_bleu_1), score(quality.paper_bleu_4), score(quality.cider), str(quality.distinct_captions)]
        if quality
        else [DASH] * 4
    )
    return [*scores, megabytes(row.size_bytes.total), milliseconds(caption.median if caption else None)]


def _remark(run: StudyRun, evidence: Evidence) -> str:
    if is_bleu_of(run, evidence.sentences[FOUR_RUNS]):
        return "same"
    return "" if is_possible(run) else "impossible"


_ENCODERS = {
    EncoderTechnique.DENSE: "dense",
    EncoderTechnique.INT8: "INT8",
    EncoderTechnique.PRUNED50: "50 % pruned",
    EncoderTechnique.PRUNED50_INT8: "50 % pruned, INT8",
}
_DECODERS = {
    DecoderTechnique.DENSE: "dense",
    DecoderTechnique.PRUNED50: "50 % pruned",
    DecoderTechnique.PRUNED80: "80 % pruned",
    DecoderTechnique.PRUNED90: "90 % pruned",
    DecoderTechnique.QAT: "quantized in training",
    DecoderTechnique.POST_TRAINING: "quantized afterwards",
}


def _sentences(evidence: Evidence) -> str:
    headers = ("sentence", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "coco BLEU-4", "CIDEr", "95 %")
    rows = [
        [
            caption_text(sentence),
            *(f"{value:.6f}" for value in (q.paper_bleu_1, q.paper_bleu_2, q.paper_bleu_3, q.paper_bleu_4)),
            score(q.bleu_4),
            score(q.cider),
            interval(q.cider_ci95, score),
        ]
        for sentence, q in evidence.sentences.items()
    ]
    images = {quality.images for quality in evidence.sentences.values()}
    count = escape(", ".join(map(str, sorted(images))))
    note = (
        f"Each as the caption of all {count} test images; the first four scores by the study's protocol, then coco's. "
        "CIDEr alone tells a sentence from a captioner."
    )
    return f"{table(headers, rows)}\n\n{note}"


_SHORTCUT = (
    "The study did not fine-tune a pruned encoder on captions: it set a new dense head on the convolutions, pruned and "
    "trained that head alone on CIFAR-100, and took the features of the result. What it pruned is thus not what "
    "costs, and what the head learned has nothing to do with Flickr8k, which may be why its pruned encoders lead "
    f"to one sentence for all images. Here {name_text('prune50')} makes half of the weights of every convolution "
    "zero, and the encoder is trained to give the dense one's features again, on Flickr8k's training images."
)
