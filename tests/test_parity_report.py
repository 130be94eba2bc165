"""The parity section and page, from hand-written numbers; and what is shown and judged of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.parity.parity_file import read_parity, write_parity
from bench.parity.record import Cause, Choice, Divergence, Parity, ParityRow, ParityRun, TensorDifference
from bench.parity.shown import SHOWN_OF_A_CAUSE, choose_shown, parity_status, shown_images
from models.errors import ArtifactError
from reports.parity import MEANINGS, parity_section
from reports.parity_page import print_parity, render_parity
from reports.word_diff import mark_differences

GOLDEN = Path(__file__).parent / "golden" / "parity.md"
KERAS = "pets.saved_model.fp32 @ tensorflow"
TIE = Divergence(
    "dog.jpg",
    "a dog on a beach",
    "a dog in the sea",
    first_step=2,
    cause=Cause.TIE_FLIP,
    margin=0.0004,
    noise=0.003,
    reference_choices=(Choice("on", -0.6931), Choice("in", -0.6935)),
    choices=(Choice("in", -0.693), Choice("on", -0.6934)),
    errors={"features": 0.0002, "logits": 0.00001},
    word_from_features="on",
    word_from_state="in",
)
ENCODER = replace(
    TIE, image="cat.jpg", reference_caption="a cat", caption="a small cat", cause=Cause.ENCODER, margin=0.7
)
RESIZED = Divergence(
    "cow.jpg", "a cow", "a dog", 1, Cause.PREPROCESSING, reason="resized with nearest instead of bilinear", margin=1.5
)
TENSORS = {
    "features": TensorDifference(0.43, 0.01, 0.99961, 33.2, 0.33),
    "keys": TensorDifference(0.1, 0.001, 0.9999, 50.0, 0.05),
    "logits": TensorDifference(1.2e-5, 6e-7, 1.0, None, 3.4e-6),
}


def parity(*divergences: Divergence, share: float = 1.0, tensors: dict[str, TensorDifference] | None = None) -> Parity:
    return Parity(
        KERAS,
        share,
        share,
        1e-5,
        divergences,
        graph_captions_identical=share,
        pixels_identical=1.0,
        causes={found.image: found.cause for found in divergences},
        tensors=tensors or {},
        noise=0.003,
    )


ROWS = (
    ParityRow("pets.saved_model.fp32", "tensorflow", ("fp32", "fp32"), parity(), parity()),
    ParityRow("pets.onnx.fp32", "onnxruntime", ("fp32", "fp32"), parity(), parity()),
    ParityRow("pets.tflite.fp16", "tflite", ("fp16", "fp16"), parity(TIE, share=0.9, tensors=TENSORS), parity()),
    ParityRow("pets.onnx.int8", "onnxruntime", ("int8_static", "fp32"), parity(ENCODER, RESIZED, TIE, share=0.7)),
    ParityRow("pets.tflite.int8", "tflite", ("int8_static", "fp32"), reason="LiteRT can't load it"),
)
RUN = ParityRun("pets", "pets (test split)", 10, "nox -s parity -- --suite pets", "abc1234", "2026-11-23T12:00",
                ROWS, {"dog.jpg": "images/dog.jpg"})  # fmt: skip


def test_page_is_the_golden_one() -> None:
    page = render_parity(RUN)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_first_line_answers() -> None:
    first = parity_section(ROWS, 10, {}).splitlines()[0]
    share = "of the captions are the reference's"
    assert f"**2 fp32 or fp16 rows: at least 90.0 % {share}; the one that differs is a tie.**" in first
    assert f"1 row with integers: at least 70.0 % {share}; of the 3 that differ: tie flip 1, encoder 1," in first


def test_equal_rows_say_so_and_show_their_tolerance() -> None:
    same = replace(ROWS[1], greedy=parity(tensors=TENSORS))
    section = parity_section([ROWS[0], same], 10, {})
    assert "every caption is the reference's, with a beam too" in section
    assert "| `logits` | 1.2e-05 | 6e-07 | 1 | – | 3e-06 |" in section


def test_rows_of_an_older_format_are_told_truthfully() -> None:
    old = replace(parity(share=0.8), divergences=(Divergence("dog.jpg", "a dog", "a cat", 1),), causes={},
                  graph_captions_identical=None)  # fmt: skip
    section = parity_section([replace(ROWS[2], greedy=old, beam3=None)], 10, {})
    assert "why the others differ was not examined" in section
    assert "**Some of the captions that differ** (why was not examined)" in section


def test_nothing_compared_is_no_section_and_a_page_that_says_so() -> None:
    assert parity_section([ROWS[0], ROWS[4]], 10, {}) == ""
    page = render_parity(replace(RUN, rows=(ROWS[4],)))
    assert "No row could be compared." in page
    assert "`pets.tflite.int8 @ tflite`: LiteRT can't load it" in page


def test_few_of_each_cause_are_shown_and_rows_that_agree_are_one() -> None:
    many = tuple(replace(ENCODER, image=f"{i}.jpg") for i in range(9))
    rows = [replace(ROWS[3], greedy=parity(*many, TIE, share=0.1)), ROWS[2]]
    shown = choose_shown(rows)
    assert list(shown) == [Cause.TIE_FLIP, Cause.ENCODER]
    assert len(shown[Cause.ENCODER]) == SHOWN_OF_A_CAUSE
    assert shown[Cause.TIE_FLIP][0].rows == ("pets.tflite.fp16 @ tflite", "pets.onnx.int8 @ onnxruntime")
    assert shown_images(rows) == ["dog.jpg", "0.jpg", "1.jpg", "2.jpg"]


def test_status_is_that_of_floats_that_are_no_ties() -> None:
    assert parity_status(ROWS) == 0
    assert parity_status([replace(ROWS[2], greedy=parity(ENCODER, share=0.9))]) == 1
    unknown = replace(parity(share=0.9), divergences=(Divergence("dog.jpg", "a", "b", 0),))
    assert parity_status([replace(ROWS[3], greedy=unknown)]) == 0


def test_every_cause_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Cause)


def test_words_that_differ_are_marked() -> None:
    assert mark_differences("a dog on the beach", "a dog in the sea") == (
        "“a dog **on** the **beach**”",
        "“a dog **in** the **sea**”",
    )
    assert mark_differences("", "a dog") == ("*(empty caption)*", "“**a dog**”")


@given(st.text(alphabet="ab <>|`*_[]\n\u05d0\U0001f600&#~$\\", max_size=30), st.text(max_size=30))
def test_hostile_captions_come_out_as_text(reference: str, caption: str) -> None:
    found = replace(ENCODER, reference_caption=reference, caption=caption, image="<b>|.jpg", reason="<script>")
    section = parity_section([replace(ROWS[3], greedy=parity(found, share=0.5))], 10, {})
    shown = section[section.index("**Encoder**") :]
    assert "<script>" not in shown
    assert "<b>" not in shown
    # One line each for the picture's name, both captions and the details, whatever they hold.
    assert len([line for line in shown.splitlines() if line.startswith("- ")]) == 3


def test_file_is_read_back_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    write_parity(RUN, path)
    assert read_parity(path) == RUN
    for content, told in (("{", "damaged"), ("[]", "not a parity.json"), ('{"format_version": 1}', "damaged")):
        path.write_text(content)
        with pytest.raises(ArtifactError, match=told):
            read_parity(path)
    with pytest.raises(ArtifactError, match="no parity results"):
        read_parity(tmp_path / "none.json")


def test_terminal_table_holds_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_parity(RUN)
    out = capsys.readouterr().out
    assert "pets.tflite.fp16 @ tflite" in out
    assert "the one that differs is a tie" in " ".join(out.split())
