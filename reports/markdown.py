"""Report -> one GitHub-flavoured Markdown page, the verdict first. Pure."""

from collections.abc import Mapping

from bench.compression_record import Captioner
from bench.result import parity_rows
from convert.recipe import Graph
from reports.captions import render_examples
from reports.compression import compression_section
from reports.coverage import coverage_section
from reports.parity import parity_section
from reports.report import Report
from reports.roofline import roofline_section
from reports.slowness import slowness_section
from reports.tables import RANK_NOTE, change_table, headline_table, quality_table, size_table
from reports.text import DASH, code_block, escape, name_text, path_address, score, table
from reports.timing import caption_table, latency_table, runtime_table, throughput_table
from reports.trust import environment_rows, trust_section
from reports.verdict import render_choice, render_conditions, render_verdict

NO_FIGURE = (
    "*No figure: this environment has no matplotlib. `pip install matplotlib`, then write the report again "
    "with `captionbench report`.*"
)
GLOSSARY: Mapping[str, str] = {
    "technique": "what was done in Keras: prune80 = 80 % zeros; cluster16 = 16 values; halves as encoder/decoder",
    "collapsed": "less than half of the uncompressed captioner's different captions, or no better than a constant one",
    "artifact": "the files that are shipped: encoder, decoder, vocabulary, preprocessing contract",
    "recipe": "how an artifact was made: captioner, compression and precision of both halves, format",
    "runtime": "what runs the artifact (TensorFlow, LiteRT, ONNX Runtime), each in its own process",
    "encoder, decoder": "the half that reads the image, and the half that writes one word a step",
    "greedy, beam 3": "take the likeliest word at each step, or keep the three likeliest sentences",
    "BLEU-n": "share of word groups of up to n words that people also wrote, 0 to 1",
    "CIDEr": "agreement with people's captions, weighted towards telling words (CIDEr-D, 0 to 10)",
    "constant caption": "the best single sentence given to every image: what looking at nothing scores",
    "identical": "the same words in the same order as the reference row, image by image",
    "same file, same tensor": "captions equal when each runtime prepares the image, or when all get the same pixels",
    "margin": "by how much the reference preferred its word to the other, in nats: 0.05 is 5 % in probability",
    "tie flip": "another word where the margin is within the arithmetic's own noise; the other causes are named beside",
    "noise floor": "how far apart the same artifact measured twice came out, relative",
    "[a, b]": "an interval that holds the true value in 95 of 100 runs (99 where two rows' times are compared)",
    "p90": "nine captions of ten are faster; shown only of enough samples: 64, for p95 130, for p99 662",
    "steps each": "every image is made to take that many words, whatever the captioner would have said",
    "offline": "all files at hand at once, one batch from files to captions",
    "valid": "at least 64 samples and 10 s, steady, and the same outputs as in the quality run",
    "quick": "measured, but with too few samples to compare speeds",
    "invalid": "measured, but the timing failed its own checks",
}


def render_markdown(report: Report, *, figure: str | None) -> str:
    """The whole page. `figure` is the address of the picture, None where there is none."""
    sections = (
        ("", _opening(report, figure)),
        ("Before you trust this", _cautions(report)),
        ("Do captions match across runtimes?", _parity(report)),
        ("What the captions look like", render_examples(report)),
        ("Where the time goes", _latency(report)),
        ("How far to trust the times", trust_section(report)),
        ("Why rows are slow", slowness_section(report)),
        ("How near the machine's limits", roofline_section(report)),
        ("Where the bytes go", _sizes(report)),
        ("What a runtime costs", _runtimes(report)),
        ("What is really integer", coverage_section(report)),
        ("Caption quality", _quality(report)),
        ("What compression reached", compression_section(report)),
        ("What was measured", _captioners(report)),
        ("Environment", _environment(report)),
        ("Reproduce", _reproduce(report)),
        ("Glossary", _glossary()),
    )
    parts = (f"## {title}\n\n{body}" if title else body for title, body in sections if body)
    return "\n\n".join(parts) + "\n"


def _opening(report: Report, figure: str | None) -> str:
    results = report.results
    what = f"Suite {name_text(results.suite)} on {escape(results.dataset)}, {results.test_images} test images."
    return "\n\n".join(
        (
            f"# {escape(results.title)}",
            render_verdict(report),
            headline_table(report),
            f"{what} {render_conditions(report)} {RANK_NOTE} Captions identical: word for word those of the "
            "reference row.",
            render_choice(report),
            figure_text(report, figure),
        )
    )


