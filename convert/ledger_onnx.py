"""The coverage ledger of ONNX files: weights from the file, arithmetic from the graph that ONNX Runtime runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.ledger_bodies import body_tensors
from convert.ledger_cells import Operator, lstm_form
from convert.ledger_graph import Call, File, Scope, scopes
from convert.ledger_kernels import (
    INTEGER_ACCURACY,
    Kernel,
    blockwise_arithmetic,
    integer_pair,
    kernel_of,
)
from convert.ledger_onnx_file import PACKED, external_files, load_onnx, stored_weights
from convert.ledger_onnxruntime import Optimized, optimize, with_batch_of_one
from convert.ledger_parts import (
    INTEGER,
    Arithmetic,
    Evidence,
    Ledger,
    Part,
    Reason,
    Stored,
    file_sizes,
    is_weight,
    stored_bytes,
    stored_elements,
)

LOOKUPS = ("Gather", "GatherBlockQuantized")
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# ONNX Runtime's own operators with constants that multiply nothing but element by element.
ELEMENTWISE = re.compile(r"QLinear|Bias|Skip|FastGelu|.*Norm|Quantize|Dequantize|EmbedLayer")


def onnx_ledger(path: Path) -> Ledger:
    """The ledger of an .onnx file. Raises ArtifactError and MissingPackageError as `ledger_of` says."""
    model = load_onnx(path)
    ready = with_batch_of_one(model)
    optimized = optimize(path, ready)
    file = File.of(model)
    weights = stored_weights(model)
    if isinstance(optimized, Optimized):
        evidence, runtime = Evidence.OPTIMIZED_GRAPH, f"onnxruntime {optimized.version}"
        read = list(scopes(optimized.model, optimized.tensors, file, body_tensors))
        notes = []
    else:
        evidence, runtime = Evidence.FILE_PATTERN, ""
        read = list(scopes(ready, {}, file))
        notes = [f"{optimized}: arithmetic is what the file asks for, not what a runtime was seen to do"]
    found = [_part(scope, node, evidence) for scope in read for node in scope.nodes]
    parts = tuple(part for part in found if part)
    quantize, dequantize, pairs = _leftover(read)
    return Ledger(
        path=str(path),
        evidence=evidence,
        runtime=runtime,
        weights=stored_elements(weights),
        weight_bytes=stored_bytes(weights),
        parts=parts,
        leftover_quantize=quantize,
        leftover_dequantize=dequantize,
        leftover_pairs=pairs,
        lstm=lstm_form(list(_operators(file))),
        sizes=file_sizes([path, *external_files(path, model)], weights),
        notes=(*notes, *_body_notes(read)),
    )


def _operators(file: File) -> Iterator[Operator]:
    for scope in file.scopes:
        for node in scope.nodes:
            yield Operator(node.op_type, tuple(node.input), tuple(node.output), scope.is_repeated)


def _body_notes(read: list[Scope]) -> list[str]:
    """What can't be told of graphs inside operators."""
    notes = ["multiply-adds of a loop are those of one pass"] * any(scope.is_repeated for scope in read)
    branched = any(scope.outer is not None and not scope.is_repeated for scope in read)
    return notes + ["multiply-adds of all branches are added up, though one of them runs"] * branched


def _leftover(read: list[Scope]) -> tuple[int, int, int]:
    """Nodes that quantize, that dequantize, and how many of the latter undo the former at once."""
    quantize = dequantize = pairs = 0
    for scope in read:
        for node in scope.nodes:
            quantize += node.op_type == "QuantizeLinear"
            dequantize += node.op_type == "DequantizeLinear"
            if node.op_type == "DequantizeLinear":
                source = scope.producer(node.input[0])
                pairs += source is not None and source.op_type == "QuantizeLinear"
    return quantize, dequantize, pairs


