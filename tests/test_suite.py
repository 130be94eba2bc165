"""Suites: what parses, and what a typo is told."""

from pathlib import Path

import pytest

from bench.parity.agreement import choose_twin
from bench.suite import Cell, load_suite, suite_names
from bench.versus_dense import choose_dense
from convert.machine import MachineKind
from convert.recipe import Format, Graph, Recipe, expand_recipes, parse_precisions
from convert.scheme import Precision, Scheme
from models.errors import ConfigError

SUITE = """
title = "Mine"
dataset = "scenes"
baseline = "mine.onnx.fp32 @ onnxruntime"
[[captioners]]
name = "mine"
encoder = "tiny"
decoder = "attention"
weights = "random"
[[builds]]
captioner = "mine"
formats = ["tflite", "onnx"]
precisions = ["fp32", "int8_static+fp16"]
"""


FORMATS = ((Format.TFLITE, "tflite"), (Format.ONNX, "onnxruntime"))


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_parses(name: str) -> None:
    suite = load_suite(name)
    assert suite.baseline in suite.cells
    assert len({cell.name for cell in suite.cells}) == len(suite.cells)


def test_builds_expand_to_every_format_precision_and_runtime(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, SUITE))
    assert [cell.name for cell in suite.cells] == [
        "mine.tflite.fp32 @ tflite",
        "mine.tflite.int8_static+fp16 @ tflite",
        "mine.onnx.fp32 @ onnxruntime",
        "mine.onnx.int8_static+fp16 @ onnxruntime",
    ]


def test_captioners_with_random_frozen_encoders_have_no_quality(tmp_path: Path) -> None:
    assert load_suite(write(tmp_path, SUITE)).sightless == {"mine"}
    learning = SUITE.replace('weights = "random"', 'weights = "random"\nencoder_training = "trained"')
    assert load_suite(write(tmp_path, learning)).sightless == frozenset()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title", "titel", "unknown key 'titel'. Did you mean 'title'?"),
        ("precisions", "precision", "unknown key 'precision'. Did you mean 'precisions'?"),
        ('encoder = "tiny"', 'encoder = "tinny"', "unknown encoder 'tinny'. Did you mean 'tiny'?"),
        ('decoder = "attention"', 'decoder = "atention"', "Did you mean 'attention'?"),
        ('"onnx"', '"onx"', "unknown format 'onx'. Did you mean 'onnx'?"),
        ('"fp32"', '"fp23"', "unknown precision 'fp23'. Did you mean 'fp32'?"),
        ('"int8_static+fp16"', '"a+b+c"', "ENCODER+DECODER"),
        ('dataset = "scenes"', 'dataset = "scene"', "Did you mean 'scenes'?"),
        ("mine.onnx.fp32 @", "mine.onnx.fp16 @", "Did you mean 'mine.onnx.fp32 @ onnxruntime'?"),
        ('captioner = "mine"', 'captioner = "yours"', "unknown captioner 'yours'"),
        ('name = "mine"', "name = 3", "must be a string; received 3"),
        ('formats = ["tflite", "onnx"]', 'formats = "onnx"', "must be a list; received 'onnx'"),
        ('weights = "random"', "epochs = 1.5", "must be a whole number; received 1.5"),
        ('weights = "random"', 'encoder_training = "froze"', "Did you mean 'frozen'?"),
        ('title = "Mine"\n', "", "missing title"),
        ("[[builds]]", "[builds]", "must be a list"),
        ('title = "Mine"', "title = ", "is not valid TOML"),
    ],
)
def test_wrong_suite_is_told_what_and_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in SUITE
    with pytest.raises(ConfigError) as caught:
        load_suite(write(tmp_path, SUITE.replace(old, new, 1)))
    assert told in str(caught.value)


def test_unknown_runtime_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'onnxruntime'"):
        load_suite(write(tmp_path, SUITE + 'runtimes = ["onxruntime"]\n'))


def test_unknown_suite_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown suite 'scense'. Did you mean 'scenes'"):
        load_suite("scense")


def test_missing_suite_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_suite(str(tmp_path / "absent.toml"))


