"""Trains a captioner: masked cross-entropy, validation CIDEr, early stopping, checkpoints that resume.

An epoch's order and dropout depend on the seed and the epoch's number only, so a run that was killed
and resumed sees the same batches as one that was not.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner, sentences_by_image
from models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.datasets.base import CaptionedImage, Dataset, Split
from models.decoders import DecoderConfig, build_decoder, decoder_entry
from models.encoders import build_encoder, encoder_entry
from models.errors import DataError
from models.features import BATCH, cached_features
from models.files import content_key
from models.keras import keras, tensorflow
from models.progress import say, track
from models.spec import CaptionerSpec, EncoderTraining
from models.vocabulary import PAD, Vocabulary, pad_captions

# captions by image id, references by image id -> CIDEr-D; given by the caller, because scoring
# lives in `bench`, to the right of this folder.
Score = Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], float]

# (inputs, row of each caption's image in them, padded ids) -> loss
TrainStep = Callable[[NDArray[Any], NDArray[np.intp], NDArray[np.int32]], Any]
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


def train_captioner(spec: CaptionerSpec, dataset: Dataset, *, work: Path, cache: Path, score: Score) -> Captioner:
    """Train `spec` on `dataset`; `work` keeps the checkpoints of this training, `cache` features of any."""
    keras().utils.set_random_seed(spec.seed)
    captioner = _fresh_captioner(spec, dataset)
    data = _training_data(spec, captioner, dataset, cache)
    model = _trainable_model(spec, captioner)
    optimizer = keras().optimizers.Adam(spec.learning_rate, clipnorm=5.0)
    optimizer.build(model.trainable_variables)
    train_step = _train_step(spec, captioner, model, optimizer)
    path = work / "checkpoint.npz"
    checkpoint = load_checkpoint(path, model, optimizer) or Checkpoint.start(model)
    if checkpoint.epoch:
        say(f"{spec.name}: training resumes after epoch {checkpoint.epoch}")
    while checkpoint.epoch < spec.epochs and not checkpoint.is_stale(spec.patience):
        loss = _train_epoch(spec, checkpoint.epoch, data, optimizer, train_step)
        cider = score(*_validation_captions(spec, captioner, data))
        checkpoint = checkpoint.after_epoch(model, loss=loss, cider=cider)
        save_checkpoint(path, checkpoint, model, optimizer)
        say(f"{spec.name}: epoch {checkpoint.epoch}: loss {loss:.3f}, validation CIDEr {cider:.3f}")
    model.set_weights(checkpoint.best_weights)
    return replace(captioner, card=_card(spec, dataset, captioner, checkpoint))


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


def _training_data(spec: CaptionerSpec, captioner: Captioner, dataset: Dataset, cache: Path) -> TrainingData:
    train, validation = dataset.images(Split.TRAIN), dataset.images(Split.VALIDATION)
    # The vocabulary's END must fit behind the longest caption kept.
    ids = [[captioner.vocabulary.encode(text)[: spec.max_length + 1] for text in i.references] for i in train]
    arrays = [training_inputs(spec, captioner, dataset, split, cache) for split in (Split.TRAIN, Split.VALIDATION)]
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


def _trainable_model(spec: CaptionerSpec, captioner: Captioner) -> Any:
    """[inputs, tokens] -> logits, over all weights that learn."""
    if spec.encoder_training is EncoderTraining.FROZEN:
        return captioner.decoder.sequence
    tokens = keras().layers.Input((None,), dtype="int32", name="tokens")
    image = captioner.encoder.input
    logits = captioner.decoder.sequence([captioner.encoder(image), tokens])
    return keras().Model([image, tokens], logits, name="captioner")


def _train_step(spec: CaptionerSpec, captioner: Captioner, model: Any, optimizer: Any) -> TrainStep:
    """One optimizer step, traced once for batches of any size and length."""
    tf = tensorflow()
    signature = [
        tf.TensorSpec([None, *model.input_shape[0][1:]], tf.float16),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, None], tf.int32),
    ]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def train_step(inputs: Any, image_of_caption: Any, tokens: Any) -> Any:
        targets = tokens[:, 1:]
        with tf.GradientTape() as tape:
            raw = tf.cast(inputs, tf.float32)
            if spec.encoder_training is EncoderTraining.TRAINED:
                raw = captioner.encoder(raw, training=True)
            raw = tf.gather(raw, image_of_caption)
            logits = captioner.decoder.sequence([raw, tokens[:, :-1]], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            real = tf.cast(targets != PAD, tf.float32)
            loss = tf.reduce_sum(losses * real) / tf.reduce_sum(real)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return train_step  # type: ignore[no-any-return]


def _train_epoch(spec: CaptionerSpec, epoch: int, data: TrainingData, optimizer: Any, train_step: TrainStep) -> float:
    """Mean loss of one epoch; order and dropout follow from the seed and the epoch alone."""
    tensorflow().random.set_seed(spec.seed + 1000 * (epoch + 1))
    optimizer.learning_rate.assign(learning_rate(spec, epoch))
    batches = list(epoch_batches(data.train_captions, spec, epoch))
    losses = []
    for rows, tokens in track(batches, f"{spec.name}: epoch {epoch + 1}/{spec.epochs}"):
        # An image is read, and encoded, once for all of its captions in the batch.
        images, image_of_caption = np.unique(rows, return_inverse=True)
        losses.append(float(train_step(data.train_inputs[images], image_of_caption, tokens)))
    return float(np.mean(losses))


def learning_rate(spec: CaptionerSpec, epoch: int) -> float:
    """Half a cosine from the full rate down to a tenth of it at the last epoch."""
    share = 0.5 * (1 + np.cos(np.pi * epoch / max(spec.epochs - 1, 1)))
    return spec.learning_rate * float(0.1 + 0.9 * share)


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


def _validation_captions(
    spec: CaptionerSpec, captioner: Captioner, data: TrainingData
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Greedy captions and references by image id."""
    raw = data.validation_inputs
    if spec.encoder_training is EncoderTraining.TRAINED:
        batches = range(0, len(raw), BATCH)
        pixels = [np.asarray(raw[i : i + BATCH], np.float32) for i in batches]
        raw = np.concatenate([captioner.encoder(p, training=False).numpy() for p in pixels])
    images = [image.id for image in data.validation]
    return sentences_by_image(captioner, images, raw), {i.id: i.references for i in data.validation}


def _card(spec: CaptionerSpec, dataset: Dataset, captioner: Captioner, checkpoint: Checkpoint) -> dict[str, Any]:
    """Facts about the training for the reader of a report."""
    note = "random encoder weights: size and time only" if _is_untrained(spec) else ""
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


def _is_untrained(spec: CaptionerSpec) -> bool:
    return spec.weights == "random" and spec.encoder_training is EncoderTraining.FROZEN
