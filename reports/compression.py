"""What compression in Keras reached and cost: one line for each technique of each chain. Pure."""

from bench.compression_record import Captioner, Compression, Reached
from reports.report import Report
from reports.text import DASH, name_text, percent, score, table

HEADERS = (
    "captioner",
    "technique",
    "zeros",
    "values",
    "parameters",
    "multiply-adds",
    "validation CIDEr: before",
    "compressed",
    "fine-tuned",
    "distinct captions",
    "fine-tuning",
)
NOTE = (
    "Zeros: the least of any tensor that was to have some. Values: the most different values of any tensor whose "
    "values are shared. Multiply-adds: of the encoder and of one step, as shares of what they were. Compressed: before "
    "fine-tuning. Captions and CIDEr are of validation images, in Keras. No runtime here skips single zeros or shared "
    "values: they make the zipped file smaller, not the file and not the time; fewer filters, units, words do all."
)


def compression_section(report: Report) -> str:
    """The table and how to read it; empty where nothing was compressed in Keras."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for captioner in report.results.captioners:
        for index in range(len(captioner.compressions)):
            # Chains share their beginnings; each technique stands once, under what came before it.
            before = tuple(f"{r.scope}:{r.technique}" for r in captioner.compressions[: index + 1])
            rows.setdefault((captioner.name, *before), _cells(captioner, index))
    return f"{table(HEADERS, list(rows.values()), words=(0, 1, 10))}\n\n{NOTE}" if rows else ""


def _cells(captioner: Captioner, index: int) -> list[str]:
    record = captioner.compressions[index]
    return [
        name_text(captioner.name),
        _technique(captioner, index),
        _least_zeros(record.reached),
        _most_values(record.reached),
        f"{record.parameters:,}",
        _multiply_adds(record),
        score(record.cider_before),
        score(record.cider_compressed),
        score(record.cider),
        f"{record.distinct} (was {record.distinct_before})",
        f"{record.epochs} epochs, {record.seconds:.0f} s",
    ]


def _technique(captioner: Captioner, index: int) -> str:
    record = captioner.compressions[index]
    scope = "" if record.scope == "captioner" else f" of the {record.scope}"
    after = [name_text(before.technique) for before in captioner.compressions[:index]]
    return f"{name_text(record.technique)}{scope}" + (f", after {', '.join(after)}" if after else "")


def _least_zeros(reached: tuple[Reached, ...]) -> str:
    # A few zeros are chance: the row of the padding, dead units.
    sparse = [tensor.zeros for tensor in reached if tensor.zeros > 0.1]
    return percent(min(sparse)) if sparse else DASH


def _most_values(reached: tuple[Reached, ...]) -> str:
    shared = [tensor.values for tensor in reached if tensor.values <= 257]
    return str(max(shared)) if shared and len(shared) == len(reached) else DASH


def _multiply_adds(record: Compression) -> str:
    shares = [
        record.multiply_adds[part] / record.multiply_adds_before[part]
        for part in ("encoder", "step")
        if record.multiply_adds_before.get(part)
    ]
    return " and ".join(percent(share) for share in shares) or DASH