def test_recipe_names_are_slugs() -> None:
    recipes = expand_recipes("c", ["tflite"], ["fp32", "int8_static+int8_dynamic"])
    assert [r.name for r in recipes] == ["c.tflite.fp32", "c.tflite.int8_static+int8_dynamic"]
    assert Recipe("c", Format.KERAS, graph=Graph.PREFIX).name == "c.keras.fp32.prefix"


def test_precision_names_both_halves_or_each() -> None:
    vnni = MachineKind.X86_VNNI
    half, static = Scheme(Precision.FP16), Scheme(Precision.INT8_STATIC)
    assert parse_precisions("fp16", Format.ONNX, vnni) == (half, half)
    assert parse_precisions("int8_static+fp32", Format.ONNX, vnni) == (static, Scheme())


def test_captions_are_compared_with_those_of_the_same_weights() -> None:
    """A pruned captioner says other things than the dense one; its conversions should not."""
    dense, onnx = Recipe("a", Format.SAVED_MODEL), Recipe("a", Format.ONNX, Scheme(Precision.INT8_STATIC))
    pruned = [
        Recipe("a", format_, Scheme(precision), Scheme(precision), technique="prune80")
        for format_, precision in (
            (Format.TFLITE, Precision.INT8_STATIC),
            (Format.TFLITE, Precision.FP32),
            (Format.ONNX, Precision.FP32),
        )
    ]
    quantized = Recipe(
        "a", Format.TFLITE, Scheme(Precision.INT8_STATIC), Scheme(Precision.INT8_STATIC), technique="qat"
    )
    cells = [Cell(recipe, "tensorflow") for recipe in (dense, onnx, *pruned, quantized)]
    twins = {cell.recipe: choose_twin(cell, cells, cells[0]) for cell in cells}
    assert twins[onnx] == twins[dense] == cells[0]
    assert {twins[recipe] for recipe in pruned} == {cells[3]}
    assert twins[quantized] == cells[-1]


def test_rounded_weights_are_compared_with_those_that_were_rounded() -> None:
    """`round` is meant to keep every caption: its own fp32 row would hide what it changed."""
    static = Scheme(Precision.INT8_STATIC)
    dense, rounded = Recipe("a", Format.ONNX), Recipe("a", Format.ONNX, technique="round/none")
    integers = Recipe("a", Format.ONNX, static, static, technique="round/none")
    trained = Recipe("a", Format.ONNX, static, static, technique="round/qat")
    other = Recipe("b", Format.ONNX)
    cells = [Cell(recipe, "onnxruntime") for recipe in (other, rounded, dense, integers, trained)]
    twins = [choose_twin(cell, cells, cells[0]) for cell in cells]
    assert twins == [cells[0], cells[2], cells[2], cells[2], cells[4]]


def test_losses_are_counted_from_the_captioners_own_uncompressed_row() -> None:
    static = Scheme(Precision.INT8_STATIC)
    loop = Cell(Recipe("a", Format.KERAS, graph=Graph.PREFIX), "keras_predict")
    steps = [Cell(Recipe("a", format_), runtime) for format_, runtime in FORMATS]
    integers = [Cell(Recipe("a", format_, static, static, technique="round/none"), r) for format_, r in FORMATS]
    elsewhere = Cell(Recipe("a", Format.SAVED_MODEL, static, static), "tensorflow")
    other = Cell(Recipe("b", Format.TFLITE, static, static), "tflite")
    cells = [loop, *steps, *integers, elsewhere, other]
    assert [choose_dense(cell, cells) for cell in cells] == [None] * 3 + steps + [steps[0], None]


def test_quantized_steps_are_compared_with_the_step_where_the_baseline_is_a_loop() -> None:
    loop = Cell(Recipe("a", Format.KERAS, graph=Graph.PREFIX), "keras_predict")
    graph = Cell(Recipe("a", Format.ONNX, graph=Graph.PREFIX), "onnxruntime")
    step = Cell(Recipe("a", Format.ONNX), "onnxruntime")
    static = Scheme(Precision.INT8_STATIC)
    integers = Cell(Recipe("a", Format.ONNX, static, static), "onnxruntime")
    cells = [loop, graph, step, integers]
    assert [choose_twin(cell, cells, loop) for cell in cells] == [loop, loop, loop, step]
    assert choose_twin(integers, [loop, integers], loop) == loop