def figure_text(report: Report, figure: str | None) -> str:
    """The picture, or how to get it."""
    if figure is None:
        return NO_FIGURE
    winner = f"; to ship: {report.winner.name}" if report.winner else ""
    return f"![CIDEr against size of every artifact{escape(winner)}]({path_address(figure)})"


def _cautions(report: Report) -> str:
    return "\n".join(
        f"- **{caution.kind.capitalize()}.** {caution.text}. *{caution.remedy}*" for caution in report.cautions
    )


def _parity(report: Report) -> str:
    results = report.results
    order = [item.name for item in report.rows]
    rows = sorted(parity_rows(results.rows), key=lambda row: order.index(row.name))
    return parity_section(rows, results.test_images, results.pictures)


def _fused_note(report: Report) -> str:
    """What sets fused rows apart, where there are any."""
    if all(item.row.graph != Graph.FUSED for item in report.rows):
        return ""
    return " A fused row holds a greedy loop in its file: no beam, and pixels to words is one call."


def _latency(report: Report) -> str:
    note = (
        "Medians, each phase timed on its own (none is a difference of two others); p90 where there are at "
        f"least 64 samples. A step is one word.{_steps_note(report)}{_fused_note(report)} {render_conditions(report)}"
    )
    tables = (latency_table(report), caption_table(report), throughput_table(report))
    return "\n\n".join(filter(None, (*tables, note)))


def _steps_note(report: Report) -> str:
    """Why captions are timed at equal length, where they are."""
    steps = report.results.forced_steps
    return f" At {steps} steps each, no row looks fast for saying less." if steps else ""


def _runtimes(report: Report) -> str:
    costs = runtime_table(report)
    note = "Before any model: the package and all that it needs on disk, and importing it in a new process."
    return f"{costs}\n\n{note}" if costs else ""


def _sizes(report: Report) -> str:
    note = (
        "MB are millions of bytes; zipped is the same files in one archive, weights are kernels and tables alone, and "
        f"loaded is what loading adds to a process that has imported the runtime ({DASH}: unknown)."
    )
    return f"{size_table(report)}\n\n{note}"


def _quality(report: Report) -> str:
    rows = [row.quality for row in report.results.rows if row.quality]
    protocols = sorted({quality.protocol for quality in rows})
    note = (
        f"Protocol: {', '.join(map(name_text, protocols)) or DASH}. Judge by CIDEr and BLEU-4, never by BLEU-1: "
        "a fixed sentence that fits many images scores high on it. Paper BLEU-1 counts the START and END "
        "markers and is here only for comparison with older work. Intervals are 95 %, over images."
    )
    return "\n\n".join(filter(None, (quality_table(report), note, _changes(report))))


def _changes(report: Report) -> str:
    changes = change_table(report)
    note = (
        "Change against the baseline, with its 95 % interval: a paired bootstrap, which draws the same images for both "
        "and so tells smaller differences than the intervals of the scores do. “≈”: the interval holds 0. The gate "
        "goes by the scores as measured; it is beyond doubt where the whole interval agrees."
    )
    return f"{changes}\n\n{note}" if changes else ""


def _captioners(report: Report) -> str:
    headers = (
        "captioner",
        "technique",
        "encoder",
        "decoder",
        "parameters",
        "vocabulary",
        "validation CIDEr",
        "epochs",
        "note",
    )
    cells = [_captioner_cells(captioner) for captioner in report.results.captioners]
    return table(headers, cells, words=(0, 1, 2, 3, 8))


def _captioner_cells(captioner: Captioner) -> list[str]:
    return [
        name_text(captioner.name),
        name_text(captioner.technique),
        name_text(captioner.encoder),
        name_text(captioner.decoder),
        f"{captioner.parameters:,}",
        f"{captioner.vocabulary_size:,}",
        score(captioner.validation_cider),
        str(captioner.epochs),
        escape(captioner.note) or DASH,
    ]


def _environment(report: Report) -> str:
    return table(("what", "value"), environment_rows(report.results), words=(0, 1))


def _reproduce(report: Report) -> str:
    return code_block(report.results.command)


def _glossary() -> str:
    return "\n".join(f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items())
