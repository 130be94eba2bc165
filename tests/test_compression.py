"""Every technique on a real tiny captioner: what it reached, that captions and graphs still agree, what it refuses."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.quality import cider_mean
from convert.store import Entry
from models.captioner import Captioner, caption_features, load_captioner, save_captioner
from models.compression.base import Ask, Context, Scope
from models.compression.batch_norm import fold_batch_norms
from models.compression.chain import ScopedAsk, parse_technique
from models.compression.clustering import shared_values
from models.compression.compress import apply_technique, compressions, spec_of
from models.compression.constraints import is_clustered, is_sparse, kept_structure
from models.compression.finetuning import dense_teacher
from models.compression.qat import quantized_layers_of
from models.compression.registry import TECHNIQUES
from models.compression.weights import Weight, all_weights, choose_weights
from models.datasets import Dataset
from models.decoding import Search
from models.errors import CompressionError, ConfigError, TrainingError
from models.spec import EncoderTraining

Compress = Callable[..., Captioner]
PCQAT = "prune80(epochs=4)+cluster16(epochs=1)+qat(epochs=1)"  # shared with test_compressed_files.py


@pytest.fixture
def compress(
    dataset: Dataset,
    captioner: Callable[[str], Captioner],
    compressed: Callable[[str, str], Entry],
    tmp_path: Path,
) -> Compress:
    """Apply a chain to the tiny captioner of a decoder; `changed` fields of its spec are replaced."""

    def compress(chain: str, decoder: str = "merge", **changed: object) -> Captioner:
        if not changed:
            return load_captioner(compressed(chain, decoder).path)
        found = captioner(decoder)
        spec = replace(spec_of(found), **changed)  # type: ignore[arg-type]
        for scoped in parse_technique(chain, TECHNIQUES):
            context = Context(dataset, tmp_path / str(scoped), tmp_path / "cache", cider_mean, spec)
            found = apply_technique(found, scoped, context)
        return found

    return compress


def by_layer(captioner: Captioner) -> dict[str, Weight]:
    return {f"{weight.layer}/{weight.name}": weight for weight in all_weights(captioner)}


def zeros(weight: Weight) -> float:
    return weight.reached().zeros


def test_pruning_reaches_its_sparsity_in_every_layer(compress: Compress) -> None:
    pruned = compress("prune80(epochs=4)")
    weights = choose_weights(pruned, Ask("prune", 80), Scope.CAPTIONER)
    assert len(weights) > 5
    for weight in weights:
        assert zeros(weight) == pytest.approx(0.8, abs=2 / weight.values.size), weight.layer
    (record,) = compressions(pruned.card)
    assert record["technique"] == "prune80(epochs=4)"
    assert record["epochs"] == 4
    assert {reached["zeros"] > 0.79 for reached in record["reached"]} == {True}
    assert record["cider_compressed"] is not None


def test_step_and_sequence_share_the_pruned_weights(compress: Compress) -> None:
    pruned = compress("none/prune80(epochs=4)", "merge")
    raw = np.random.default_rng(0).random((2, *pruned.config.raw_shape), np.float32)
    tokens = np.array([[1, 5, 6], [1, 7, 8]], np.int32)
    whole = pruned.decoder.sequence([raw, tokens]).numpy()
    from models.captioner import initial_inputs, keras_step

    prepared = {name: value.numpy() for name, value in pruned.decoder.prepare(raw).items()}
    inputs = dict(initial_inputs(prepared, pruned.config.units))
    for place in range(3):
        logits, state = keras_step(pruned.decoder)(tokens[:, place], inputs)
        inputs |= state
        np.testing.assert_allclose(logits, whole[:, place], atol=1e-4)  # fp32, summed in another order


def test_constant_schedule_prunes_in_a_single_step(compress: Compress) -> None:
    pruned = compress("none/prune90(schedule=constant,epochs=1,layers=lstm)")
    weights = by_layer(pruned)
    assert zeros(weights["lstm/kernel"]) == pytest.approx(0.9, abs=0.002)
    assert zeros(weights["lstm/recurrent_kernel"]) == pytest.approx(0.9, abs=0.002)
    assert zeros(weights["words/kernel"]) < 0.05


def test_decoder_technique_leaves_the_encoder_alone(compress: Compress, captioner: Callable[[str], Captioner]) -> None:
    pruned, dense = compress("none/prune80(epochs=4)", "merge"), captioner("merge")
    for ours, theirs in zip(pruned.encoder.get_weights(), dense.encoder.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_two_of_four_holds_along_the_inputs(compress: Compress) -> None:
    sparse = compress("two_of_four(epochs=1)")
    for name in ("hidden/kernel", "lstm/kernel", "conv3/kernel"):
        kernel = by_layer(sparse)[name].values
        rows = np.moveaxis(kernel, -2, -1).reshape(-1, 4)  # four consecutive inputs of one output
        assert ((rows == 0).sum(axis=1) >= 2).all(), name


def test_clusters_hold_after_folding_batch_norms(compress: Compress) -> None:
    clustered = compress("cluster16(epochs=1)")
    for weight in choose_weights(clustered, Ask("cluster", 16), Scope.CAPTIONER):
        assert weight.reached().values <= 16
    assert not [layer for layer in clustered.encoder.layers if "Batch" in type(layer).__name__]


def test_clustering_keeps_the_zeros_of_pruning(compress: Compress) -> None:
    small = compress("prune80(epochs=4)+cluster16(epochs=1)")
    for weight in choose_weights(small, Ask("cluster", 16), Scope.CAPTIONER):
        assert zeros(weight) >= 0.8 - 2 / weight.values.size
        assert weight.reached().values <= 16
    assert [record["technique"] for record in compressions(small.card)] == ["prune80(epochs=4)", "cluster16(epochs=1)"]


def test_dsd_ends_dense(compress: Compress) -> None:
    dense = compress("none/dsd50(epochs=3)")
    # A unit that ReLU silenced while half of the weights were zero has no gradient to come back with.
    assert zeros(by_layer(dense)["hidden/kernel"]) < 0.25
    assert zeros(by_layer(dense)["lstm/recurrent_kernel"]) < 0.05
    (record,) = compressions(dense.card)
    assert record["epochs"] == 6
    assert "sparse_cider" in record["notes"]


@pytest.mark.parametrize("decoder", ["attention", "merge"])
def test_tied_captioner_has_fewer_weights_and_says_the_same_at_first(compress: Compress, decoder: str) -> None:
    tied = compress("tie(epochs=1)", decoder)
    (record,) = compressions(tied.card)
    assert record["parameters"] != record["parameters_before"]
    assert tied.decoder.sequence.get_layer("words").weights[0].shape == (len(tied.vocabulary),)
    # 59 words fit in a table of 16 columns only nearly
    assert math.isfinite(record["cider_compressed"])


def test_tying_is_exact_when_the_table_is_wide_enough() -> None:
    from models.compression.weight_tying import _split

    kernel = np.random.default_rng(0).normal(size=(24, 10)).astype(np.float32)
    projection, table = _split(kernel, 16)
    np.testing.assert_allclose(projection @ table.T, kernel, atol=1e-5)  # fp32


def test_vocabulary_keeps_the_frequent_words(compress: Compress, captioner: Callable[[str], Captioner]) -> None:
    small, dense = compress("vocabulary50(epochs=1)"), captioner("merge")
    assert small.vocabulary.words == dense.vocabulary.words[: len(small.vocabulary)]
    assert len(small.vocabulary) == 4 + round((len(dense.vocabulary) - 4) / 2)
    assert small.config.vocabulary_size == len(small.vocabulary)
    raw = np.zeros((1, *small.config.raw_shape), np.float32)
    assert isinstance(caption_features(small, raw, search=Search.BEAM3)[0], str)


def test_more_training_is_a_control_that_compresses_nothing(compress: Compress) -> None:
    (record,) = compressions(compress("none/train_on(epochs=1)").card)
    assert record["parameters"] == record["parameters_before"]


def test_frozen_encoder_learns_its_own_features_again(compress: Compress) -> None:
    pruned = compress("prune50(images=48,epochs=3)/none", encoder_training=EncoderTraining.FROZEN)
    weights = choose_weights(pruned, Ask("prune", 50), Scope.ENCODER)
    assert all(zeros(weight) == pytest.approx(0.5, abs=2 / weight.values.size) for weight in weights)
    (record,) = compressions(pruned.card)
    assert record["scope"] == "encoder"
    assert record["steps"] == 9


def test_teacher_is_the_captioner_as_it_was(captioner: Callable[[str], Captioner]) -> None:
    learner = captioner("attention")
    assert dense_teacher(learner, 0.0) is None
    teacher = dense_teacher(learner, 0.9)
    assert teacher is not None
    assert teacher.share == 0.9
    pixels = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    tokens = np.array([[1, 5, 6], [1, 7, 8]], np.int32)

    def words(of: Captioner) -> np.ndarray[Any, Any]:
        logits: np.ndarray[Any, Any] = of.decoder.sequence([of.encoder(pixels), tokens]).numpy()
        return logits

    before = words(learner)
    for weight in all_weights(learner):
        weight.variable.assign(weight.values * 0)
    np.testing.assert_array_equal(words(teacher.captioner), before)
    assert np.abs(words(learner) - before).max() > 0


def test_what_is_pruned_can_learn_from_the_dense_captioner(compress: Compress) -> None:
    pruned = compress("none/prune80(epochs=4,share=0.9,dropout=0.05)", "attention")
    drops = [layer.rate for layer in pruned.decoder.sequence.layers if "drop" in layer.name]
    assert drops == [pruned.config.dropout] * 3  # only while it learned
    for weight in choose_weights(pruned, Ask("prune", 80), Scope.DECODER):
        assert zeros(weight) == pytest.approx(0.8, abs=2 / weight.values.size), weight.layer


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            "prune80(layers=lstmm)",
            "unknown layer of the captioner .* 'lstmm'. Did you mean",
        ),
        ("none/prune80(layers=conv1)", "unknown layer of the decoder"),
        ("prune80(epochs=1)", "fine-tuning steps are too few"),
        ("prune80(schedule=linear)", "schedule must be polynomial or constant"),
        ("prune80(epochs=many)", "epochs must be a number; received 'many'"),
        ("prune80(rate=-1)", "rate must be above 0"),
        ("two_of_four(layers=conv1)", "divides by 4 are needed; received conv1"),
        ("cluster200(layers=energy)", "has only 16 weights"),
        ("vocabulary5", "fewer than 8"),
        ("student10", "fewer than 8 of 32 units"),
        ("distill_features50(encoder=vgg61)/none", "Did you mean 'vgg16'"),
    ],
)
def test_what_cant_work_is_refused_before_it_trains(
    compress: Compress, monkeypatch: pytest.MonkeyPatch, chain: str, message: str
) -> None:
    def trained(*arguments: object, **options: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr("models.compression.finetuning.fit", trained)
    with pytest.raises(ConfigError, match=message):
        compress(chain, "attention")


@pytest.mark.parametrize("chain", ["dsd50/none", "train_on/none"])
def test_frozen_encoder_is_not_trained_without_captions(compress: Compress, chain: str) -> None:
    with pytest.raises(ConfigError, match="ask for it on the decoder, 'none/"):
        compress(chain, encoder_training=EncoderTraining.FROZEN)


def test_quantized_frozen_encoder_gives_the_dense_features(
    compress: Compress, captioner: Callable[[str], Captioner]
) -> None:
    quantized = compress("qat(images=48,epochs=1)/none", encoder_training=EncoderTraining.FROZEN)
    pixels = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    wanted = captioner("merge").encoder(pixels).numpy()
    error = np.linalg.norm(quantized.encoder(pixels).numpy() - wanted) / np.linalg.norm(wanted)
    assert error < 0.2  # 8 bits through five layers, on noise and not on scenes


def test_loss_that_is_no_number_stops_the_fine_tuning(
    dataset: Dataset, captioner: Callable[[str], Captioner], tmp_path: Path
) -> None:
    broken = captioner("merge")
    broken.decoder.sequence.get_layer("hidden").bias.assign(np.full(32, np.nan, np.float32))
    (scoped,) = parse_technique("none/train_on(epochs=1)", TECHNIQUES)
    with pytest.raises(TrainingError, match="the loss became nan at step 1 of epoch 1; lower the learning rate"):
        apply_technique(broken, scoped, Context(dataset, tmp_path, tmp_path, cider_mean, spec_of(broken)))


def test_missed_sparsity_fails_loudly(compress: Compress, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TF-MOT's default of every 100 steps does on a short run."""
    monkeypatch.setattr("models.compression.pruning.Pruning.apply", lambda self, step: None)
    with pytest.raises(CompressionError, match=r"did not reach 81% zeros: conv2/kernel 0\.0%"):
        compress("prune81(epochs=4)")


