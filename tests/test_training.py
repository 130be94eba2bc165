"""Training: it learns, it stops, and a killed run goes on where it was."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_spec

from bench.quality import cider_mean
from convert.build import captioner_key
from convert.store import Entry
from models.checkpoint import Checkpoint
from models.datasets import Dataset, open_dataset
from models.errors import DataError
from models.fitting import caption_loss, learning_rate
from models.spec import EncoderTraining
from models.training import train_captioner
from models.training_data import epoch_batches
from models.vocabulary import PAD


def test_loss_falls_while_training(trained: Callable[[str], Entry]) -> None:
    for decoder in ("attention", "merge"):
        history = trained(decoder).facts["card"]["history"]
        assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_training_resumes_where_it_was_killed(dataset: Dataset, tmp_path: Path, averaging: float) -> None:
    """One run of two epochs, and one that dies in the scoring after the first and is started again."""
    spec = replace(tiny_spec("merge"), dropout=0.3, patience=9, weight_averaging=averaging)
    rising = itertools.count(1)
    whole = train_captioner(
        spec, dataset, work=tmp_path / "whole", cache=tmp_path, score=lambda captions, references: float(next(rising))
    )
    calls = []

    def die_at_second(captions: object, references: object) -> float:
        calls.append(captions)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.1 * len(calls)

    with pytest.raises(KeyboardInterrupt):
        train_captioner(spec, dataset, work=tmp_path / "cut", cache=tmp_path, score=die_at_second)
    resumed_calls = []

    def better(captions: object, references: object) -> float:
        resumed_calls.append(captions)
        return 1.0

    captioner = train_captioner(spec, dataset, work=tmp_path / "cut", cache=tmp_path, score=better)
    assert len(resumed_calls) == 1
    for ours, theirs in zip(*(c.decoder.sequence.get_weights() for c in (captioner, whole)), strict=True):
        # The same batches and dropout; threads may sum in another order.
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_frozen_encoder_is_not_changed_and_its_features_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    spec = replace(tiny_spec("attention"), encoder_training=EncoderTraining.FROZEN, epochs=1)
    first = train_captioner(spec, dataset, work=tmp_path / "a", cache=tmp_path / "cache", score=cider_mean)
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert cached
    second = train_captioner(spec, dataset, work=tmp_path / "b", cache=tmp_path / "cache", score=cider_mean)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == cached
    for ours, theirs in zip(first.encoder.get_weights(), second.encoder.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    assert "size and time only" in first.card["note"]


def test_training_stops_when_nothing_gets_better() -> None:
    checkpoint = Checkpoint(5, (), 0.4, 2, [])
    assert checkpoint.is_stale(3)
    assert not checkpoint.is_stale(4)


def test_learning_rate_falls_to_a_tenth() -> None:
    spec = tiny_spec("merge")
    rates = [learning_rate(replace(spec, epochs=5), epoch) for epoch in range(5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(spec.learning_rate)
    assert rates[-1] == pytest.approx(spec.learning_rate / 10)


@pytest.mark.parametrize(("training", "largest"), [(EncoderTraining.FROZEN, 4), (EncoderTraining.TRAINED, 8)])
def test_epoch_shows_the_asked_captions_of_each_image_once(training: EncoderTraining, largest: int) -> None:
    spec = replace(tiny_spec("merge"), captions_per_epoch=2, batch=4, encoder_training=training)
    captions = [[[1, 10 * i + j + 4, 2] for j in range(5)] for i in range(9)]
    rows, words = [], []
    for images, tokens in epoch_batches(captions, spec, epoch=3):
        assert len(images) == len(tokens) <= largest
        rows += images.tolist()
        words += tokens[:, 1].tolist()
    assert sorted(rows) == sorted(list(range(9)) * 2)
    assert len(set(words)) == 18
    assert all(word in captions[row][(word - 4) % 10] for row, word in zip(rows, words, strict=True))


def test_encoder_sees_an_image_once_for_all_its_captions() -> None:
    spec = replace(tiny_spec("merge"), captions_per_epoch=3, batch=2)
    captions = [[[1, 4, 2]] * 3 for _ in range(7)]
    for images, _ in epoch_batches(captions, spec, epoch=0):
        assert len(images) == 3 * len(set(images.tolist())) <= 6


def test_epochs_differ_and_repeat_exactly() -> None:
    spec = tiny_spec("merge")
    captions = [[[1, 4, 2]] * 5 for _ in range(40)]

    def order(epoch: int) -> list[int]:
        return [row for rows, _ in epoch_batches(captions, spec, epoch) for row in rows]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_batches_are_padded_to_their_longest_caption() -> None:
    spec = replace(tiny_spec("merge"), batch=2, encoder_training=EncoderTraining.FROZEN)
    captions = [[[1] + [5] * n + [2]] for n in (1, 8, 1, 8)]
    for _, tokens in epoch_batches(captions, spec, epoch=0):
        assert (tokens[:, -1] != PAD).any()


def test_too_few_words_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower `minimum_count`"):
        train_captioner(
            replace(tiny_spec("merge"), minimum_count=10_000),
            dataset,
            work=tmp_path,
            cache=tmp_path,
            score=cider_mean,
        )


def test_key_changes_with_spec_and_data(dataset: Dataset) -> None:
    spec = tiny_spec("merge")
    other = open_dataset("scenes", None, {"train": 47, "validation": 8, "test": 8})
    keys = {captioner_key(spec, dataset), captioner_key(replace(spec, seed=1), dataset), captioner_key(spec, other)}
    assert len(keys) == 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_cross_entropy_with_smoothed_targets(smoothing: float) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    targets = np.array([[4, 2, PAD], [3, PAD, PAD]], np.int32)
    wanted = np.eye(5)[targets] * (1 - smoothing) + smoothing / 5
    log_shares = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -(wanted * log_shares).sum(axis=-1)[targets != PAD]
    assert float(caption_loss(logits, targets, smoothing)) == pytest.approx(losses.mean(), rel=1e-5)


def test_a_slow_mean_of_weights_moves_little(dataset: Dataset, tmp_path: Path) -> None:
    def moved(averaging: float) -> float:
        spec = replace(tiny_spec("merge"), weight_averaging=averaging, epochs=1)
        kept = train_captioner(spec, dataset, work=tmp_path / str(averaging), cache=tmp_path, score=cider_mean)
        return float(np.abs(kept.decoder.sequence.get_layer("words").bias.numpy()).mean())

    assert 0 < moved(0.999) < moved(0.0) / 10  # biases start from 0
