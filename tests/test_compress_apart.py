"""Halves compressed apart: joined without training, shared with other chains, refused where they learned together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_spec

from bench.quality import cider_mean
from bench.shared_encoder import encoder_key
from convert.artifact import load_artifact
from convert.build import ArtifactBuilder, train
from convert.compress import compress
from convert.recipe import Format, Recipe
from convert.scheme import FLOAT
from convert.store import Entry, Store
from models.captioner import load_captioner
from models.compression.base import Ask, Context, Scope
from models.compression.compress import compressions
from models.compression.finetuning import FineTuning, planned_steps
from models.compression.pruning import MINIMUM_UPDATES, RAMP
from models.datasets import Dataset, open_dataset
from models.errors import ConfigError
from models.files import sha256_of
from models.spec import EncoderTraining

ENCODER, DECODER = "prune50(images=48,epochs=3)", "prune80(epochs=4)"


@pytest.fixture(scope="module")
def frozen(store: Store, dataset: Dataset) -> Entry:
    """A tiny captioner whose decoder learned on the features of a fixed encoder."""
    spec = replace(tiny_spec("merge"), name="tiny-frozen", encoder_training=EncoderTraining.FROZEN)
    return train(store, spec, dataset, cider_mean)


@pytest.fixture(scope="module")
def compress_frozen(store: Store, frozen: Entry, dataset: Dataset) -> Callable[[str], Entry]:
    """That captioner after a chain."""
    return lambda chain: compress(store, frozen, chain, dataset, cider_mean)


def test_joined_halves_are_those_that_were_compressed_apart(compress_frozen: Callable[[str], Entry]) -> None:
    joined = load_captioner(compress_frozen(f"{ENCODER}//{DECODER}").path)
    pruned_encoder = load_captioner(compress_frozen(f"{ENCODER}/none").path).encoder
    pruned_decoder = load_captioner(compress_frozen(f"none/{DECODER}").path).decoder.sequence
    for mine, theirs in (
        (joined.encoder.get_weights(), pruned_encoder.get_weights()),
        (joined.decoder.sequence.get_weights(), pruned_decoder.get_weights()),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert [(c["technique"], c["scope"]) for c in compressions(joined.card)] == [
        ("prune50(epochs=3,images=48)", "encoder"),
        ("prune80(epochs=4)", "decoder"),
    ]
    assert 0 <= joined.card["validation_cider"] <= 10


def test_halves_compressed_before_are_not_compressed_again(compress_frozen: Callable[[str], Entry]) -> None:
    first = compress_frozen(f"{ENCODER}//{DECODER}")
    assert compress_frozen(f"none/{DECODER}").reused
    assert compress_frozen(f"{ENCODER} // {DECODER}").path == first.path


@pytest.mark.parametrize("technique", ["prune80(epochs=4,layers=lstm|words,train=step)", "qat(epochs=1,train=step)"])
def test_what_ships_with_the_encoder_stays_where_the_step_alone_learns(
    compress_frozen: Callable[[str], Entry], frozen: Entry, technique: str
) -> None:
    dense = load_captioner(frozen.path).decoder
    learned = load_captioner(compress_frozen(f"none/{technique}").path).decoder
    for mine, theirs in zip(learned.prepare.get_weights(), dense.prepare.get_weights(), strict=True):
        assert np.array_equal(mine, theirs)
    hidden = [decoder.sequence.get_layer("hidden").get_weights()[0] for decoder in (learned, dense)]
    assert not np.array_equal(*hidden)


@pytest.mark.parametrize("format_", [Format.TFLITE, Format.ONNX])
def test_decoders_that_differ_ship_with_the_same_encoder_bytes(
    store: Store, frozen: Entry, dataset: Dataset, compress_frozen: Callable[[str], Entry], format_: Format
) -> None:
    technique = "prune80(epochs=4,layers=lstm|words,train=step)"
    entries = {"none": frozen, f"none/{technique}": compress_frozen(f"none/{technique}")}
    artifacts = []
    for name, entry in entries.items():
        with ArtifactBuilder(store, entry, dataset) as builder:
            recipe = Recipe("tiny-frozen", format_, FLOAT, FLOAT, technique=name)
            artifacts.append(load_artifact(builder.build(recipe).path))
    assert len({encoder_key(artifact) for artifact in artifacts}) == 1
    assert len({sha256_of(artifact.graphs["step"]) for artifact in artifacts}) == 2


def test_unknown_choice_of_what_learns_is_refused(compress_frozen: Callable[[str], Entry]) -> None:
    with pytest.raises(ConfigError, match="train must be all or step; received 'steps'"):
        compress_frozen("none/prune80(train=steps)")


def test_halves_that_learned_together_are_not_parted(
    store: Store, trained: Callable[[str], Entry], dataset: Dataset
) -> None:
    with pytest.raises(ConfigError, match=r"needs a frozen encoder; .* Write 'prune50/prune80'"):
        compress(store, trained("merge"), "prune50//prune80", dataset, cider_mean)


def test_encoder_without_sight_learns_for_as_long_as_a_schedule_needs(tmp_path: Path) -> None:
    spec = replace(tiny_spec("merge"), encoder_training=EncoderTraining.FROZEN)
    assert spec.sees_nothing
    context = Context(open_dataset("scenes", None, {"train": 400}), tmp_path, tmp_path, cider_mean, spec)
    ask = Ask("prune", 50)
    tuning = FineTuning.of(ask, share=0.5, at_least=6, rate=0.5)
    assert planned_steps(ask, Scope.ENCODER, context, tuning) == MINIMUM_UPDATES / RAMP
