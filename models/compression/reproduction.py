"""Fine-tunes a compressed encoder without labels: it learns to give the dense encoder's features again.

Only encoder and pixels are needed, so that an ImageNet encoder can be healed on two cores; the decoder, which
was trained on the dense features, stays as it is. He et al. 2017, "Channel pruning for accelerating very deep
neural networks" (arXiv 1707.06168), reproduce feature maps layer by layer; here the last one alone counts.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.compression.base import Ask, Context, Outcome
from models.compression.change import Change, Norms
from models.compression.weights import describe
from models.datasets.base import Split
from models.errors import TrainingError
from models.features import cached_features
from models.files import content_key
from models.fitting import Constraint, validation_captions
from models.keras import keras, tensorflow
from models.progress import say, track
from models.spec import EncoderTraining
from models.training_data import encoder_fingerprint, training_data

if TYPE_CHECKING:
    from models.compression.finetuning import FineTuning

BATCH = 16
EPOCHS = 2
# Adam's usual step for weights that are nearly right already; `rate` scales it.
LEARNING_RATE = 2e-4
# Batches that set the batch norms anew after filters went or weights became zero, and how fast they forget.
RECALIBRATION_BATCHES, RECALIBRATION_MOMENTUM = 24, 0.85


Arrays = tuple[NDArray[np.float16], NDArray[np.float16]]  # pixels, dense features


def reproduce_features(
    captioner: Captioner, ask: Ask, context: Context, tuning: "FineTuning", change: Change
) -> Outcome:
    """Carry out a change and train the encoder, in place, to give the features of the dense one."""
    started = time.monotonic()
    images = [image.id for image in context.dataset.images(Split.TRAIN)[: tuning.images]]
    arrays = _arrays(captioner, change.dense or captioner, images, context)
    encoder, pixels = captioner.encoder, arrays[0]

    def score() -> float:
        if change.norms is not Norms.KEEP:
            measure_batch_norms(encoder, pixels)
        return _validation_cider(captioner, context)

    epochs, steps = reproduction_epochs(tuning), reproduction_steps(tuning, len(images))
    constraints, cider = change.carry_out(captioner, steps, score)
    with _norms_that_learn(encoder, change.norms):
        trainer = _Trainer(encoder, arrays, constraints, LEARNING_RATE * tuning.rate, str(ask))
        trainer.run(epochs, context, context.spec.seed)
    if change.norms is Norms.LEARN:
        measure_batch_norms(encoder, pixels)
    return Outcome(captioner, describe(change.weights), epochs, steps, time.monotonic() - started, cider)


@contextmanager
def _norms_that_learn(encoder: Any, norms: Norms) -> Iterator[None]:
    """Batch norms that do not learn run in inference mode: what is deployed is what learns."""
    layers = _batch_norms(encoder)
    for layer in layers:
        layer.trainable = norms is Norms.LEARN
    try:
        yield
    finally:
        for layer in layers:
            layer.trainable = True


def reproduction_steps(tuning: "FineTuning", images: int) -> int:
    """Optimizer steps with `images` training images at hand."""
    return reproduction_epochs(tuning) * -(-min(images, tuning.images) // BATCH)


def reproduction_epochs(tuning: "FineTuning") -> int:
    """Passes over the images: features are told exactly, so that few are needed."""
    return tuning.epochs or EPOCHS


class _Trainer:
    """The loop over batches of pixels; the error is a share of the features' own energy."""

    def __init__(
        self, encoder: Any, arrays: Arrays, constraints: Sequence[Constraint], rate: float, label: str
    ) -> None:
        self.encoder, self.arrays, self.constraints, self.label = encoder, arrays, constraints, label
        self.optimizer = keras().optimizers.Adam(rate, clipnorm=5.0)
        self.optimizer.build(encoder.trainable_variables)
        self.step = _reproduction_step(encoder, self.optimizer, constraints)

    def run(self, epochs: int, context: Context, seed: int) -> None:
        """All epochs, from the checkpoint where there is one."""
        context.work.mkdir(parents=True, exist_ok=True)
        path = context.work / "checkpoint.npz"
        checkpoint = load_checkpoint(path, self.encoder, self.optimizer) or Checkpoint.start(self.encoder)
        batches = -(-len(self.arrays[0]) // BATCH)
        for constraint in self.constraints:
            constraint.restore(checkpoint.epoch * batches)
        self.step.counter.assign(checkpoint.epoch * batches)
        while checkpoint.epoch < epochs:
            error = self._epoch(checkpoint.epoch, epochs, seed)
            # The last epoch counts: schedules are complete then.
            checkpoint = checkpoint.after_epoch(self.encoder, loss=error, cider=float(checkpoint.epoch))
            save_checkpoint(path, checkpoint, self.encoder, self.optimizer)
            say(f"{self.label}: epoch {checkpoint.epoch}: features differ by {error:.2%} of their energy")
        self.encoder.set_weights(checkpoint.best_weights)

    def _epoch(self, epoch: int, epochs: int, seed: int) -> float:
        pixels, features = self.arrays
        order = np.random.default_rng([seed, epoch]).permutation(len(pixels))
        errors = []
        for start in track(range(0, len(order), BATCH), f"{self.label}: epoch {epoch + 1}/{epochs}"):
            rows = np.sort(order[start : start + BATCH])
            errors.append(float(self.step(pixels[rows], features[rows])))
            if not np.isfinite(errors[-1]):
                raise TrainingError(f"{self.label}: the error became {errors[-1]}; lower the rate. Epochs are kept.")
        return float(np.mean(errors))


def _reproduction_step(encoder: Any, optimizer: Any, constraints: Sequence[Constraint]) -> Any:
    tf = tensorflow()
    counter = tf.Variable(0, dtype="int64", trainable=False)
    pixels, features = encoder.input_shape[1:], encoder.output_shape[1:]
    signature = [tf.TensorSpec([None, *pixels], tf.float16), tf.TensorSpec([None, *features], tf.float16)]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def step(pixels: Any, features: Any) -> Any:
        wanted = tf.cast(features, tf.float32)
        with tf.GradientTape() as tape:
            given = encoder(tf.cast(pixels, tf.float32), training=True)
            error = tf.reduce_sum(tf.square(given - wanted)) / (tf.reduce_sum(tf.square(wanted)) + 1e-6)
        gradients = tape.gradient(error, encoder.trainable_variables)
        optimizer.apply_gradients(zip(gradients, encoder.trainable_variables, strict=True))
        for constraint in constraints:
            constraint.apply(counter)
        counter.assign_add(1)
        return error

    step.counter = counter
    return step


def measure_batch_norms(encoder: Any, pixels: NDArray[np.float16]) -> None:
    """Let batch norms measure their means and variances anew on `pixels` (images, height, width, 3)."""
    norms = _batch_norms(encoder)
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = RECALIBRATION_MOMENTUM
    for start in range(0, min(len(pixels), RECALIBRATION_BATCHES * BATCH) if norms else 0, BATCH):
        encoder(np.asarray(pixels[start : start + BATCH], np.float32), training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _batch_norms(encoder: Any) -> list[Any]:
    layers = (getattr(layer, "layer", layer) for layer in encoder.layers)
    return [layer for layer in layers if isinstance(layer, keras().layers.BatchNormalization)]


def _arrays(captioner: Captioner, dense: Captioner, images: Sequence[str], context: Context) -> Arrays:
    """Each encoder sees the pictures as its own contract prepares them."""
    common = (context.dataset.fingerprint, images)
    predict = tensorflow().function(dense.encoder)

    def encode(pixels: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(predict(pixels, training=False))

    def cached(captioner: Captioner, encode: Any, *key: Any) -> NDArray[np.float16]:
        contract = captioner.preprocessing
        path = context.cache / f"{content_key(*key, *common, contract.to_json())}.npy"
        return cached_features(path, context.dataset, images, contract, encode)

    pixels = cached(captioner, lambda pixels: pixels, "pixels")
    return pixels, cached(dense, encode, "target", encoder_fingerprint(dense.encoder))


def _validation_cider(captioner: Captioner, context: Context) -> float:
    """CIDEr of the captioner as it is now, from pixels: its features are not worth keeping."""
    spec = replace(context.spec, encoder_training=EncoderTraining.TRAINED)
    data = training_data(spec, captioner, context.dataset, context.cache, splits=(Split.VALIDATION,))
    return context.score(*validation_captions(spec, captioner, data))
