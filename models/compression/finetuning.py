"""Fine-tuning after a compression: on captions, or without labels by reproducing the dense encoder's features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.constraints import kept_structure
from models.compression.reproduction import Norms, reproduce_features, reproduction_steps
from models.compression.weights import Weight, all_weights, describe
from models.datasets.base import Split
from models.errors import ConfigError
from models.fitting import Constraint, Teacher, fine_tuning, fit, steps_per_epoch, validation_captions
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
    captioner: Captioner,
    ask: Ask,
    scope: Scope,
    context: Context,
    tuning: FineTuning,
    weights: Sequence[Weight],
    constraints: Callable[[int], Sequence[Constraint]],
    compress: Callable[[], None],
    *,
    gradually: bool = True,
    teacher: Teacher | None = None,
    dense: Captioner | None = None,
    norms: Norms = Norms.KEEP,
) -> Outcome:
    """Score what `compress` alone does, then fine-tune under `constraints(steps)` from the weights before it.

    Where the compression is not reached gradually (`gradually` false), fine-tuning starts after `compress`.
    Other weights keep the zeros and shared values that they have. A frozen encoder learns the features of `dense`.
    Works in place.
    """
    if is_reproduction(scope, context):
        return reproduce_features(
            captioner,
            ask,
            context,
            tuning,
            weights,
            constraints,
            compress,
            gradually=gradually,
            dense=dense,
            norms=norms,
        )
    spec = tuning.spec(ask, context, context.inputs(scope))
    data = training_data(spec, captioner, context.dataset, context.cache)
    steps = spec.epochs * steps_per_epoch(data.train_captions, spec)
    # Errors of a schedule come before anything is computed; clusters are read off once they are there.
    mine = list(constraints(steps)) if gradually else []
    others = [weight for weight in all_weights(captioner) if not _is_one_of(weight, weights)]
    kept = kept_structure(others)
    before = [weight.values for weight in weights]
    compress()
    mine = mine or list(constraints(steps))
    cider = context.score(*validation_captions(spec, captioner, data))
    if gradually:
        for weight, values in zip(weights, before, strict=True):
            weight.variable.assign(values)
    fitted = fit(
        captioner,
        data,
        spec,
        work=context.work,
        score=context.score,
        constraints=[*mine, *kept],
        teacher=teacher,
    )
    return Outcome(captioner, describe(weights), spec.epochs, fitted.steps, fitted.seconds, cider)


def _is_one_of(weight: Weight, weights: Sequence[Weight]) -> bool:
    return any(weight.variable is other.variable for other in weights)
