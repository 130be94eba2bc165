"""The ledger's own rules, on values written by hand: shares, weights, LSTM cells, counts of products."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert.ledger import Arithmetic, LstmForm, shares
from convert.ledger_cells import Operator, lstm_form
from convert.ledger_kernels import KERNELS, Kernel, Shape, blockwise_arithmetic, integer_pair, kernel_of
from convert.ledger_parts import Stored, is_weight, sums


@given(st.dictionaries(st.sampled_from(list(Arithmetic)), st.integers(1, 10**12)))
def test_shares_sum_to_one(amounts: dict[Arithmetic, int]) -> None:
    found = shares(amounts)
    assert found.keys() == amounts.keys()
    assert not found or sum(found.values()) == pytest.approx(1)


def test_amounts_of_nothing_are_left_out() -> None:
    assert sums([(Arithmetic.FP32, 2), (Arithmetic.INT8, 0), (Arithmetic.FP32, 3)]) == {Arithmetic.FP32: 5}
    assert shares({}) == {}


@pytest.mark.parametrize(("axes", "elements", "counts"), [(2, 64, True), (1, 4096, False), (4, 63, False)])
def test_biases_and_scales_are_no_weights(axes: int, elements: int, counts: bool) -> None:
    assert is_weight(Stored("w", Arithmetic.FP32, axes, elements, elements * 4)) is counts


def cell(*, quantized: bool = False, repeated: bool = False, with_tanh: bool = True) -> list[Operator]:
    """An LSTM cell from its gates on; with Q and DQ around the sum, where asked for."""
    parts = [
        ("Sigmoid", ("f",), ("sf",)),
        ("Sigmoid", ("i",), ("si",)),
        ("Sigmoid", ("o",), ("so",)),
        ("Tanh", ("g",), ("tg",)),
        ("Mul", ("sf", "c"), ("kept",)),
        ("Mul", ("si", "tg"), ("new",)),
        ("Add", ("kept", "new"), ("sum",)),
        ("QuantizeLinear" if quantized else "Identity", ("sum", "scale"), ("sum_q",)),
        ("DequantizeLinear" if quantized else "Identity", ("sum_q", "scale"), ("c_out",)),
        ("Tanh" if with_tanh else "Relu", ("c_out",), ("tc",)),
        ("Mul", ("so", "tc"), ("h_out",)),
    ]
    return [Operator(kind, inputs, outputs, repeated) for kind, inputs, outputs in parts]


def test_written_out_cell_is_found_with_and_without_quantization() -> None:
    assert lstm_form(cell()) is LstmForm.EXPLICIT_STEP
    assert lstm_form(cell(quantized=True)) is LstmForm.EXPLICIT_STEP
    assert lstm_form(cell(repeated=True)) is LstmForm.LOOP


def test_sum_of_gated_products_without_tanh_is_no_lstm() -> None:
    assert lstm_form(cell(with_tanh=False)) is LstmForm.NONE


def test_operator_is_an_lstm_wherever_it_stands() -> None:
    assert lstm_form([Operator("DynamicQuantizeLSTM", ("x",), ("y",))]) is LstmForm.OPERATOR
    assert lstm_form([*cell(), Operator("LSTM", ("x",), ("y",))]) is LstmForm.OPERATOR
    assert lstm_form([Operator("LSTM", ("x",), ("y",), repeated=True)]) is LstmForm.LOOP
    assert lstm_form([Operator("GRU", ("x",), ("y",))]) is LstmForm.NONE


@dataclass
class Given:
    """An operator of which only shapes and attributes are known."""

    shapes: list[Shape | None]
    output: Shape | None = None
    attributes: dict[str, int] = field(default_factory=dict)
    equation: str = ""

    def shape(self, place: int) -> Shape | None:
        return self.shapes[place] if place < len(self.shapes) else None

    def output_shape(self) -> Shape | None:
        return self.output

    def attribute(self, name: str, default: int) -> int:
        return self.attributes.get(name, default)

    def text(self, name: str) -> str:
        return self.equation if name == "equation" else ""


def count(kind: str, call: Given, domain: str = "") -> int | None:
    kernel = kernel_of(kind, domain)
    assert isinstance(kernel, Kernel)
    return kernel.count(call, kernel)


@pytest.mark.parametrize(
    ("kind", "call", "products"),
    [
        ("Conv", Given([(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 6, 6)), 16 * 36 * 27),
        ("Conv", Given([(1, 16, 8, 8), (16, 1, 3, 3)], (1, 16, 6, 6)), 16 * 36 * 9),  # depthwise
        ("ConvTranspose", Given([(1, 4, 5, 5), (4, 2, 3, 3)], (1, 2, 7, 7)), 4 * 25 * 2 * 9),
        ("MatMul", Given([(2, 5, 8), (8, 3)], (2, 5, 3)), 2 * 5 * 3 * 8),
        ("MatMul", Given([None, (8, 3)], (5, 3)), 5 * 3 * 8),
        ("Gemm", Given([(8, 5), (3, 8)], (5, 3), {"transA": 1, "transB": 1}), 5 * 3 * 8),
        ("Gemm", Given([None, (3, 8)], (5, 3), {"transB": 1}), 5 * 3 * 8),
        ("MatMulNBits", Given([(1, 64), (10, 2, 16)], (1, 10), {"K": 64}), 640),
        ("LSTM", Given([(5, 2, 8), (1, 64, 8), (1, 64, 16)], (5, 1, 2, 16)), 10 * (64 * 8 + 64 * 16)),
        ("Einsum", Given([(2, 3, 4), (4, 5)], (2, 3, 5), equation="abc, cd -> abd"), 2 * 3 * 4 * 5),
        ("Attention", Given([(1, 2, 6, 8), (1, 2, 9, 8), (1, 2, 9, 8)], (1, 2, 6, 8)), 2 * 2 * 6 * 8 * 9),
        ("Gather", Given([(100, 8), (1,)], (1, 8)), 0),
        ("MatMul", Given([(2, 8), (8, 3)]), None),
    ],
)
def test_multiply_adds_are_those_of_the_textbook(kind: str, call: Given, products: int | None) -> None:
    assert count(kind, call) == products


def test_fused_attention_counts_projections_and_products() -> None:
    call = Given([(1, 4, 8), (8, 24)], (1, 4, 8))
    assert count("Attention", call, "com.microsoft") == 4 * 8 * 24 + 2 * 4 * 4 * 8


def test_integer_kernels_are_named_after_the_unusual_operand() -> None:
    assert integer_pair(Arithmetic.INT8, Arithmetic.INT8) is Arithmetic.INT8
    assert integer_pair(Arithmetic.INT16, Arithmetic.INT8) is Arithmetic.INT16
    assert integer_pair(Arithmetic.INT8, Arithmetic.INT4) is Arithmetic.INT4
    assert integer_pair(Arithmetic.FP32, Arithmetic.INT8) is None
    assert blockwise_arithmetic(4, 4) is Arithmetic.INT4
    assert blockwise_arithmetic(0, 4) is None


def test_every_kernel_with_an_integer_name_is_an_integer_kernel() -> None:
    named = {name for name in KERNELS if "Integer" in name or name.startswith(("QLinear", "DynamicQuantize"))}
    assert named <= {name for name, kernel in KERNELS.items() if kernel.integer}
