"""The training loop: masked cross-entropy, validation CIDEr, early stopping, checkpoints that resume.

Training and every fine-tuning run through here. An epoch's order and dropout depend on the seed and the
epoch's number only, so a run that was killed and resumed sees the same batches as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner, sentences_by_image
from models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.errors import TrainingError
from models.features import BATCH
from models.keras import keras, tensorflow
from models.progress import say, track
from models.spec import CaptionerSpec, EncoderTraining
from models.training_data import TrainingData, epoch_batches
from models.vocabulary import PAD

# captions by image id, references by image id -> CIDEr-D; given by the caller, because scoring
# lives in `bench`, to the right of this folder.
Score = Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], float]

# (inputs, row of each caption's image in them, padded ids) -> loss
TrainStep = Callable[[NDArray[Any], NDArray[np.intp], NDArray[np.int32]], Any]


class Constraint(Protocol):
    """What weights must obey while they learn: zeros that stay zero, shared values that stay shared."""

    def restore(self, step: int) -> None:
        """Take up again before step `step` (0 at the start) from the weights as they are."""

    def apply(self, step: Any) -> None:
        """Force the weights back after optimizer step `step` (int64 tensor, from 0); traced once."""

    def settled_from(self) -> int:
        """The first step after which the weights are as asked; epochs that end before are not kept."""


@dataclass(frozen=True)
class Teacher:
    """A captioner to learn from, word by word (Hinton et al. 2015, arXiv 1503.02531, section 2)."""

    captioner: Captioner
    # 1, as for words of a sentence (Kim and Rush 2016, section 3.1): at 2 a student was worse than without a teacher.
    temperature: float = 1.0
    share: float = 0.9  # of the teacher's part in the loss


@dataclass(frozen=True)
class Fitted:
    """What a fit did. The captioner holds the best epoch's weights."""

    checkpoint: Checkpoint
    steps: int
    seconds: float  # of this process: a resumed fit counts what it did itself


def fit(
    captioner: Captioner,
    data: TrainingData,
    spec: CaptionerSpec,
    *,
    work: Path,
    score: Score,
    constraints: Sequence[Constraint] = (),
    teacher: Teacher | None = None,
) -> Fitted:
    """Train in place; leaves the weights of the epoch with the best validation CIDEr among the settled ones.

    `spec` says how (its sizes are ignored). Raises TrainingError when the loss is no number any more.
    """
    started = time.monotonic()
    model = _trainable_model(spec, captioner)
    averaging = {"use_ema": True, "ema_momentum": spec.weight_averaging} if spec.weight_averaging else {}
    optimizer = keras().optimizers.Adam(spec.learning_rate, clipnorm=5.0, **averaging)
    optimizer.build(model.trainable_variables)
    counter = tensorflow().Variable(0, dtype="int64", trainable=False)
    train_step = _train_step(spec, captioner, model, optimizer, counter, constraints, teacher)
    work.mkdir(parents=True, exist_ok=True)
    path = work / "checkpoint.npz"
    checkpoint = load_checkpoint(path, model, optimizer) or Checkpoint.start(model)
    steps = steps_per_epoch(data.train_captions, spec)
    _take_up(spec, checkpoint.epoch, checkpoint.epoch * steps, counter, constraints)
    settled = max((constraint.settled_from() for constraint in constraints), default=0)
    while checkpoint.epoch < spec.epochs and not checkpoint.is_stale(spec.patience):
        loss = _train_epoch(spec, checkpoint.epoch, data, optimizer, train_step)
        counts = (checkpoint.epoch + 1) * steps >= settled
        with _averaged(spec, model, optimizer):
            cider = score(*validation_captions(spec, captioner, data))
            checkpoint = checkpoint.after_epoch(model, loss=loss, cider=cider, counts=counts)
        save_checkpoint(path, checkpoint, model, optimizer)
        say(f"{spec.name}: epoch {checkpoint.epoch}: loss {loss:.3f}, validation CIDEr {cider:.3f}")
    model.set_weights(checkpoint.best_weights)
    return Fitted(checkpoint, checkpoint.epoch * steps, time.monotonic() - started)


@contextmanager
def _averaged(spec: CaptionerSpec, model: Any, optimizer: Any) -> Iterator[None]:
    """The running mean of the weights in the model's place, if the spec wants one."""
    weights = model.get_weights()
    if spec.weight_averaging:
        optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        model.set_weights(weights)


def _take_up(spec: CaptionerSpec, epoch: int, step: int, counter: Any, constraints: Sequence[Constraint]) -> None:
    """Go on after `epoch` epochs and `step` steps; both are 0 at the start."""
    if epoch:
        say(f"{spec.name}: training resumes after epoch {epoch}")
    counter.assign(step)
    for constraint in constraints:
        constraint.restore(step)


