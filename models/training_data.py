"""What a training reads: arrays of images by split, captions as ids, and an epoch's batches."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.datasets.base import CaptionedImage, Dataset, Split
from models.features import cached_features
from models.files import content_key
from models.keras import tensorflow
from models.spec import CaptionerSpec, EncoderTraining
from models.vocabulary import pad_captions

Pair = tuple[int, int]  # (image, which of its captions)

# Batches are cut from this many shuffled batches sorted by length, so that little is padding.
BATCHES_PER_BUCKET = 20


@dataclass(frozen=True)
class TrainingData:
    """Images of two splits as arrays (raw features, or pixels when the encoder learns too)."""

    train_inputs: NDArray[Any]
    train_captions: list[list[list[int]]]  # ids by image and reference
    validation_inputs: NDArray[Any]
    validation: Sequence[CaptionedImage]


def training_data(
    spec: CaptionerSpec,
    captioner: Captioner,
    dataset: Dataset,
    cache: Path,
    *,
    splits: Sequence[Split] = (Split.TRAIN, Split.VALIDATION),
) -> TrainingData:
    """Inputs and captions of the training and the validation split, as `spec` trains on them.

    The inputs of a split that is not in `splits` are left empty.
    """
    train, validation = dataset.images(Split.TRAIN), dataset.images(Split.VALIDATION)
    # The vocabulary's END must fit behind the longest caption kept.
    ids = [[captioner.vocabulary.encode(text)[: spec.max_length + 1] for text in i.references] for i in train]
    arrays = [
        training_inputs(spec, captioner, dataset, split, cache) if split in splits else np.zeros(0, np.float16)
        for split in (Split.TRAIN, Split.VALIDATION)
    ]
    return TrainingData(arrays[0], ids, arrays[1], validation)


def training_inputs(
    spec: CaptionerSpec, captioner: Captioner, dataset: Dataset, split: Split, cache: Path
) -> NDArray[np.float16]:
    """What the trainable model reads, of every image of a split: raw features, or pixels."""
    images = [image.id for image in dataset.images(split)]
    contract = captioner.preprocessing
    if spec.encoder_training is EncoderTraining.TRAINED:
        key = content_key("pixels", dataset.fingerprint, split, contract.to_json())
        return cached_features(cache / f"{key}.npy", dataset, images, contract, lambda pixels: pixels)
    weights = encoder_fingerprint(captioner.encoder)
    key = content_key("features", dataset.fingerprint, split, contract.to_json(), captioner.encoder.name, weights)
    predict = tensorflow().function(captioner.encoder)
    return cached_features(
        cache / f"{key}.npy", dataset, images, contract, lambda pixels: predict(pixels, training=False).numpy()
    )


def encoder_fingerprint(encoder: Any) -> str:
    """Hex SHA-256 over the encoder's weights."""
    digest = hashlib.sha256()
    for weight in encoder.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def epoch_batches(
    captions: Sequence[Sequence[Sequence[int]]], spec: CaptionerSpec, epoch: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int32]]]:
    """(row of each caption's image, padded ids) by batch: `captions_per_epoch` of each image, in random order."""
    random = np.random.default_rng([spec.seed, epoch])
    pairs = [
        (image, int(caption))
        for image, references in enumerate(captions)
        for caption in random.permutation(len(references))[: spec.captions_per_epoch]
    ]
    if spec.encoder_training is EncoderTraining.TRAINED:
        batches = _batches_by_image(pairs, spec.batch, random)
    else:
        batches = _batches_by_length(pairs, captions, spec.batch, random)
    for index in random.permutation(len(batches)):
        ids = [captions[image][caption] for image, caption in batches[index]]
        yield np.array([image for image, _ in batches[index]]), pad_captions(ids, max(map(len, ids)))


def _batches_by_image(pairs: Sequence[Pair], size: int, random: np.random.Generator) -> list[list[Pair]]:
    """`size` images with all their captions: the encoder is what costs."""
    by_image: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_image.setdefault(pair[0], []).append(pair)
    order = random.permutation(list(by_image))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    return [[pair for image in group for pair in by_image[int(image)]] for group in groups]


def _batches_by_length(
    pairs: Sequence[Pair], captions: Sequence[Sequence[Sequence[int]]], size: int, random: np.random.Generator
) -> list[list[Pair]]:
    """`size` captions of similar length, so that little is padding."""
    order = random.permutation(len(pairs))
    bucket = size * BATCHES_PER_BUCKET
    batches = []
    for start in range(0, len(order), bucket):
        chosen = [pairs[i] for i in order[start : start + bucket]]
        chosen.sort(key=lambda pair: len(captions[pair[0]][pair[1]]))
        batches += [chosen[i : i + size] for i in range(0, len(chosen), size)]
    return batches