def test_killed_compression_goes_on_where_it_was(
    dataset: Dataset, captioner: Callable[[str], Captioner], tmp_path: Path
) -> None:
    (scoped,) = parse_technique("none/prune80(epochs=4)", TECHNIQUES)

    def run(work: Path, score: Callable[..., float]) -> Captioner:
        dense = captioner("merge")
        return apply_technique(dense, scoped, Context(dataset, work, tmp_path / "cache", score, spec_of(dense)))

    calls = []

    def die(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
        calls.append(captions)
        if len(calls) == 5:  # before, compressed, and two epochs are scored
            raise KeyboardInterrupt
        return float(len(calls))

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", die)
    scored = []

    def count(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> float:
        scored.append(captions)
        return float(10 + len(scored))

    resumed = run(tmp_path / "cut", count)
    assert len(scored) == 3 + 2  # before, compressed, two epochs, after
    whole = run(tmp_path / "whole", lambda captions, references: float(next(rising)))
    for ours, theirs in zip(*(c.decoder.sequence.get_weights() for c in (resumed, whole)), strict=True):
        assert np.array_equal(ours == 0, theirs == 0)


rising = iter(range(1, 100))


def test_structure_is_recognised_and_kept() -> None:
    from models.keras import tensorflow

    random = np.random.default_rng(0)
    values = random.normal(size=(32, 64)).astype(np.float32)
    sparse = np.where(random.random((32, 64)) < 0.7, 0, values)
    clustered = shared_values(values, 16, keep_zeros=False)
    both = shared_values(sparse.astype(np.float32), 16, keep_zeros=True)
    weights = [
        Weight(Scope.DECODER, name, "dense", "kernel", tensorflow().Variable(array.astype(np.float32)))
        for name, array in (("dense", values), ("sparse", sparse), ("clustered", clustered), ("both", both))
    ]
    assert [is_sparse(weight) for weight in weights] == [False, True, False, True]
    assert [is_clustered(weight) for weight in weights] == [False, False, True, True]
    kept = kept_structure(weights)
    assert len(kept) == 3
    for weight in weights:
        weight.variable.assign_add(random.normal(size=(32, 64)).astype(np.float32) * 0.01)
    for constraint in kept:
        constraint.apply(0)
    assert np.array_equal(weights[1].values == 0, sparse == 0)
    assert weights[2].reached().values == 16
    assert weights[3].reached().values == 16
    assert np.array_equal(weights[3].values == 0, sparse == 0)


def test_shared_values_are_the_nearest_centroids() -> None:
    values = np.concatenate([np.full(50, -1.0), np.full(50, 0.5), np.full(50, 3.0)]).astype(np.float32)
    values += np.random.default_rng(0).normal(scale=0.01, size=150).astype(np.float32)
    shared = shared_values(values, 3, keep_zeros=False)
    assert len(np.unique(shared)) == 3
    np.testing.assert_allclose(np.unique(shared), [-1.0, 0.5, 3.0], atol=0.01)


@pytest.mark.parametrize("name", ["tiny", "tiny_resnet", "mobilenet_v2"])
def test_folded_batch_norms_change_nothing(name: str) -> None:
    from models.encoders import FeatureKind, build_encoder, encoder_entry

    encoder = build_encoder(name, FeatureKind.VECTOR, weights="random")
    random = np.random.default_rng(0)
    for weight in encoder.weights:
        if "norm" in weight.name.lower() or "bn" in weight.name.lower():
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    contract = encoder_entry(name).preprocessing
    pixels = random.random((2, contract.height, contract.width, 3), np.float32)
    folded = fold_batch_norms(encoder)
    before, after = encoder(pixels).numpy(), folded(pixels).numpy()
    np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())  # fp32 through 50 layers
    assert sum("BatchNorm" in type(layer).__name__ for layer in folded.layers) == 0


def test_every_scope_of_every_technique_can_be_asked_for() -> None:
    for name, technique in TECHNIQUES.items():
        assert technique.scopes
        assert technique.summary
        amount = technique.amounts[-1] if technique.amounts else None
        assert str(ScopedAsk(technique.scopes[0], Ask(name, amount)))


@pytest.mark.parametrize(("chain", "decoder"), [(PCQAT, "merge"), ("none/qat(epochs=1)", "attention")])
def test_quantized_captioner_is_saved_and_loaded(compress: Compress, chain: str, decoder: str, tmp_path: Path) -> None:
    quantized = compress(chain, decoder)
    folder = tmp_path / "quantized"
    folder.mkdir()
    save_captioner(quantized, folder)
    loaded = load_captioner(folder)
    pixels = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    raw = quantized.encoder(pixels)
    np.testing.assert_array_equal(loaded.encoder(pixels), raw)
    tokens = np.array([[1, 5, 6], [1, 7, 8]], np.int32)
    np.testing.assert_array_equal(loaded.decoder.sequence([raw, tokens]), quantized.decoder.sequence([raw, tokens]))


def test_quantization_keeps_zeros_and_clusters(compress: Compress) -> None:
    """TF-MOT calls it PCQAT."""
    small = compress(PCQAT)
    weights = [weight for weight in all_weights(small) if weight.values.size >= 1024]
    assert len(weights) > 5
    for weight in weights:
        assert zeros(weight) >= 0.8 - 2 / weight.values.size, weight.layer
        assert weight.reached().values <= 16, weight.layer


@pytest.mark.parametrize(
    ("scope", "arithmetic", "prepare"),
    [(Scope.DECODER, "int8_dense", "float"), (Scope.ENCODER, "float", "int8"), (Scope.CAPTIONER, "int8_dense", "int8")],
)
def test_quantizing_one_half_leaves_the_other_in_float(
    captioner: Callable[[str], Captioner], scope: Scope, arithmetic: str, prepare: str
) -> None:
    ask = Ask("qat", options=(("layers", "dense"),))
    config = quantized_layers_of(captioner("merge"), ask, scope).config
    assert (config.arithmetic, config.prepare_arithmetic) == (arithmetic, prepare)


def test_slim_captioner_has_fewer_multiply_adds(compress: Compress) -> None:
    slim = compress("slim50(epochs=1)")
    (record,) = compressions(slim.card)
    for part in ("encoder", "step"):
        assert record["multiply_adds"][part] <= 0.5 * record["multiply_adds_before"][part]
    assert record["parameters"] < 0.7 * record["parameters_before"]


@pytest.mark.parametrize("chain", ["distill_words50", "distill_captions50"])
def test_student_is_half_as_wide(compress: Compress, chain: str) -> None:
    student = compress(f"{chain}(epochs=1)", "merge")
    assert (student.config.units, student.config.embedding) == (16, 8)
    (record,) = compressions(student.card)
    assert record["cider_compressed"] is None
    assert record["multiply_adds"]["encoder"] < 0.3 * record["multiply_adds_before"]["encoder"]


def test_smaller_encoder_learns_the_teachers_features(
    compress: Compress, captioner: Callable[[str], Captioner], dataset: Dataset
) -> None:
    from models.datasets import Split
    from models.preprocessing import preprocess

    teacher = captioner("merge")
    names = [image.id for image in dataset.images(Split.TRAIN)[:16]]
    pixels = np.stack([preprocess(dataset.read(name), teacher.preprocessing) for name in names])
    wanted = teacher.encoder(pixels).numpy()
    errors = []
    for epochs in (1, 12):
        student = compress(f"distill_features60(epochs={epochs})/none", "merge")
        errors.append(float(np.mean((student.encoder(pixels).numpy() - wanted) ** 2)))
    assert errors[1] < errors[0]


def test_student_of_another_architecture_gives_the_teachers_features(compress: Compress) -> None:
    student = compress("distill_features100(epochs=1,encoder=tiny_resnet,weights=random)/none", "merge")
    assert student.encoder.output_shape == (None, 96)
    assert student.card["encoder"] == "tiny_resnet"
