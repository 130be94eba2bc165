"""Trains a captioner from a spec: vocabulary, fresh layers, and the fit."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.captioner import Captioner
from models.checkpoint import Checkpoint
from models.datasets.base import Dataset, Split
from models.decoders import DecoderConfig, build_decoder, decoder_entry
from models.encoders import build_encoder, encoder_entry
from models.errors import DataError
from models.fitting import Score, fit
from models.keras import keras
from models.spec import CaptionerSpec
from models.training_data import training_data
from models.vocabulary import Vocabulary


def train_captioner(spec: CaptionerSpec, dataset: Dataset, *, work: Path, cache: Path, score: Score) -> Captioner:
    """Train `spec` on `dataset`; `work` keeps the checkpoints of this training, `cache` features of any."""
    keras().utils.set_random_seed(spec.seed)
    captioner = _fresh_captioner(spec, dataset)
    data = training_data(spec, captioner, dataset, cache)
    fitted = fit(captioner, data, spec, work=work, score=score)
    return replace(captioner, card=_card(spec, dataset, captioner, fitted.checkpoint))


def _fresh_captioner(spec: CaptionerSpec, dataset: Dataset) -> Captioner:
    sentences = [text for image in dataset.images(Split.TRAIN) for text in image.references]
    vocabulary = Vocabulary.build(sentences, minimum_count=spec.minimum_count)
    if len(vocabulary) < 8:
        raise DataError(
            f"only {len(vocabulary) - 4} words occur at least {spec.minimum_count} times in {len(sentences)} training "
            "captions; give more captions or lower `minimum_count`."
        )
    encoder = build_encoder(spec.encoder, decoder_entry(spec.decoder).feature_kind, weights=spec.weights)
    config = DecoderConfig(
        spec.decoder,
        tuple(encoder.output_shape[1:]),
        len(vocabulary),
        spec.embedding,
        spec.units,
        spec.attention,
        spec.dropout,
    )
    contract = encoder_entry(spec.encoder).preprocessing
    return Captioner(spec.name, encoder, build_decoder(config), config, vocabulary, contract, spec.max_length, {})


def _card(spec: CaptionerSpec, dataset: Dataset, captioner: Captioner, checkpoint: Checkpoint) -> dict[str, Any]:
    """Facts about the training for the reader of a report."""
    note = "random encoder weights: size and time only" if spec.sees_nothing else ""
    return {
        "encoder": spec.encoder,
        "decoder": spec.decoder,
        "dataset": dataset.name,
        "spec": dataclasses.asdict(spec),
        "history": list(checkpoint.history),
        "vocabulary_size": captioner.config.vocabulary_size,
        "validation_cider": checkpoint.best_cider,
        "epochs": checkpoint.epoch,
        "note": note,
    }
