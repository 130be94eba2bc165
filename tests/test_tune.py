"""`captionbench tune`: the gate's arithmetic, the search on real runtimes, what it writes, and its errors."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_SCENES, tiny_spec
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from bench.quality import cider_mean, paired_difference_ci95
from bench.runtimes import find_runtime
from bench.suite import load_suite
from bench.tuning import Request, Tuning, technique_of, tune
from bench.tuning_files import SUITE_FILE, tuning_json, write_tuning
from bench.tuning_gate import Gate, Verdict, parse_share, parse_size
from bench.tuning_images import MINIMUM_IMAGES, PILOT_IMAGES, Examination, images_needed, images_of, paired_ci95
from bench.tuning_layers import Half, LayerOrder, Probe, Revert, snr_db
from bench.tuning_trials import Trial, pareto_set
from captionbench import app
from convert.artifact import Artifact
from convert.build import adopt, train
from convert.calibration import CalibrationPlan, record_calibration
from convert.graphs import deployable_graphs
from convert.recipe import Format, Graph, Recipe, parse_precisions
from convert.scheme import Precision
from convert.store import Entry, Store
from convert.variants import Variants
from models.captioner import Captioner, load_captioner, save_captioner
from models.datasets import Dataset, Split, open_dataset
from models.errors import ConfigError
from models.vocabulary import PAD
from reports.tuning_text import render_tuning

SUITE = """
title = "tiny"
dataset = "scenes"
baseline = "tiny-merge.onnx.fp32 @ onnxruntime"
dataset_options = {train = 48, validation = 8, test = 8}
[[captioners]]
SPEC
[[builds]]
captioner = "tiny-merge"
formats = ["onnx"]
precisions = ["fp32"]
"""
IMAGES = 24


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    spec = "\n".join(f"{key} = {json.dumps(value)}" for key, value in dataclasses.asdict(tiny_spec("merge")).items())
    path.write_text(SUITE.replace("SPEC", spec))
    return str(path)


def text_of(tuning: Tuning) -> str:
    written = io.StringIO()
    Console(width=200, file=written).print(render_tuning(tuning))
    return " ".join(written.getvalue().split())


@pytest.mark.parametrize(
    ("text", "size"),
    [("3MB", 3_000_000), ("3 MB", 3_000_000), ("500kB", 500_000), ("3MiB", 3 * 2**20), ("1.5 mb", 1_500_000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["3", "0MB", "MB", "-3MB", "3 apples", "", "1e6B"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-size is a number above zero and a unit"):
        parse_size(text)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("1 %", 0.01), ("0.01", 0.01), ("0%", 0.0), (".5%", 0.005)])
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "100%", "-1%", "one", "", "1%%"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-cider-drop is a share"):
        parse_share(text)


@given(
    st.floats(0, 0.99),
    st.one_of(st.none(), st.integers(1, 10**9)),
    st.integers(1, 10**9),
    st.floats(-10, 10),
    st.floats(0, 10),
)
def test_a_gate_passes_what_is_within_both_limits(
    drop: float, limit: int | None, size: int, bound: float, reference: float
) -> None:
    verdict = Gate(drop, limit).judge(size, bound, reference)
    fits, keeps = limit is None or size <= limit, bound + drop * reference >= 0
    assert (verdict is Verdict.PASSES) == (fits and keeps)
    assert (verdict is Verdict.FAILS_BOTH) == (not fits and not keeps)
    assert Gate(drop).judge(size, 0.0, reference) is Verdict.PASSES  # the same captions always keep


@given(st.floats(0, 0.98), st.floats(0.001, 0.01), st.floats(-5, 0), st.floats(0.1, 10))
def test_a_wider_gate_passes_no_less(drop: float, more: float, bound: float, reference: float) -> None:
    if Gate(drop).judge(1, bound, reference) is Verdict.PASSES:
        assert Gate(drop + more).judge(1, bound, reference) is Verdict.PASSES


@given(st.floats(0, 2), st.floats(0.001, 1), st.integers(PILOT_IMAGES, 5000))
def test_images_are_as_many_as_narrow_the_interval(width: float, allowed: float, available: int) -> None:
    count = images_needed(width, allowed, available)
    assert PILOT_IMAGES <= count <= available
    if count < available:
        assert width * (PILOT_IMAGES / count) ** 0.5 <= allowed / 2 + 1e-9


def test_a_gate_without_a_drop_takes_all_images() -> None:
    assert images_needed(0.1, 0.0, 1234) == 1234


def test_more_scenes_are_drawn_without_changing_the_first(dataset: Dataset) -> None:
    more, images = images_of(dataset, Split.VALIDATION, 50)
    assert len(images) == 50
    assert list(images[:8]) == list(dataset.images(Split.VALIDATION))
    assert more.read(images[0].id) == dataset.read(images[0].id)
    assert {image.id for image in images}.isdisjoint(image.id for image in dataset.images(Split.TEST))


def test_too_few_images_are_refused(tmp_path: Path, dataset: Dataset, store: Store, suite: str) -> None:
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(dataset.read(dataset.images(Split.TRAIN)[index].id))
    table = {f"{index}.png": ["a picture"] for index in range(6)}
    (tmp_path / "captions.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=f"at least {MINIMUM_IMAGES} validation images; folder gives 1"):
        images_of(open_dataset("folder", tmp_path, {}), Split.VALIDATION, 0)
    with pytest.raises(ConfigError, match="--images 19"):
        tune(store, Request("tiny-merge", "tflite", Gate(0.01), suite, images=19))


@pytest.mark.parametrize(
    ("captioner", "runtime", "told"),
    [
        ("tiny-merge", "onnxruntim", "Did you mean 'onnxruntime'"),
        ("tiny-merge", "tensorflow", "tune on tflite or onnxruntime"),
        ("tiny-merge", "fake", "tune on tflite or onnxruntime"),
        ("tiny-merg", "tflite", "Did you mean 'tiny-merge'"),
    ],
)
def test_names_that_can_not_be_tuned_are_told(
    store: Store, suite: str, captioner: str, runtime: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        tune(store, Request(captioner, runtime, Gate(0.01), suite))


def test_paired_interval_is_that_of_the_quality_module(store: Store, dataset: Dataset) -> None:
    _, images = images_of(dataset, Split.VALIDATION, 30)
    references = {image.id: image.references for image in images}
    said = {image.id: image.references[0] for image in images}
    other = {image.id: image.references[place % 2] for place, image in enumerate(images)}
    examination = Examination(store, find_runtime("onnxruntime"), dataset, "", images)
    mine = paired_ci95(examination.scores(other), examination.scores(said))
    assert mine == pytest.approx(paired_difference_ci95(other, said, references), abs=1e-12)


def test_signal_to_noise_is_in_decibels() -> None:
    assert snr_db(0.01) == pytest.approx(20)
    assert snr_db(0.0) == np.inf
    assert Revert(Half.ENCODER, "a", 100, 0.5, 0.1).gain > Revert(Half.ENCODER, "b", 200, 0.5, 0.1).gain > 0


def trial(size: int, cider: float) -> Trial:
    recipe = Recipe(f"{size} {cider}", Format.ONNX)
    return Trial(recipe, "", size, cider, 0.0, (0.0, 0.0), 1.0, Verdict.PASSES)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1))
def test_pareto_set_holds_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    trials = {found.recipe: found for found in (trial(size, cider) for size, cider in points)}
    kept = {(found.size_bytes, found.cider) for found in pareto_set(trials)}
    for size, cider in points:
        beaten = any(s <= size and c >= cider and (s, c) != (size, cider) for s, c in points)
        assert ((size, cider) in kept) == (not beaten)


@pytest.mark.parametrize(
    ("compressions", "technique"),
    [
        ([], "none"),
        ([("prune80", "captioner"), ("qat", "captioner")], "prune80+qat"),
        ([("distill_features50", "encoder")], "distill_features50/none"),
        ([("prune50", "encoder"), ("prune80", "decoder"), ("qat", "decoder")], "prune50/prune80+qat"),
    ],
)
def test_chain_of_a_captioner_is_read_from_its_card(compressions: list[tuple[str, str]], technique: str) -> None:
    card = {"compressions": [{"technique": name, "scope": scope} for name, scope in compressions]}
    assert technique_of(Entry(Path(), {"card": card}, reused=True)) == technique


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite"])
def test_wide_gate_passes_without_a_layer_in_float(store: Store, suite: str, runtime: str, tmp_path: Path) -> None:
    tuning = tune(store, Request("tiny-merge", runtime, Gate(0.9), suite, images=IMAGES))
    assert tuning.winner is not None
    assert tuning.winner.size_bytes < tuning.reference.size_bytes / 2
    assert not tuning.reverts
    assert not tuning.reasons
    assert tuning.winner == min((t for t in tuning.trials if t.verdict is Verdict.PASSES), key=lambda t: t.size_bytes)
    assert tuning.test is not None
    assert tuning.test.images == IMAGES
    write_tuning(tuning, tmp_path / "out")
    loaded = load_suite(str(tmp_path / "out" / SUITE_FILE))
    assert [cell.recipe for cell in loaded.cells] == [tuning.reference.recipe, tuning.winner.recipe]
    assert {cell.runtime for cell in loaded.cells} == {runtime}
    assert dataclasses.asdict(loaded.table.captioners[0]) == tuning.captioner.facts["spec"]
    assert "Check on 24 test images" in text_of(tuning)


def test_second_run_reuses_what_was_said(store: Store, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request("tiny-merge", "onnxruntime", Gate(0.9), suite, images=IMAGES)
    first = tune(store, request)

    def never(*_: object) -> None:
        raise AssertionError("captioned again")

    monkeypatch.setattr("bench.tuning_images.caption_all", never)
    assert tuning_json(tune(store, request)) == tuning_json(first)


def test_gate_that_can_not_be_met_ends_with_status_1_and_the_nearest_miss(
    store: Store, suite: str, tmp_path: Path
) -> None:
    options = {"--runtime": "onnxruntime", "--max-size": "1kB", "--suite": suite, "--images": str(IMAGES)}
    options |= {"--store": str(store.root), "--out": str(tmp_path / "out"), "--max-cider-drop": "90%"}
    arguments = ["tiny-merge", *(part for pair in options.items() for part in pair)]
    done = CliRunner().invoke(app, ["tune", *arguments])
    assert done.exit_code == 1, done.output
    said = " ".join(done.output.split())
    assert "Nothing passes. Nearest miss: tiny-merge.onnx." in said
    assert "The smallest that keeps the captions:" in said
    table = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert table["winner"] is None
    smallest = min(table["trials"], key=lambda found: found["size_bytes"])
    assert table["nearest_miss"] == smallest["precision"]
    assert not (tmp_path / "out" / SUITE_FILE).exists()


@pytest.fixture(scope="module")
def planted(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """A captioner that says something, its table of words spoilt for INT8: the row of PAD, never read, is huge.

    A table has one scale in ONNX, so every other word becomes zero; in fp32 nothing changes.
    """
    spec = dataclasses.replace(tiny_spec("merge"), epochs=10, patience=10, learning_rate=1e-2)
    spoken = train(store, spec, open_dataset("scenes", None, TINY_SCENES | {"train": 96}), cider_mean)
    captioner = load_captioner(spoken.path)
    table = captioner.decoder.step.get_layer("embedding")
    values = table.get_weights()[0]
    values[PAD] = 1e5
    table.set_weights([values])
    folder = tmp_path_factory.mktemp("planted")
    save_captioner(captioner, folder)
    return adopt(store, folder)


def test_layer_that_quantizes_terribly_is_found_and_left_in_float(
    store: Store, planted: Entry, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # INT4 in blocks has a scale for each row and would get round it.
    monkeypatch.setattr("bench.tuning_search.OTHER_DECODERS", ())
    tuning = tune(store, Request(str(planted.path), "onnxruntime", Gate(0.5), suite, images=3 * IMAGES))
    assert tuning.winner is not None
    assert tuning.winner.recipe.decoder.float_layers == ("embedding",)
    assert not tuning.winner.recipe.encoder.float_layers
    (revert,) = (found for found in tuning.reverts if found.layer == "embedding")
    assert snr_db(revert.noise_float) > snr_db(revert.noise_int8) + 3
    (reason,) = tuning.reasons
    assert "dB with it in INT8" in reason.text
    assert "the 95 % bound of CIDEr with it in INT8 is -" in reason.text
    assert reason.text in text_of(tuning)
    spoilt = next(found for found in tuning.trials if found.what == "static INT8")
    assert spoilt.verdict is Verdict.LOSES_QUALITY


@pytest.mark.parametrize(("runtime", "format_"), [("onnxruntime", Format.ONNX), ("tflite", Format.TFLITE)])
def test_layers_are_ordered_by_the_noise_that_they_take_away(
    build: Callable[[Recipe], Artifact],
    captioner: Callable[[str], Captioner],
    dataset: Dataset,
    runtime: str,
    format_: Format,
    tmp_path: Path,
) -> None:
    encoder, decoder = parse_precisions("int8_static", format_)
    base = Recipe("tiny-merge", format_, encoder, decoder)
    calibration = record_calibration(captioner("merge"), dataset, CalibrationPlan(8))
    variants = {
        Half(graph.name): Variants(format_, graph, calibration, tmp_path)
        for graph in deployable_graphs(captioner("merge"), Graph.STEP)
    }
    images = [(image.id, dataset.read(image.id)) for image in dataset.images(Split.VALIDATION)]
    probe = Probe(build(Recipe("tiny-merge", format_)), find_runtime(runtime), images)
    order = LayerOrder(probe, variants, base, build(base))
    layers = [(half, layer) for half, of in variants.items() for layer in of.layers]
    assert len(order) == len(layers)
    assert order.recipe([]) == base
    reverts = order.first(len(order))
    assert sorted((revert.half, revert.layer) for revert in reverts) == sorted(layers)
    assert sum(revert.added_bytes for revert in reverts) > 0
    last = {half: [r for r in reverts if r.half is half][-1] for half in Half}
    first = {half: next(r for r in reverts if r.half is half) for half in Half}
    assert all(last[half].noise_float < first[half].noise_int8 for half in Half)
    assert {order.recipe(reverts).encoder.precision, order.recipe(reverts).decoder.precision} == {Precision.FP16}
    # One layer in float takes effect in the artifact that is built of it, too.
    assert build(order.recipe(reverts[:1])).size_bytes["total"] > build(base).size_bytes["total"]
