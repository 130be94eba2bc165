"""Fine-tuning after a compression: on captions, or without labels by reproducing the dense encoder's features."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change
from models.compression.reproduction import BATCH as REPRODUCTION_BATCH
from models.compression.reproduction import reproduce_features, reproduction_steps
from models.compression.weights import describe
from models.datasets.base import Split
from models.decoders import build_decoder
from models.errors import ConfigError
from models.fitting import Teacher, fine_tuning, fit, steps_per_epoch, validation_captions
from models.keras import keras
from models.spec import CaptionerSpec, EncoderTraining
from models.training_data import training_data

# Options that every fine-tuned technique takes.
OPTIONS = ("layers", "epochs", "rate", "images", "share", "dropout", "train")
# `train=step`: what ships in the encoder's file stays, bit by bit, so that one encoder serves many decoders.
LEARNERS = ("all", "step")
# Random features are not worth reproducing: enough for a schedule to end.
SIGHTLESS_IMAGES = 8 * REPRODUCTION_BATCH


@dataclass(frozen=True)
class FineTuning:
    """How long and how boldly: `share` of the training's epochs, but `at_least`, unless `epochs` were asked for."""

    epochs: int | None
    share: float
    at_least: int
    rate: float  # a share of the training's learning rate
    images: int  # for reproducing features
    taught: float = 0.0  # the share of the loss that is the dense captioner's soft words
    dropout: float | None = None  # while it learns; None: as in training
    learners: str = LEARNERS[0]

    @classmethod
    def of(cls, ask: Ask, *, share: float, at_least: int, rate: float, taught: float = 0.0) -> "FineTuning":
        """From the options of an ask, else these. Raises ConfigError."""
        learners = ask.option("train", LEARNERS[0])
        if learners not in LEARNERS:
            raise ConfigError(f"'{ask}': train must be {' or '.join(LEARNERS)}; received '{learners}'.")
        return cls(
            int(ask.number("epochs", 1)) if ask.option("epochs", "") else None,
            share,
            at_least,
            ask.number("rate", rate),
            int(ask.number("images", 2000)),
            min(ask.number("share", taught), 1.0) if taught or ask.option("share", "") else 0.0,
            min(ask.number("dropout", 1), 0.9) if ask.option("dropout", "") else None,
            learners,
        )

    def spec(self, ask: Ask, context: Context, training: EncoderTraining) -> CaptionerSpec:
        """The captioner's spec, changed for this fine-tuning."""
        epochs = self.epochs or max(self.at_least, round(self.share * context.spec.epochs))
        return fine_tuning(context.spec, label=str(ask), epochs=epochs, rate=self.rate, training=training)


def planned_steps(ask: Ask, scope: Scope, context: Context, tuning: FineTuning) -> int:
    """Optimizer steps that a fine-tuning will take, without reading an image."""
    if is_reproduction(scope, context):
        return reproduction_steps(_worthwhile(ask, tuning, context), len(context.dataset.images(Split.TRAIN)))
    spec = tuning.spec(ask, context, context.inputs(scope))
    empty = [[[0]] * len(image.references) for image in context.dataset.images(Split.TRAIN)]
    return spec.epochs * steps_per_epoch(empty, spec)


def _worthwhile(ask: Ask, tuning: FineTuning, context: Context) -> FineTuning:
    asked = ask.option("epochs", "") or ask.option("images", "")
    return tuning if asked or not context.spec.sees_nothing else replace(tuning, epochs=1, images=SIGHTLESS_IMAGES)


def is_reproduction(scope: Scope, context: Context) -> bool:
    """Whether there is nothing to train on but the dense encoder's features."""
    return scope is Scope.ENCODER and context.spec.encoder_training is EncoderTraining.FROZEN


def require_captions(ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for a technique that can't learn from features alone."""
    if is_reproduction(scope, context):
        raise ConfigError(
            f"'{ask}' needs captions to learn from, and a frozen encoder learns from its own features, which it gives "
            f"already: ask for it on the decoder, 'none/{ask}'."
        )


def fine_tune(
    captioner: Captioner, ask: Ask, scope: Scope, context: Context, tuning: FineTuning, change: Change
) -> Outcome:
    """Carry out a change and fine-tune, in place: on captions, or a frozen encoder on the dense one's features."""
    if is_reproduction(scope, context):
        return reproduce_features(captioner, ask, context, _worthwhile(ask, tuning, context), change)
    spec = tuning.spec(ask, context, context.inputs(scope))
    data = training_data(spec, captioner, context.dataset, context.cache)
    teacher = dense_teacher(captioner, tuning.taught)

    def score() -> float:
        return context.score(*validation_captions(spec, captioner, data))

    steps = spec.epochs * steps_per_epoch(data.train_captions, spec)
    constraints, cider = change.carry_out(captioner, steps, score)
    with _dropout(captioner, tuning.dropout), _learning(captioner, tuning.learners):
        fitted = fit(
            captioner, data, spec, work=context.work, score=context.score, constraints=constraints, teacher=teacher
        )
    return Outcome(captioner, describe(change.weights), spec.epochs, fitted.steps, fitted.seconds, cider)


def dense_teacher(captioner: Captioner, share: float) -> Teacher | None:
    """The captioner as it is now, whose soft words make up a `share` of the loss; None for no share.

    What is pruned then learns all that the dense one says of a word, and not only the word (Sanh et al. 2020,
    "Movement pruning", arXiv 2005.07683, section 5, prune with the dense model as teacher).
    """
    if not share:
        return None
    encoder = keras().models.clone_model(captioner.encoder)
    encoder.set_weights(captioner.encoder.get_weights())
    decoder = build_decoder(captioner.config)
    decoder.sequence.set_weights(captioner.decoder.sequence.get_weights())
    return Teacher(replace(captioner, encoder=encoder, decoder=decoder), share=share)


@contextmanager
def _learning(captioner: Captioner, learners: str) -> Iterator[None]:
    """All of the decoder learns, or what it does at every word alone."""
    held = captioner.decoder.prepare.layers if learners == "step" else []
    for layer in held:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in held:
            layer.trainable = True


@contextmanager
def _dropout(captioner: Captioner, rate: float | None) -> Iterator[None]:
    """The decoder with another dropout while it learns; None leaves its own."""
    layers = [layer for layer in captioner.decoder.sequence.layers if isinstance(layer, keras().layers.Dropout)]
    rates = [layer.rate for layer in layers]
    for layer in layers:
        layer.rate = layer.rate if rate is None else rate
    try:
        yield
    finally:
        for layer, before in zip(layers, rates, strict=True):
            layer.rate = before
