"""Fine-tuning after a compression: on captions, or without labels by reproducing the dense encoder's features."""

from dataclasses import dataclass

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change
from models.compression.reproduction import reproduce_features, reproduction_steps
from models.compression.weights import describe
from models.datasets.base import Split
from models.errors import ConfigError
from models.fitting import fine_tuning, fit, steps_per_epoch, validation_captions
from models.spec import CaptionerSpec, EncoderTraining
from models.training_data import training_data

# Options that every fine-tuned technique takes.
OPTIONS = ("layers", "epochs", "rate", "images")


@dataclass(frozen=True)
class FineTuning:
    """How long and how boldly: `share` of the training's epochs, but `at_least`, unless `epochs` were asked for."""

    epochs: int | None
    share: float
    at_least: int
    rate: float  # a share of the training's learning rate
    images: int  # for reproducing features

    @classmethod
    def of(cls, ask: Ask, *, share: float, at_least: int, rate: float) -> "FineTuning":
        """From the options of an ask, else these."""
        asked = int(ask.number("epochs", 1)) if ask.option("epochs", "") else None
        return cls(asked, share, at_least, ask.number("rate", rate), int(ask.number("images", 2000)))

    def spec(self, ask: Ask, context: Context, training: EncoderTraining) -> CaptionerSpec:
        """The captioner's spec, changed for this fine-tuning."""
        epochs = self.epochs or max(self.at_least, round(self.share * context.spec.epochs))
        return fine_tuning(context.spec, label=str(ask), epochs=epochs, rate=self.rate, training=training)


def planned_steps(ask: Ask, scope: Scope, context: Context, tuning: FineTuning) -> int:
    """Optimizer steps that a fine-tuning will take, without reading an image."""
    if is_reproduction(scope, context):
        return reproduction_steps(tuning, len(context.dataset.images(Split.TRAIN)))
    spec = tuning.spec(ask, context, context.inputs(scope))
    empty = [[[0]] * len(image.references) for image in context.dataset.images(Split.TRAIN)]
    return spec.epochs * steps_per_epoch(empty, spec)


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
        return reproduce_features(captioner, ask, context, tuning, change)
    spec = tuning.spec(ask, context, context.inputs(scope))
    data = training_data(spec, captioner, context.dataset, context.cache)

    def score() -> float:
        return context.score(*validation_captions(spec, captioner, data))

    steps = spec.epochs * steps_per_epoch(data.train_captions, spec)
    constraints, cider = change.carry_out(captioner, steps, score)
    fitted = fit(captioner, data, spec, work=context.work, score=context.score, constraints=constraints)
    return Outcome(captioner, describe(change.weights), spec.epochs, fitted.steps, fitted.seconds, cider)
