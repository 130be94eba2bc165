"""The section on what is really integer: a recipe's name is a wish, its ledger is a fact."""

from collections import Counter

from bench.result import Coverage
from reports.report import Report
from reports.text import DASH, escape, name_text, percent, table

NOTE = (
    "Read from the files, and for ONNX from the graph that ONNX Runtime's own optimizer leaves. Integer arithmetic is "
    "the share of a caption's multiply-adds that integer kernels do; left-over pairs are quantized and dequantized "
    "again for nothing. Overflow: on x86 CPUs without VNNI these layers give wrong results without a word "
    "(microsoft/onnxruntime#5849); for those build `int8_static(reduce_range)`. `captionbench inspect` prints the "
    "ledger of any file, operator by operator."
)
# Why a part computes in floating point, in words; the keys are those of `convert.ledger_parts.Reason`.
REASONS = {
    "chosen": "chosen so",
    "weight_only": "only weights are stored small",
    "activation_not_quantized": "activation not quantized",
    "bias_not_constant": "bias is computed",
    "output_not_quantized": "output not quantized",
    "types_differ": "signed meets unsigned",
    "no_integer_kernel": "no integer kernel",
    "both_inputs_vary": "product of two activations",
    "small": "too small to be worth it",
    "left_out": "kept in float on purpose",
}


def coverage_section(report: Report) -> str:
    """The ledger of every artifact; empty where no row has one."""
    rows = [item for item in report.rows if item.row.coverage.weights_int8 is not None]
    if not rows:
        return ""
    headers = (
        "recipe @ runtime",
        "INT8 weights",
        "INT4 weights",
        "integer arithmetic",
        "left-over pairs",
        "overflow without VNNI",
        "LSTM",
        "multiplied in float, because",
    )
    cells = [[name_text(item.name), *_cells(item.row.coverage)] for item in rows]
    return f"{table(headers, cells, words=(0, 5, 6, 7))}\n\n{NOTE}"


def _cells(coverage: Coverage) -> list[str]:
    shares = (coverage.weights_int8, coverage.weights_int4, coverage.macs_int8)
    pairs = DASH if coverage.leftover_pairs is None else str(coverage.leftover_pairs)
    return [
        *map(percent, shares),
        pairs,
        _overflow(coverage),
        escape(coverage.lstm.replace("_", " ")) or DASH,
        _floats(coverage),
    ]


def _overflow(coverage: Coverage) -> str:
    """Layers that are wrong on x86 CPUs without VNNI: seen, or possible."""
    if coverage.overflow_observed is None:
        return DASH
    if not coverage.overflow_possible:
        return "no layer can"
    return f"{coverage.overflow_observed} layers seen, {coverage.overflow_possible} could"


def _floats(coverage: Coverage) -> str:
    counted = Counter(REASONS.get(reason, reason) for reason in coverage.floats.values())
    if coverage.macs_int8 is None or (not coverage.floats and coverage.macs_int8 < 1):
        return DASH
    return escape("; ".join(f"{count} {reason}" for reason, count in counted.most_common())) or "nothing"