def _part(scope: Scope, node: Any, evidence: Evidence) -> Part | None:
    """The line of the ledger for one operator; None when it multiplies by nothing."""
    call, kernel = Call(scope, node), kernel_of(node.op_type, node.domain)
    if kernel is None:
        return _unknown_part(call)
    weights = [stored for stored in (call.stored(place) for place in kernel.weights) if stored]
    if node.op_type in LOOKUPS and not any(map(is_weight, weights)):
        return None
    stored = weights[0].arithmetic if weights else None
    arithmetic = _looked_up(call, weights[0]) if node.op_type in LOOKUPS else _arithmetic(call, kernel, evidence)
    reason = None if arithmetic in INTEGER else _reason(call, kernel, stored)
    elements = sum(weight.elements for weight in weights)
    return Part(call.name, node.op_type, kernel.count(call, kernel), elements, stored, arithmetic, reason)


def _unknown_part(call: Call) -> Part | None:
    """An operator of a vendor that reads weights: it is shown, but nothing is known of its arithmetic."""
    if call.node.domain in STANDARD_DOMAINS or ELEMENTWISE.match(call.node.op_type):
        return None
    weights = [stored for stored in map(call.stored, range(len(call.node.input))) if stored and is_weight(stored)]
    if not weights:
        return None
    stored = weights[0].arithmetic
    elements = sum(weight.elements for weight in weights)
    reason = Reason.WEIGHT_ONLY if stored in INTEGER else Reason.NO_INTEGER_KERNEL
    return Part(call.name, call.node.op_type, None, elements, stored, Arithmetic.OTHER, reason)


def _looked_up(call: Call, table: Stored) -> Arithmetic:
    """The numbers of the rows as they are read."""
    return table.arithmetic if call.node.op_type in PACKED else call.number(0) or table.arithmetic


def _arithmetic(call: Call, kernel: Kernel, evidence: Evidence) -> Arithmetic:
    if kernel.integer:
        return kernel.integer
    if call.node.op_type == "MatMulNBits":
        blockwise = blockwise_arithmetic(call.attribute("accuracy_level", 0), call.attribute("bits", 4))
        if blockwise:
            return blockwise
    if evidence is Evidence.FILE_PATTERN and kernel.is_quantizable:
        fused = _fused(call, kernel)
        if fused:
            return fused
    return call.number(kernel.data) or Arithmetic.FP32


def _fused(call: Call, kernel: Kernel) -> Arithmetic | None:
    """What a runtime would compute in, when the file has Q and DQ wherever an integer kernel needs them."""
    data, weight = call.quantized(kernel.data), call.quantized(kernel.weights[0])
    if data and weight and call.output_quantized() == data and not _has_computed_bias(call):
        return integer_pair(data[0], weight[0])
    return None


def _has_computed_bias(call: Call) -> bool:
    inputs = call.node.input
    return call.node.op_type in ("Gemm", "FusedGemm") and len(inputs) > 2 and call.varies(2)


def _reason(call: Call, kernel: Kernel, stored: Arithmetic | None) -> Reason:
    """Why this is not computed in integers; rules in the order of `Reason`."""
    file = call.scope.file
    if call.node.op_type == "MatMulNBits" and call.attribute("accuracy_level", 0) != INTEGER_ACCURACY:
        return Reason.WEIGHT_ONLY
    if stored in INTEGER or (stored is None and call.quantized(kernel.data)):
        return _reason_beside_integers(call, kernel)
    if stored is Arithmetic.FP16 and call.number(kernel.data) is not Arithmetic.FP16:
        return Reason.WEIGHT_ONLY
    if not file.is_quantized:
        return Reason.CHOSEN
    if not kernel.is_quantizable and call.node.op_type not in LOOKUPS:
        return Reason.NO_INTEGER_KERNEL
    return Reason.LEFT_OUT if stored else Reason.BOTH_INPUTS_VARY


def _reason_beside_integers(call: Call, kernel: Kernel) -> Reason:
    """Why a part whose weights or activations are dequantized before it stays in float."""
    data = call.quantized(kernel.data)
    if not data:
        return Reason.ACTIVATION_NOT_QUANTIZED if call.scope.file.quantizes_activations else Reason.WEIGHT_ONLY
    if not kernel.is_quantizable:
        return Reason.NO_INTEGER_KERNEL
    if _has_computed_bias(call):
        return Reason.BIAS_NOT_CONSTANT
    output = call.output_quantized()
    if not output:
        return Reason.OUTPUT_NOT_QUANTIZED
    return Reason.TYPES_DIFFER if output != data else Reason.NO_INTEGER_KERNEL
