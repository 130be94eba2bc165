"""Finds LSTM cells in a graph of named operators, whatever format it came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from convert.ledger_parts import LstmForm

# What an operator does in a cell, by its name in either format. The rest is either passed through or ends a search.
SIGMOID = frozenset({"Sigmoid", "QLinearSigmoid", "HardSigmoid", "LOGISTIC"})
TANH = frozenset({"Tanh", "TANH"})
MULTIPLY = frozenset({"Mul", "QLinearMul", "MUL"})
ADD = frozenset({"Add", "QLinearAdd", "ADD"})
PASSED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
    | {"QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
)
LSTM_OPERATORS = frozenset(
    {"LSTM", "DynamicQuantizeLSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM"}
)


@dataclass(frozen=True)
class Operator:
    """An operator by name with the tensors that it reads and writes; `repeated` inside a loop's body."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    repeated: bool = False


def lstm_form(operators: Sequence[Operator]) -> LstmForm:
    """The form of the LSTM in these operators."""
    written = {name: operator for operator in operators for name in operator.outputs}
    readers: dict[str, list[Operator]] = {}
    for operator in operators:
        for name in operator.inputs:
            readers.setdefault(name, []).append(operator)
    fused = [operator for operator in operators if operator.kind in LSTM_OPERATORS]
    cells = [operator for operator in operators if _is_cell(operator, written, readers)]
    if any(operator.repeated for operator in (*fused, *cells)):
        return LstmForm.LOOP
    if fused:
        return LstmForm.OPERATOR
    return LstmForm.EXPLICIT_STEP if cells else LstmForm.NONE


def _is_cell(operator: Operator, written: Mapping[str, Operator], readers: Mapping[str, Sequence[Operator]]) -> bool:
    """Whether this is the addition of c' = sigmoid(f) c + sigmoid(i) tanh(g), from which h' = sigmoid(o) tanh(c').

    Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000). A GRU adds two products too, but takes
    no tanh of the sum.
    """
    if operator.kind not in ADD:
        return False
    # A QLinearAdd also reads scales, which nothing computes.
    products = [source for source in (_source(name, written) for name in operator.inputs) if source]
    if len(products) != 2 or not all(product.kind in MULTIPLY for product in products):
        return False
    factors = [{_kind(name, written) for name in product.inputs} for product in products]
    gated = all(not SIGMOID.isdisjoint(kinds) for kinds in factors)
    candidate = any(not TANH.isdisjoint(kinds) for kinds in factors)
    return gated and candidate and not TANH.isdisjoint(_uses(operator.outputs, readers))


def _source(name: str, written: Mapping[str, Operator]) -> Operator | None:
    """The operator that computes a tensor, behind those that only store it differently."""
    operator = written.get(name)
    while operator is not None and operator.kind in PASSED:
        operator = written.get(operator.inputs[0])
    return operator


def _kind(name: str, written: Mapping[str, Operator]) -> str:
    operator = _source(name, written)
    return operator.kind if operator else ""


def _uses(names: Iterable[str], readers: Mapping[str, Sequence[Operator]]) -> set[str]:
    """Kinds of the operators that read these tensors, also through those that only store them differently."""
    kinds: set[str] = set()
    waiting = list(names)
    while waiting:
        for operator in readers.get(waiting.pop(), ()):
            kinds.add(operator.kind)
            waiting += operator.outputs if operator.kind in PASSED else ()
    return kinds
