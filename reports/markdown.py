"""Report -> one GitHub-flavoured Markdown page, the verdict first. Pure."""

from collections.abc import Iterator, Mapping

from bench.result import Captioner
from convert.recipe import Graph
from reports.captions import divergence_table, parity_table, render_examples
from reports.compression import compression_section
from reports.coverage import coverage_section
from reports.report import Report
from reports.tables import headline_table, latency_table, quality_table, size_table, throughput_table
from reports.text import DASH, code_block, escape, name_text, path_address, score, table
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
    "parts at word": "the first word, counted from 1, where two captions differ",
    "largest difference": "over the features and first logits, for the same input tensors",
    "noise floor": "how far apart the same artifact measured twice came out, relative",
    "valid": "at least 64 samples and 10 s, steady, and the same outputs as in the quality run",
    "quick": "measured, but with too few samples to compare speeds",
    "invalid": "measured, but the timing failed its own checks",
}


def render_markdown(report: Report, *, figure: str | None) -> str:
    """The whole page. `figure` is the address of the picture, None where there is none."""
    sections = (
        ("", _opening(report, figure)),
        ("Before you trust this", _cautions(report)),
        ("Captions across runtimes", _parity(report)),
        ("What the captions look like", render_examples(report)),
        ("Where the time goes", _latency(report)),
        ("Where the bytes go", _sizes(report)),
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
            f"{what} {render_conditions(report)} Captions identical: word for word those of the reference row.",
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
    matrix, divergences = parity_table(report), divergence_table(report)
    if not matrix:
        return ""
    notes = (
        "Share of test images whose caption, and share of words, are those of the reference row. Every runtime "
        "runs the same decode loop, so what differs comes from the graphs."
        f"{_fused_note(report)}"
    )
    if not divergences:
        return "\n\n".join((notes, matrix, "No caption differs from its reference."))
    return "\n\n".join((notes, matrix, "Some of the captions that differ:", divergences))


def _fused_note(report: Report) -> str:
    """What sets fused rows apart, where there are any."""
    if all(item.row.graph != Graph.FUSED for item in report.rows):
        return ""
    return " A fused row holds a greedy loop in its file: no beam, and pixels to words is one call."


def _latency(report: Report) -> str:
    note = (
        "Medians, each phase timed on its own (none is a difference of two others); p90 where there are at "
        f"least 64 samples. A step is one word.{_fused_note(report)} {render_conditions(report)}"
    )
    return "\n\n".join(filter(None, (latency_table(report), throughput_table(report), note)))


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
    return f"{quality_table(report)}\n\n{note}"


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
    return table(("what", "value"), _environment_rows(report), words=(0, 1))


def _environment_rows(report: Report) -> Iterator[tuple[str, str]]:
    results, environment, plan = report.results, report.results.environment, report.results.run_plan
    packages = [name_text(f"{name} {version}") for name, version in sorted(environment.packages.items())]
    yield "CPU", escape(environment.cpu)
    yield "instruction sets", ", ".join(map(name_text, environment.isa)) or DASH
    yield "cores", str(environment.cores)
    yield "threads used", str(plan.threads)
    yield "memory", f"{environment.memory_bytes / 1e9:.1f} GB"
    yield "system", escape(environment.system)
    yield "Python", name_text(environment.python)
    yield "packages", ", ".join(packages) or DASH
    yield (
        "run plan",
        (
            f"{plan.rounds} interleaved rounds, {plan.warmup} warm-up captions, at least "
            f"{plan.minimum_samples} samples and {plan.minimum_seconds:g} s, seed {plan.seed}"
        ),
    )
    yield "commit", name_text(results.commit) or DASH
    yield "created", name_text(results.created)


def _reproduce(report: Report) -> str:
    return code_block(report.results.command)


def _glossary() -> str:
    return "\n".join(f"- **{word}**: {meaning}" for word, meaning in GLOSSARY.items())