def steps_per_epoch(captions: Sequence[Sequence[Sequence[int]]], spec: CaptionerSpec) -> int:
    """Optimizer steps of one epoch."""
    return len(list(epoch_batches(captions, spec, 0)))


def _trainable_model(spec: CaptionerSpec, captioner: Captioner) -> Any:
    """[inputs, tokens] -> logits, over all weights that learn."""
    if spec.encoder_training is EncoderTraining.FROZEN:
        return captioner.decoder.sequence
    tokens = keras().layers.Input((None,), dtype="int32", name="tokens")
    image = captioner.encoder.input
    logits = captioner.decoder.sequence([captioner.encoder(image), tokens])
    return keras().Model([image, tokens], logits, name="captioner")


def _train_step(
    spec: CaptionerSpec,
    captioner: Captioner,
    model: Any,
    optimizer: Any,
    counter: Any,
    constraints: Sequence[Constraint],
    teacher: Teacher | None,
) -> TrainStep:
    """One optimizer step, traced once for batches of any size and length."""
    tf = tensorflow()
    signature = [
        tf.TensorSpec([None, *model.input_shape[0][1:]], tf.float16),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None, None], tf.int32),
    ]

    @tf.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def train_step(inputs: Any, image_of_caption: Any, tokens: Any) -> Any:
        pixels = tf.cast(inputs, tf.float32)
        with tf.GradientTape() as tape:
            raw = pixels
            if spec.encoder_training is EncoderTraining.TRAINED:
                raw = captioner.encoder(raw, training=True)
            logits = captioner.decoder.sequence([tf.gather(raw, image_of_caption), tokens[:, :-1]], training=True)
            loss = caption_loss(logits, tokens[:, 1:], spec.label_smoothing)
            if teacher is not None:
                soft = _teacher_loss(teacher, spec, logits, pixels, image_of_caption, tokens)
                loss = (1 - teacher.share) * loss + teacher.share * soft
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for constraint in constraints:
            constraint.apply(counter)
        counter.assign_add(1)
        return loss

    return train_step  # type: ignore[no-any-return]


def caption_loss(logits: Any, targets: Any, smoothing: float) -> Any:
    """Mean cross-entropy over real words, a share of the target spread evenly over all words."""
    tf = tensorflow()
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    real = tf.cast(targets != PAD, tf.float32)
    return tf.reduce_sum(losses * real) / tf.reduce_sum(real)


def _teacher_loss(
    teacher: Teacher, spec: CaptionerSpec, logits: Any, inputs: Any, image_of_caption: Any, tokens: Any
) -> Any:
    """Mean cross-entropy with the teacher's softened words; T squared keeps gradients of one size (section 2)."""
    tf = tensorflow()
    learned = teacher.captioner
    raw = learned.encoder(inputs, training=False) if spec.encoder_training is EncoderTraining.TRAINED else inputs
    taught = learned.decoder.sequence([tf.gather(raw, image_of_caption), tokens[:, :-1]], training=False)
    soft = tf.stop_gradient(tf.nn.softmax(taught / teacher.temperature))
    losses = tf.nn.softmax_cross_entropy_with_logits(soft, logits / teacher.temperature)
    real = tf.cast(tokens[:, 1:] != PAD, tf.float32)
    return teacher.temperature**2 * tf.reduce_sum(losses * real) / tf.reduce_sum(real)


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
        if not np.isfinite(losses[-1]):
            raise TrainingError(
                f"{spec.name}: the loss became {losses[-1]} at step {len(losses)} of epoch {epoch + 1}; lower the "
                f"learning rate (it was {learning_rate(spec, epoch):.2g}). Finished epochs are kept."
            )
    return float(np.mean(losses))


def learning_rate(spec: CaptionerSpec, epoch: int) -> float:
    """Half a cosine from the full rate down to a tenth of it at the last epoch."""
    share = 0.5 * (1 + np.cos(np.pi * epoch / max(spec.epochs - 1, 1)))
    return spec.learning_rate * float(0.1 + 0.9 * share)


def validation_captions(
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


def fine_tuning(
    spec: CaptionerSpec, *, label: str, epochs: int, rate: float, training: EncoderTraining
) -> CaptionerSpec:
    """`spec` for a fine-tuning: `rate` is the share of the learning rate it was trained with; every epoch runs."""
    return replace(
        spec,
        name=label,
        epochs=epochs,
        learning_rate=spec.learning_rate * rate,
        patience=epochs + 1,
        encoder_training=training,
        weight_averaging=0.0,  # a mean of weights keeps neither zeros nor shared values
    )
